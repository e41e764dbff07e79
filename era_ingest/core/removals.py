"""When books that vanished are taken for removed, and when for out of sight.

A folder whose volume is not mounted can be read, and is empty. Taking that for a removal of every book would empty the
tables and the minister files. So a removal is believed only while it is the smaller part: books of a folder that holds
none any more, or many at once, are kept until a person says that they are gone.
"""

from __future__ import annotations

MANY_BOOKS = 10
"""Fewer than these may vanish at once whatever their share, as long as the folder holds other books."""
REMEDY = "era ingest --allow-removals"


def is_held_back(*, removed: int, known: int, present: int, max_share: float) -> bool:
    """Say whether a removal is too large to be believed.

    Args:
        removed: Books of a folder that vanished.
        known: Books that were loaded from it, the vanished ones included.
        present: What looks like a book in it now, readable or not.
        max_share: Share of the known books that may vanish at once, 0 to 1; 1: any, without a question.
    """
    if not removed or max_share >= 1:
        return False
    return not present or (removed >= MANY_BOOKS and removed > max_share * known)


def explain_held_back(root: str, *, removed: int, known: int) -> str:
    """Say what is held back, why, and what to do.

    Args:
        root: The folder, fit to be shown.
        removed: Books of it that vanished.
        known: Books that were loaded from it.
    """
    return (
        f"{removed:,} of {known:,} books are gone from {root} at once; they are kept, since a volume that is not "
        f"mounted looks the same. If they are to go, run `{REMEDY} {root}` (ERA_MAX_REMOVED_SHARE=1 never asks)."
    )

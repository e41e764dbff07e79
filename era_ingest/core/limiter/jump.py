"""Jump: what a level is cut to when latency jumps, and what latency is normal until that is understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter import seat as seating

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Finding

JUMP: Final = 0.22
"""Rise of ln(latency) that calls for a cut before the next comparison."""
CUT_MOST: Final = 0.25
"""A single cut leaves at least this share of the level."""
QUEUED: Final = 0.5
"""Elasticity between a jump and the low arm after the cut above which the server queues as before: fewer workers, not
slower ones, so the latency that was normal still is."""


class Jump:
    """Remembers the last jump of latency until a comparison has explained it.

    Formula. A server that takes ``s`` times as long gets ``1 / s`` of the level, at least a quarter. If the low arm
    after the cut is faster by more than half of it, workers are gone and latency can be what it was; if not, each
    request takes longer now and no latency is normal any more.

    State. The arm that jumped; None: nothing is unexplained.

    Weak spot. Fewer and slower workers at once look like one or the other.
    """

    def __init__(self) -> None:
        self._found: Finding | None = None

    def happened(self, found: Finding) -> None:
        """Remember an arm that was far slower than those before."""
        self._found = found

    def explain(self) -> None:
        """Forget it: a comparison says what is normal now."""
        self._found = None

    def normal_s(self, base_s: float | None, low: Finding) -> float | None:
        """Return what a low arm's latency should be, seconds; None: no latency is normal any more.

        Args:
            base_s: What was normal before, seconds.
            low: The low arm.
        """
        if base_s is None or self._found is None:
            return base_s
        elasticity = self._found.elasticity_since(low)
        return base_s / seating.SEAT if elasticity is not None and elasticity > QUEUED else None


def share_left(slower: float) -> float:
    """Return the share of the level that is left to a server that became ``slower`` times as slow."""
    return max(CUT_MOST, 1 / slower)

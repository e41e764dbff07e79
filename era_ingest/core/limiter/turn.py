"""Turn: when a window is full again, ever more exactly."""

from __future__ import annotations

import math
from typing import Final

USUAL_S: Final = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 3600)
"""Lengths that windows have; a measured one within 12 % is taken for it."""
LIKE: Final = 0.12
SHORTEST_S: Final = 0.5
"""Turns closer than this are the same one, seconds."""
AFTER_S: Final = 0.02
"""Requests go so much after a turn, seconds."""
WORTH: Final = 1 / 120
"""Share of a window's length that it may open earlier than is known; more is asked for, at a refusal."""


class Turn:
    """Knows when a window turns next, and by how much that may be too late.

    Formula. A turn is only known to lie between a moment when requests were refused and one when they were let
    in, or within the second to which a Retry-After was rounded up. Turns repeat each ``length``, the distance
    of two of them, snapped to the usual lengths within 12 %: so the latest bounds of each are bounds of all,
    and a request that goes in the middle of what is open, once a window, halves it.

    State. When it turns next, how much earlier that may be (``late_s``), the length, the last turn.

    Weak spot. A length that is none of the usual ones is measured no better than its two turns.

    Args:
        ends_at: When the present window ends at the latest, seconds; the present, if it just has.
        late_s: How much earlier it may, seconds.
    """

    def __init__(self, ends_at: float, late_s: float) -> None:
        self.ends_at, self.late_s = ends_at, late_s
        self.length_s: float | None = None
        self.last_at: float | None = None
        self._asked_at: float | None = None
        self._is_asked = False

    # ---- asking earlier

    def ask_at(self) -> float:
        """Return when a request is to find out whether the window has turned already; infinite: never."""
        if self.length_s is None or self._is_asked or self.late_s <= WORTH * self.length_s:
            return math.inf
        return self.ends_at - self.late_s / 2

    def on_asked(self, now: float) -> None:
        """Note that this request goes out."""
        self._asked_at, self._is_asked = now, True

    @property
    def is_asking(self) -> bool:
        """Whether that request is out, and may still be refused."""
        return self._asked_at is not None

    def wait(self, now: float, refusal_s: float) -> float:
        """Return seconds until the request that asks counts as let in; 0 if none does."""
        if self._asked_at is None:
            return 0.0
        return max(0.0, self._asked_at + 3 * refusal_s + AFTER_S - now)

    def is_early(self, now: float, refusal_s: float) -> bool:
        """Return whether it has turned earlier than thought: the request that asked was not refused."""
        if self._asked_at is None or self.wait(now, refusal_s) > 0:
            return False
        self.late_s -= self.ends_at - self._asked_at
        self.ends_at, self._asked_at = self._asked_at, None
        return True

    def on_refused(self, sent_at: float) -> bool:
        """Note a refusal; return whether it answers the question: the window had not turned by then."""
        if self._asked_at is None or sent_at < self._asked_at:
            return False
        self.late_s, self._asked_at = max(0.0, self.ends_at - sent_at), None
        return True

    # ---- turning

    def pass_by(self, now: float) -> int:
        """Return how often it has turned by ``now``."""
        turns = 0
        while now >= self.ends_at:
            turns += 1
            self.last_at = self.ends_at
            self.ends_at += self.length_s if self.length_s is not None else math.inf
            self._is_asked = False
        return turns

    def told(self, ends_at: float, late_s: float) -> None:
        """Take when the present window ends, and how much earlier it may."""
        earliest, latest = ends_at - late_s, ends_at
        if self.length_s is not None and abs(self.ends_at - ends_at) <= late_s + self.late_s:
            earliest, latest = max(earliest, self.ends_at - self.late_s), min(latest, self.ends_at)
        self._measure(ends_at)
        self.ends_at, self.late_s = latest, max(0.0, latest - earliest)

    def seen(self, now: float, late_s: float) -> None:
        """Note that it has just turned, or up to ``late_s`` seconds ago."""
        self._measure(now)
        self.last_at, self.late_s = now, late_s
        self.ends_at = now + self.length_s if self.length_s is not None else math.inf
        self._asked_at, self._is_asked = None, False

    def _measure(self, turn: float) -> None:
        """Take the distance of two turns for the length."""
        gap = turn - self.last_at if self.last_at is not None else 0.0
        if self.length_s is not None or gap < SHORTEST_S:
            return
        usual = min(USUAL_S, key=lambda length: abs(math.log(gap / length)))
        self.length_s = float(usual) if abs(math.log(gap / usual)) < LIKE else gap

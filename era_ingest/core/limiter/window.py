"""Window: a quota that is full again at fixed times and shows no headers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import REFUSAL_GUESS_S
from era_ingest.core.limiter.turn import AFTER_S, Turn

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Flight, Unit
    from era_ingest.core.limiter.spending import Spending

DOUBLINGS: Final = 4
"""How often the pace doubles while the second refusal is overdue."""
FASTER: Final = 4.0
FASTEST: Final = 8.0
"""A window is spent at these multiples of its mean pace: before and after its length is known ..."""
PROVEN: Final = 0.5
"""... or at so much of the pace at which the first one was, if that is more ..."""
SURELY: Final = 0.9
"""... up to this share of what it is expected to hold."""
EVERY: Final = 3
MORE: Final = 1.02
"""In each third window 2 % more is tried."""
CATCH_UP_S: Final = 0.05
EARLY: Final = 0.5
"""A refusal below this share of the limit, with a short Retry-After, is no window's."""
SHORT_S: Final = 2.0
WHOLE_S: Final = 1.0
"""What a Retry-After in whole seconds may have been rounded up by."""


class Window:
    """Counts what a window lets in, stops there, and waits for the next.

    Formula. ``limit`` is what was let in between a turn and the next refusal; when it turns, see `Turn`. Up to
    0.9 of what the last window held requests go at half the pace at which the first one was spent, or 8 times
    the mean pace; then at 8 times the mean pace (4 before the length is known), but no faster than one
    refusal is heard after another: running into the limit costs one or two of them, not a volley. Then
    none until the turn.

    State. Limit and length (None until known), when it ends, how much is used.

    Defaults. Every third window asks for 2 % more. A turn is known from Retry-After, or from the first
    request that is let in after a drought.

    Weak spots. The first two windows are run into. A limit that falls is seen by its refusals and may waste a
    window.

    Attributes:
        refusal_s: Time that a refusal takes, seconds.

    Args:
        now: Seconds.
        ends_at: When the present window ends; the present, if it just has.
        late_s: How much earlier it may, seconds.
        used: What went between the start of sending and the first refusal, units.
        began_at: When sending began, seconds ...
        until: ... and when it was first refused.
        unit: What is counted.
        books: The books of what was sent.
    """

    def __init__(
        self,
        now: float,
        *,
        ends_at: float,
        late_s: float,
        used: float,
        began_at: float,
        until: float,
        unit: Unit,
        books: Spending,
    ) -> None:
        self.unit = unit
        self.limit: float | None = None
        self.turn = Turn(ends_at, late_s)
        self.used = used
        self.refusal_s = REFUSAL_GUESS_S
        self._books = books
        self._expected = used
        self._count = 0
        span_s = max(1.0, ends_at - began_at)
        self._pace = FASTER * used / span_s
        self._proven = PROVEN * used / max(1.0, until - began_at)
        self._overdue_at, self._overdue_s = ends_at + span_s, span_s
        self._next_at = now
        self._doublings = 0

    @property
    def pace(self) -> float:
        """Units a second at present."""
        if self._is_sure:
            return max(self._pace, self._proven)
        if self.limit is None and self._doublings:
            return self._pace
        return min(self._pace, self._books.mean[self.unit] / self.refusal_s)

    @property
    def _is_sure(self) -> bool:
        """Whether the window surely holds more."""
        return self.used < SURELY * self._expected

    @property
    def length_s(self) -> float | None:
        """Seconds from turn to turn; None until known."""
        return self.turn.length_s

    @property
    def ends_at(self) -> float:
        """When the present window ends, seconds; infinite while that is not known."""
        return self.turn.ends_at

    def wait(self, now: float, cost: float) -> float:
        """Return seconds until ``cost`` units may be spent; 0 if now."""
        self._pass_by(now)
        if self.length_s is None and now > self._overdue_at and self._doublings < DOUBLINGS:
            self._pace, self._doublings = 2 * self._pace, self._doublings + 1
            self._overdue_at = now + self._overdue_s
        if self._is_spent(cost):
            return self._wait_for_turn(now)
        return max(0.0, self._next_at - now)

    def on_send(self, now: float, flight: Flight) -> None:
        """Spend a request's cost."""
        cost = flight.cost[self.unit]
        if self._is_spent(cost):
            self.turn.on_asked(now)
        self.used += cost
        gap = cost / self.pace
        late_s = CATCH_UP_S if self._is_sure else gap
        self._next_at = max(self._next_at, now - late_s) + gap

    def on_returned(self, flight: Flight) -> None:
        """Take a refused request out of the count."""
        self.used = max(0.0, self.used - flight.cost[self.unit])

    def on_refused(
        self, now: float, flight: Flight, *, is_first: bool, retry_after_s: float | None
    ) -> float | None:
        """Learn from a refusal.

        Args:
            now: Seconds.
            flight: What was refused.
            is_first: Whether requests were let in since the last one.
            retry_after_s: What the server says, seconds.

        Returns:
            Seconds to wait; None if the drought's questions are to find out.

        Raises:
            NotAWindowError: It refuses far below its limit and soon lets in again.
        """
        short = is_first if retry_after_s is None else retry_after_s <= SHORT_S
        if short and self.limit is not None and self.used < EARLY * self.limit:
            raise NotAWindowError
        asked = self.turn.on_refused(flight.sent_at)
        if is_first and not asked:
            self.limit = self._expected = max(self._books.mean[self.unit], self.used)
        if retry_after_s is not None:
            self.turn.told(now + retry_after_s, WHOLE_S if retry_after_s % 1 == 0 else 0.0)
            self._hurry()
            return max(0.0, self.ends_at + AFTER_S - now)
        if self.length_s is not None and is_first and self.ends_at < math.inf:
            return max(self.ends_at + AFTER_S - now, 0.1)
        return None

    def on_turned(self, now: float, late_s: float) -> None:
        """Note that requests are let in again after a drought, from ``now`` on or up to ``late_s`` before."""
        self.turn.seen(now, late_s)
        self._hurry()
        self._begin(now)
        self.used = self._books.mean[self.unit]

    def _is_spent(self, cost: float) -> bool:
        """Return whether the window does not hold so much more, as far as known."""
        if self.limit is None or self.ends_at == math.inf:
            return False
        if self._count % EVERY == 0:
            return self.used + cost > MORE * self.limit + self._books.mean[self.unit]
        return self.used + cost > self.limit

    def _wait_for_turn(self, now: float) -> float:
        if not self.turn.is_asking:
            self.limit = self._expected = max(self.limit or 0.0, self.used)
        if self.turn.is_early(now, self.refusal_s):
            self._pass_by(now)
            self.used = self._books.mean[self.unit]
            return 0.0
        asking = self.turn.wait(now, self.refusal_s)
        if asking > 0:
            return asking
        return max(0.0, min(self.turn.ask_at(), self.ends_at + AFTER_S) - now)

    def _pass_by(self, now: float) -> None:
        """Begin anew if it has turned."""
        if self.turn.pass_by(now):
            self._begin(self.turn.last_at or now)
            self.used = 0.0

    def _begin(self, at: float) -> None:
        self._count += 1
        self._next_at = at

    def _hurry(self) -> None:
        """Spend at a multiple of the mean pace, once that is known."""
        if self.length_s is not None and self.limit is not None:
            self._pace = FASTEST * self.limit / self.length_s


class NotAWindowError(Exception):
    """What was taken for a fixed window behaves otherwise; a signal between two learners, never shown."""

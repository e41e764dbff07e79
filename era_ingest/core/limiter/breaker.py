"""Breaker: stop while the server is down, and find out cheaply when it is back."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform

IN_A_ROW: Final = 5
OUT_OF: Final = 20
BAD: Final = 12
FIRST_PROBE_S: Final = 1.0
GROWTH: Final = 1.5
MOST_S: Final = 2.5
"""Pause before the first probe, its growth, and the longest, seconds."""


class Breaker:
    """Opens after failures, sends one probe after the other, closes on the first answer to what was sent since.

    Formula. Open after 5 failures in a row, or 12 among the last 20 outcomes. A failure tells how the server
    was when that request was sent: the first probe goes 1 s after the sending of the request whose failure
    opened the breaker (so at once after a time-out), the next ones x1.5 apart up to 2.5 s, each with 20 %
    jitter: never more than one a second. A probe that is still out after the longest pause does not hold up
    the next one: a server that hangs would answer none of them for a whole time limit after it is back.

    State. Closed or open; when the last request that failed had been sent; when the next probe goes. Any
    answer to a request sent after that failure closes the breaker, whether it was meant as a probe or not.

    Defaults. A 429 and a refusal of the inputs count as answers: the server is well.

    Weak spot. A server that fails one request in two opens it now and then.

    Args:
        uniform: Randomness for the jitter.
    """

    def __init__(self, uniform: Uniform) -> None:
        self.is_open = False
        self._uniform = uniform
        self._recent: deque[bool] = deque(maxlen=OUT_OF)
        self._failed_at = -math.inf
        self._probe_at, self._probe_sent_at, self._pause_s = 0.0, -math.inf, FIRST_PROBE_S

    def wait(self, now: float) -> float:
        """Return 0 if a request may go, else seconds until the next probe."""
        return max(0.0, self._probe_at - now) if self.is_open else 0.0

    def on_send(self, now: float) -> bool:
        """Note a request that goes out; return whether it is a probe."""
        if self.is_open:
            self._probe_sent_at, self._probe_at = now, now + MOST_S
        return self.is_open

    def on_answer(self, sent_at: float) -> bool:
        """Note an answer to a request sent at ``sent_at``; return whether that closed the breaker."""
        if not self.is_open:
            self._recent.append(True)
            return False
        if sent_at <= self._failed_at:
            return False
        self.is_open = False
        self._recent.clear()
        return True

    def on_failure(self, now: float, sent_at: float, *, retry_after_s: float | None) -> bool:
        """Note that a request sent at ``sent_at`` failed; return whether that opened the breaker."""
        self._failed_at = max(self._failed_at, sent_at)
        if self.is_open:
            if sent_at >= self._probe_sent_at:
                self._pause_s = min(MOST_S, self._pause_s * GROWTH)
                self._plan(now, now, retry_after_s)
            return False
        self._recent.append(False)
        tail = list(self._recent)[-IN_A_ROW:]
        in_a_row = len(tail) == IN_A_ROW and not any(tail)
        if not in_a_row and self._recent.count(False) < BAD:
            return False
        self.is_open, self._probe_sent_at, self._pause_s = True, now, FIRST_PROBE_S
        self._plan(now, sent_at, retry_after_s)
        return True

    def on_cancel(self, now: float, sent_at: float) -> None:
        """Forget a request; a cancelled probe makes room for another."""
        if self.is_open and sent_at >= self._probe_sent_at:
            self._plan(now, sent_at, None)

    def _plan(self, now: float, since: float, retry_after_s: float | None) -> None:
        own = since + self._pause_s * (1 + 0.2 * self._uniform())
        self._probe_at = max(own, now + (retry_after_s or 0.0))

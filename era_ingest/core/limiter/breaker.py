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
MOST_S: Final = 3.0


class Breaker:
    """Opens after failures, sends one probe at a time, closes on the first answer to a probe.

    Formula. Open after 5 failures in a row, or 12 among the last 20 outcomes. Probes go 1 s after opening,
    then x1.5 apart up to 3 s, each with 20 % jitter: never more than one a second.

    State. Closed, open and waiting, open with a probe out. Only the probe's outcome closes it: replies to
    what was sent before say nothing about now.

    Defaults. A 429 and a refusal of the inputs count as successes: the server is well.

    Weak spot. A server that fails one request in two opens it now and then.

    Args:
        uniform: Randomness for the jitter.
    """

    def __init__(self, uniform: Uniform) -> None:
        self.is_open = False
        self._uniform = uniform
        self._recent: deque[bool] = deque(maxlen=OUT_OF)
        self._probe_out = False
        self._probe_at, self._pause_s = 0.0, FIRST_PROBE_S

    def wait(self, now: float) -> float:
        """Return 0 if a request may go, seconds until the next probe, or infinity while one is out."""
        if not self.is_open:
            return 0.0
        return math.inf if self._probe_out else max(0.0, self._probe_at - now)

    def on_send(self) -> bool:
        """Note a request that goes out; return whether it is a probe."""
        self._probe_out = self.is_open
        return self.is_open

    def on_answer(self, *, is_probe: bool) -> bool:
        """Note that the server answered; return whether that closed the breaker."""
        if not self.is_open:
            self._recent.append(True)
            return False
        if not is_probe:
            return False
        self.is_open = self._probe_out = False
        self._recent.clear()
        return True

    def on_failure(self, now: float, *, is_probe: bool, retry_after_s: float | None) -> bool:
        """Note a failure; return whether that opened the breaker."""
        if self.is_open:
            if is_probe:
                self._probe_out = False
                self._pause_s = min(MOST_S, self._pause_s * GROWTH)
                self._plan(now, retry_after_s)
            return False
        self._recent.append(False)
        tail = list(self._recent)[-IN_A_ROW:]
        in_a_row = len(tail) == IN_A_ROW and not any(tail)
        if not in_a_row and self._recent.count(False) < BAD:
            return False
        self.is_open, self._probe_out, self._pause_s = True, False, FIRST_PROBE_S
        self._plan(now, retry_after_s)
        return True

    def on_cancel(self, *, is_probe: bool) -> None:
        """Forget a request; a cancelled probe makes room for another."""
        if is_probe:
            self._probe_out = False

    def _plan(self, now: float, retry_after_s: float | None) -> None:
        self._probe_at = now + max(self._pause_s * (1 + 0.2 * self._uniform()), retry_after_s or 0.0)

"""How long to wait before a request is tried again: full jitter within a time budget.

The delay before the n-th retry is uniform in ``[0, min(cap, base * 2**n)]``; full jitter spreads the clients
of a recovering server best (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). The
bound is time, not a number of attempts: retries below a second each do not outlast a window of a minute.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of growing random delays.

    Attributes:
        base_s: Upper bound of the first delay, seconds, > 0.
        cap_s: Upper bound of any delay, seconds, >= ``base_s``.
    """

    base_s: float = 0.5
    cap_s: float = 30.0

    def delay_s(self, retry: int, uniform: float) -> float:
        """Return the seconds to wait before a retry.

        Args:
            retry: How many retries came before this one, >= 0.
            uniform: A random number in [0, 1].
        """
        return uniform * min(self.cap_s, self.base_s * 2.0 ** min(retry, 60))


class RetryBudget:
    """The time that one piece of work may lose to failures.

    Only what failures cost is charged (failed requests and the delays after them), never waiting for a turn:
    a text must not be given up because its server had a long queue.

    Args:
        budget_s: Seconds; 0: nothing is tried again.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._spent_s = 0.0

    @property
    def spent_s(self) -> float:
        """Seconds charged so far."""
        return self._spent_s

    @property
    def exhausted(self) -> bool:
        """True once nothing more may be tried."""
        return self._spent_s >= self._budget_s

    def charge(self, seconds: float) -> None:
        """Take seconds (>= 0) off the budget."""
        self._spent_s += seconds

    def afford(self, delay_s: float) -> float:
        """Return the delay, cut to what is left of the budget."""
        return max(0.0, min(delay_s, self._budget_s - self._spent_s))

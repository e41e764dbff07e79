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
    """How long failures may last without a success between them.

    Args:
        budget_s: Seconds from the first failure after a success; 0: the first failure exhausts it.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._since: float | None = None

    def succeed(self) -> None:
        """Note a success: the next failure begins a new count."""
        self._since = None

    def fail(self, now: float) -> bool:
        """Note a failure (``now``: seconds on any monotonic clock); return True once the budget is spent."""
        if self._since is None:
            self._since = now
        return now - self._since >= self.budget_s

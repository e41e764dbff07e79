"""What limits a test server: workers and their queue, requests and tokens a minute, what refusals say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Hint(StrEnum):
    """What a 429 says about when to come again."""

    NONE = "none"
    SECONDS = "seconds"
    MILLISECONDS = "ms"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit on the rate of requests.

    Attributes:
        per_minute: Requests a minute; 0: no limit.
        tokens_per_minute: Tokens a minute; 0: no limit.
        burst: Requests that a full bucket holds; 0: those of a minute.
        window: True: a fixed minute that starts anew; False: a bucket that fills steadily.
        window_s: Length of the "minute", seconds (tests make it short).
        headers: Send ``x-ratelimit-*`` with every reply.
        hint: What a refusal says.
        refusals_count: Refused requests use up the quota too.
    """

    per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    burst: float = 0.0
    window: bool = False
    window_s: float = 60.0
    headers: bool = False
    hint: Hint = Hint.NONE
    refusals_count: bool = False


class Meter:
    """One quantity of a quota: a bucket or a fixed window.

    Args:
        limit: Amount a window.
        burst: What a full bucket holds.
        quota: The rest of the rules.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, limit: float, burst: float, quota: Quota, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._room = burst if not quota.window else limit
        self._rate = limit / quota.window_s
        self._quota = quota
        self._clock = clock
        self._at = clock()
        self.level = self._room

    def refill(self) -> None:
        """Bring the level up to now."""
        now = self._clock()
        if not self._quota.window:
            self.level = min(self._room, self.level + (now - self._at) * self._rate)
            self._at = now
        elif now - self._at >= self._quota.window_s:
            self._at += (now - self._at) // self._quota.window_s * self._quota.window_s
            self.level = self._room

    def wait_s(self, amount: float) -> float:
        """Return the seconds until there is room for an amount."""
        if self.level >= amount:
            return 0.0
        if self._quota.window:
            return self._at + self._quota.window_s - self._clock()
        return (min(amount, self._room) - self.level) / self._rate

    @property
    def reset_s(self) -> float:
        """Seconds until everything is there again."""
        if self._quota.window:
            return self._at + self._quota.window_s - self._clock()
        return (self._room - self.level) / self._rate


class Quotas:
    """Requests and tokens together.

    Args:
        quota: The rules.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._meters: list[tuple[str, Meter]] = []
        if quota.per_minute:
            meter = Meter(quota.per_minute, quota.burst or quota.per_minute, quota, clock)
            self._meters.append(("requests", meter))
        if quota.tokens_per_minute:
            meter = Meter(quota.tokens_per_minute, quota.tokens_per_minute, quota, clock)
            self._meters.append(("tokens", meter))

    def take(self, tokens: float) -> float:
        """Take one request of so many tokens; return 0, or the seconds to wait if it is refused."""
        wait_s = 0.0
        for unit, meter in self._meters:
            meter.refill()
            wait_s = max(wait_s, meter.wait_s(1.0 if unit == "requests" else tokens))
        if wait_s == 0.0 or self._quota.refusals_count:
            for unit, meter in self._meters:
                meter.level = max(0.0, meter.level - (1.0 if unit == "requests" else tokens))
        return wait_s

    def headers(self) -> dict[str, str]:
        """Return the ``x-ratelimit-*`` headers, as OpenAI sends them."""
        found: dict[str, str] = {}
        for unit, meter in self._meters if self._quota.headers else ():
            found[f"x-ratelimit-limit-{unit}"] = f"{meter.limit:g}"
            found[f"x-ratelimit-remaining-{unit}"] = f"{int(meter.level)}"
            found[f"x-ratelimit-reset-{unit}"] = f"{int(meter.reset_s * 1000)}ms"
        return found

    def refusal_headers(self, wait_s: float) -> dict[str, str]:
        """Return the headers of a refusal."""
        found = self.headers()
        if self._quota.hint is Hint.SECONDS:
            found["Retry-After"] = str(max(1, int(wait_s + 0.999)))
        elif self._quota.hint is Hint.MILLISECONDS:
            found["retry-after-ms"] = str(int(wait_s * 1000) + 1)
        return found


class Workers:
    """Workers that serve one request each; others stand in a queue of bounded length.

    Args:
        count: Workers; 0: without bound.
        queue: Requests that may wait; more are turned away.
    """

    def __init__(self, count: int, queue: int) -> None:
        self._free = asyncio.Semaphore(count) if count else None
        self._count = count
        self._queue = queue
        self.busy = 0
        self.most_busy = 0

    @property
    def is_full(self) -> bool:
        """True if one more would be turned away."""
        return self._free is not None and self.busy >= self._count + self._queue

    async def __aenter__(self) -> None:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        if self._free is not None:
            try:
                await self._free.acquire()
            except asyncio.CancelledError:
                self.busy -= 1
                raise

    async def __aexit__(self, *_: object) -> None:
        self.busy -= 1
        if self._free is not None:
            self._free.release()

"""What a server may refuse a request for: quotas of several kinds, and a cap on requests in flight.

Each limit answers three questions: may this request come in, when is it worth asking again, and what do the
headers say. All rates are in units (requests or tokens) a second and may change at given times.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Literal, Protocol

Unit = Literal["requests", "tokens"]
Steps = tuple[tuple[float, float], ...]
"""A value that changes in steps: (from this second on, this value), ascending, the first at 0."""


def value_at(steps: Steps, now: float) -> float:
    """Return the value that holds at ``now``."""
    value = steps[0][1]
    for since, later in steps:
        if since <= now:
            value = later
    return value


ROUNDING = 1e-9
"""Units that floating point may have lost."""
SPENDING_S = 6.0
"""How long even an all-knowing client needs to spend a whole window, seconds."""


class RetryAfter(StrEnum):
    """What a refusal says about waiting."""

    NONE = "none"
    EXACT = "exact"
    """Decimal seconds until the request would fit."""
    SECONDS = "seconds"
    """Whole seconds, rounded up, at least 1, as most servers send it."""
    LONG = "long"
    """Ten times as long as need be, in whole seconds."""
    SHORT = "short"
    """A tenth of what it should be: too soon every time."""


HONEST = (RetryAfter.NONE, RetryAfter.EXACT, RetryAfter.SECONDS)
"""What servers usually say: nothing, or the truth."""


def retry_after(style: RetryAfter, wait_s: float) -> float | None:
    """Return what a server of this style writes for a wait of ``wait_s``."""
    match style:
        case RetryAfter.NONE:
            return None
        case RetryAfter.EXACT:
            return wait_s
        case RetryAfter.SECONDS:
            return max(1.0, math.ceil(wait_s))
        case RetryAfter.LONG:
            return max(1.0, math.ceil(10 * wait_s))
        case RetryAfter.SHORT:
            return 0.1 * wait_s


@dataclass(frozen=True, slots=True)
class Reading:
    """What rate-limit headers say: limit, what remains of it, seconds until it is full again."""

    unit: Unit
    limit: float
    remaining: float
    reset_s: float


class Limit(Protocol):
    """A reason to refuse. ``asks`` is the request's cost in the limit's unit."""

    unit: Unit
    hint: RetryAfter

    def wait(self, now: float, cost: float) -> float:
        """Return 0 if the request fits, else seconds until it would."""
        ...

    def take(self, now: float, cost: float) -> None:
        """Let the request in."""
        ...

    def refuse(self, now: float, cost: float) -> None:
        """Note that some limit refused the request."""
        ...

    def leave(self) -> None:
        """Note that an admitted request is answered."""
        ...

    def reading(self, now: float) -> Reading | None:
        """Return what the headers say, or None if this limit shows none."""
        ...

    def supply(self, duration: float) -> float:
        """Return how many units an all-knowing client gets in ``duration`` seconds."""
        ...


@dataclass(slots=True)
class TokenBucket:
    """Refills steadily up to ``burst``.

    Attributes:
        rate: Units a second, in steps.
        burst: Units that it holds when full.
        headers: Whether its state is shown in headers.
        punishing: Whether refused requests are charged too, down to an empty bucket.
    """

    rate: Steps
    burst: float
    unit: Unit = "requests"
    hint: RetryAfter = RetryAfter.NONE
    headers: bool = False
    punishing: bool = False
    level: float = field(init=False)
    at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.level = self.burst

    def _advance(self, now: float) -> None:
        self.level = min(self.burst, self.level + value_at(self.rate, now) * (now - self.at))
        self.at = now

    def wait(self, now: float, cost: float) -> float:
        """Return 0 if the request fits, else seconds until it would."""
        self._advance(now)
        short = min(cost, self.burst) - self.level
        return 0.0 if short <= ROUNDING else short / value_at(self.rate, now)

    def take(self, now: float, cost: float) -> None:
        """Spend the request's cost."""
        self._advance(now)
        self.level -= cost

    def refuse(self, now: float, cost: float) -> None:
        """Charge a refused request, where this server does."""
        if self.punishing:
            self._advance(now)
            self.level = max(0.0, self.level - cost)

    def leave(self) -> None:
        """Do nothing: a quota is spent at the door."""

    def reading(self, now: float) -> Reading | None:
        """Return limit (one burst), remaining and seconds until full."""
        if not self.headers:
            return None
        self._advance(now)
        missing = self.burst - self.level
        rate = value_at(self.rate, now)
        return Reading(self.unit, math.floor(self.burst), math.floor(max(0.0, self.level)), missing / rate)

    def supply(self, duration: float) -> float:
        """Return burst plus refill."""
        times = [*(since for since, _ in self.rate if since < duration), duration]
        spans = [(end - start) for start, end in pairwise(times)]
        return self.burst + sum(value * span for (_, value), span in zip(self.rate, spans, strict=False))


@dataclass(slots=True)
class FixedWindow:
    """So many units in each window of the clock; what is left over is lost.

    Attributes:
        limit: Units a window.
        length: Seconds.
        phase: How far into a window the run starts, seconds.
    """

    limit: float
    length: float
    phase: float = 0.0
    unit: Unit = "requests"
    hint: RetryAfter = RetryAfter.NONE
    headers: bool = False
    used: float = 0.0
    index: int = 0

    def _advance(self, now: float) -> None:
        index = int((now + self.phase) // self.length)
        if index != self.index:
            self.index, self.used = index, 0.0

    def _left_s(self, now: float) -> float:
        return self.length - (now + self.phase) % self.length

    def wait(self, now: float, cost: float) -> float:
        """Return 0 if the request fits, else seconds until the next window."""
        self._advance(now)
        return 0.0 if self.used + min(cost, self.limit) <= self.limit else self._left_s(now)

    def take(self, now: float, cost: float) -> None:
        """Spend the request's cost."""
        self._advance(now)
        self.used += cost

    def refuse(self, now: float, cost: float) -> None:
        """Do nothing: refusals are free here."""

    def leave(self) -> None:
        """Do nothing: a quota is spent at the door."""

    def reading(self, now: float) -> Reading | None:
        """Return limit, remaining and seconds until the next window."""
        if not self.headers:
            return None
        self._advance(now)
        return Reading(self.unit, self.limit, max(0.0, self.limit - self.used), self._left_s(now))

    def supply(self, duration: float) -> float:
        """Return the limit times the windows that the run touches; spending one takes ``SPENDING_S``."""
        first_s = self.length - self.phase
        whole, last_s = divmod(duration - first_s, self.length)
        return self.limit * (min(1.0, first_s / SPENDING_S) + whole + min(1.0, last_s / SPENDING_S))


@dataclass(slots=True)
class SlidingWindow:
    """At most so many units within the last ``length`` seconds.

    Attributes:
        limit: Units within any ``length`` seconds.
        length: Seconds.
        punishing: Whether refused requests count too.
    """

    limit: float
    length: float
    unit: Unit = "requests"
    hint: RetryAfter = RetryAfter.NONE
    punishing: bool = False
    used: float = 0.0
    log: deque[tuple[float, float]] = field(default_factory=deque)

    def _advance(self, now: float) -> None:
        while self.log and self.log[0][0] <= now - self.length:
            self.used -= self.log.popleft()[1]

    def wait(self, now: float, cost: float) -> float:
        """Return 0 if the request fits, else seconds until enough has slid out."""
        self._advance(now)
        short = self.used + min(cost, self.limit) - self.limit
        if short <= 0:
            return 0.0
        for since, spent in self.log:
            short -= spent
            if short <= 0:
                return since + self.length - now
        return self.length

    def take(self, now: float, cost: float) -> None:
        """Spend the request's cost."""
        self._advance(now)
        self.used += cost
        self.log.append((now, cost))

    def refuse(self, now: float, cost: float) -> None:
        """Charge a refused request, where this server does."""
        if self.punishing:
            self.take(now, cost)

    def leave(self) -> None:
        """Do nothing: a quota is spent at the door."""

    def reading(self, now: float) -> Reading | None:
        """Return None: this kind shows nothing."""
        del now
        return None

    def supply(self, duration: float) -> float:
        """Return the limit times the windows that fit."""
        return self.limit * (1 + (duration - 1e-9) // self.length)


@dataclass(slots=True)
class InFlightCap:
    """At most ``cap`` requests inside at once.

    Attributes:
        cap: Requests.
        retry_s: What a refusal's Retry-After says, seconds, where ``hint`` sends one.
    """

    cap: int
    hint: RetryAfter = RetryAfter.NONE
    retry_s: float = 1.0
    unit: Unit = "requests"
    inside: int = 0

    def wait(self, now: float, cost: float) -> float:
        """Return 0 if there is room, else the wait that is written on the door."""
        del now, cost
        return 0.0 if self.inside < self.cap else self.retry_s

    def take(self, now: float, cost: float) -> None:
        """Take a place."""
        del now, cost
        self.inside += 1

    def refuse(self, now: float, cost: float) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Give the place back."""
        self.inside -= 1

    def reading(self, now: float) -> Reading | None:
        """Return None: this kind shows nothing."""
        del now
        return None

    def supply(self, duration: float) -> float:
        """Return infinity: the server's capacity accounts for its cap."""
        del duration
        return math.inf

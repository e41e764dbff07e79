"""A request on its way, as the learners see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from era_ingest.core.limiter.arm import Arm

    Uniform = Callable[[], float]
    """A source of randomness: each call returns a number in [0, 1). `random.Random(seed).random` fits."""

LATENCY_GUESS_S: Final = 0.3
"""Taken for the server's latency until one is known, seconds."""
REFUSAL_GUESS_S: Final = 0.05
"""Taken for the time until a refusal is heard until one was, seconds."""


class Unit(IntEnum):
    """What a quota counts; the index into ``Spend``."""

    REQUESTS = 0
    TOKENS = 1


class Spend(NamedTuple):
    """An amount in both units."""

    requests: float
    tokens: float

    def plus(self, other: Spend) -> Spend:
        """Return the sum."""
        return Spend(self.requests + other.requests, self.tokens + other.tokens)

    def minus(self, other: Spend) -> Spend:
        """Return the difference."""
        return Spend(self.requests - other.requests, self.tokens - other.tokens)


NOTHING: Final = Spend(0.0, 0.0)


@dataclass(slots=True)
class Flight:
    """One request from its sending to its outcome.

    Attributes:
        ticket: Its number, rising.
        sent_at: When it went, seconds.
        cost: What it spends of a quota: 1 request and its tokens.
        in_flight: Requests in flight when it went, itself included: the load that it met.
        sent_before: Everything sent before it, over the life of the controller.
        arm: The measurement that it belongs to, if any.
        is_probe: Sent to find out whether a server that was down is back.
    """

    ticket: int
    sent_at: float
    cost: Spend
    in_flight: int
    sent_before: Spend
    arm: Arm | None = None
    is_probe: bool = False


def clamp(value: float, low: float, high: float) -> float:
    """Return ``value``, at least ``low`` and at most ``high``; ``low`` wins if they cross."""
    return max(low, min(high, value))

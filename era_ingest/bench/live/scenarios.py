"""The servers of ``era bench live``: one of each kind whose limit a client must find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from era_ingest.bench.simulation.limits import InFlightCap, Limit, RetryAfter, TokenBucket
from era_ingest.bench.simulation.scenario import Scenario
from era_ingest.bench.simulation.servers import Server, Service, Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

PLENTY: Final = 100_000
"""Workers that no client fills."""
RATE: Final = 600 / 60
"""Requests a second."""
BURST: Final = 20.0
CAP: Final = 24
QUICK: Final = Service(0.15, 0.1)
SLOW: Final = Service(2.5, 0.1)
SLOW_WORKERS: Final = 250


def _behind(
    name: str, limit: Callable[[], Limit] | None, *, workers: int = PLENTY, service: Service = QUICK
) -> Scenario:
    def build(rng: Random) -> Server:
        return Server(Workers(((0.0, workers),), service, rng), (limit(),) if limit else ())

    return Scenario(name, build, service, changes=(0.0,))


def _bucket(hint: RetryAfter, *, headers: bool = False) -> Callable[[], Limit]:
    return lambda: TokenBucket(((0.0, RATE),), BURST, hint=hint, headers=headers)


SCENARIOS: Final = (
    _behind("600 RPM, headers", _bucket(RetryAfter.SECONDS, headers=True)),
    _behind("600 RPM, bare 429", _bucket(RetryAfter.NONE)),
    _behind("600 RPM, Retry-After", _bucket(RetryAfter.SECONDS)),
    _behind(f"{CAP} in flight, bare 429", lambda: InFlightCap(CAP)),
    _behind("2.5 s, wide", None, workers=SLOW_WORKERS, service=SLOW),
    _behind("one worker", None, workers=1),
)


def find(name: str) -> Scenario:
    """Return the scenario of a name.

    Raises:
        KeyError: There is none.
    """
    return {scenario.name: scenario for scenario in SCENARIOS}[name]

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
SHARED_RATE: Final = 1200 / 60
DATABASE_S: Final = 0.004
"""What a visit to the board takes, about, in the simulation."""
BURST: Final = 20.0
CAP: Final = 24
QUICK: Final = Service(0.15, 0.1)
SLOW: Final = Service(2.5, 0.1)
SLOW_WORKERS: Final = 250


def _behind(
    name: str,
    limit: Callable[[], Limit] | None,
    *,
    workers: int = PLENTY,
    service: Service = QUICK,
    clients: int = 1,
    database_s: float | None = None,
) -> Scenario:
    def build(rng: Random) -> Server:
        return Server(Workers(((0.0, workers),), service, rng), (limit(),) if limit else ())

    return Scenario(name, build, service, clients=clients, changes=(0.0,), database_s=database_s)


def _bucket(hint: RetryAfter, *, headers: bool = False, rate: float = RATE) -> Callable[[], Limit]:
    return lambda: TokenBucket(((0.0, rate),), BURST, hint=hint, headers=headers)


def _several(name: str, clients: int, database_s: float | None = None) -> Scenario:
    limit = _bucket(RetryAfter.NONE, rate=SHARED_RATE)
    return _behind(f"1,200 RPM, {clients} clients{name}", limit, clients=clients, database_s=database_s)


SCENARIOS: Final = (
    _behind("600 RPM, headers", _bucket(RetryAfter.SECONDS, headers=True)),
    _behind("600 RPM, bare 429", _bucket(RetryAfter.NONE)),
    _behind("600 RPM, Retry-After", _bucket(RetryAfter.SECONDS)),
    _behind(f"{CAP} in flight, bare 429", lambda: InFlightCap(CAP)),
    _behind("2.5 s, wide", None, workers=SLOW_WORKERS, service=SLOW),
    _behind("one worker", None, workers=1),
    _several("", 4),
    _several(" sharing", 2, DATABASE_S),
    _several(" sharing", 8, DATABASE_S),
)


def find(name: str) -> Scenario:
    """Return the scenario of a name.

    Raises:
        KeyError: There is none.
    """
    return {scenario.name: scenario for scenario in SCENARIOS}[name]

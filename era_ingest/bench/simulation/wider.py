"""Quotas far beyond the table's: what other people's servers may be like, drawn over wide ranges.

30 to 10,000 requests a minute, buckets of one request to a whole minute's worth, windows of 1, 10 and 60
seconds, sliding windows, requests of very different size, latencies of 20 ms to 5 s, headers that are rounded,
stale or missing, a Retry-After that is far too long or too short. The bars are those of random servers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from era_ingest.bench.simulation.bars import Bar, Family
from era_ingest.bench.simulation.families import PLENTY, between, draw_machine
from era_ingest.bench.simulation.limits import (
    HONEST,
    FixedWindow,
    Limit,
    RetryAfter,
    SlidingWindow,
    TokenBucket,
    Unit,
)
from era_ingest.bench.simulation.quirks import Proxy, Quirk
from era_ingest.bench.simulation.scenario import Scenario, Tokens
from era_ingest.bench.simulation.servers import Server, Service, Workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SLOW_PER_S: Final = 2.0
"""Below so many requests a second a run takes twice as long: there is little to learn from."""
MEAN_TOKENS: Final = 500.0
LENGTHS_S: Final = (1.0, 10.0, 60.0)


def _behind(
    rng: Random,
    name: str,
    per_s: float,
    make: Callable[[], tuple[Limit, ...]],
    *,
    spread: float = 0.0,
    quirk: Quirk = Quirk.NONE,
) -> Scenario:
    """Return a scenario with a server that takes any number and refuses above its quota of ``per_s``."""
    latency_s = between(rng, 0.02, min(5.0, 400 / per_s))
    service = Service(latency_s, rng.uniform(0.03, 0.3))

    def build(r: Random) -> Server:
        return Server(Workers(((0.0, PLENTY),), service, r), make(), proxy=Proxy(quirk))

    return Scenario(
        name,
        build,
        service,
        machine=draw_machine(rng),
        tokens=Tokens(MEAN_TOKENS, spread),
        duration_s=600.0 if per_s < SLOW_PER_S else 300.0,
    )


def _rate(rng: Random) -> float:
    """Draw 30 to 10,000 requests a minute, in requests a second."""
    return between(rng, 0.5, 10_000 / 60)


def _burst(rng: Random, per_s: float) -> float:
    """Draw a bucket's size in requests: one to a minute's worth."""
    return max(1.0, between(rng, 1.0, max(2.0, 60 * per_s)))


def _unit(rng: Random) -> tuple[Unit, float, float]:
    """Draw what is counted: the unit, units a mean request, and the spread of the sizes."""
    unit: Unit = rng.choice(("requests", "tokens"))
    return unit, MEAN_TOKENS if unit == "tokens" else 1.0, rng.choice((0.0, 0.5, 1.0))


def wide_headers(rng: Random) -> Scenario:
    """Return a quota that shows headers, more or less well."""
    per_s, (unit, per, spread) = _rate(rng), _unit(rng)
    quirk = rng.choice((Quirk.NONE, Quirk.ROUNDED, Quirk.STALE, Quirk.NOT_ON_REFUSALS, Quirk.NO_RESET))
    hint = rng.choice(HONEST)
    length_s, phase, is_window = rng.choice(LENGTHS_S), rng.uniform(0, 60), rng.random() < 1 / 3
    burst = max(3.0, _burst(rng, per_s)) * per
    limit = max(3.0, round(per_s * length_s)) * per

    def make() -> tuple[Limit, ...]:
        if is_window:
            return (FixedWindow(limit, length_s, phase, unit, hint, headers=True),)
        return (TokenBucket(((0.0, per_s * per),), burst, unit, hint, headers=True),)

    kind = f"window {length_s:g} s" if is_window else f"bucket {burst / per / per_s:.2g} s"
    name = f"{60 * per_s:.0f} {unit} a minute, {kind}, {quirk}, {hint}, sizes {spread:g}"
    return _behind(rng, name, per_s, make, spread=spread, quirk=quirk)


def crowded_headers(rng: Random) -> Scenario:
    """Return a quota that shows headers to two to twelve clients, from a few seconds' worth to a minute's."""
    unit: Unit = rng.choice(("requests", "tokens"))
    per, clients = MEAN_TOKENS if unit == "tokens" else 1.0, rng.randint(2, 12)
    per_s = between(rng, clients, 100)
    length_s, phase, is_window = rng.choice((10.0, 60.0)), rng.uniform(0, 60), rng.random() < 1 / 2
    burst_s, hint = between(rng, 3, 60), rng.choice(HONEST)

    def make() -> tuple[Limit, ...]:
        if is_window:
            return (FixedWindow(per_s * length_s * per, length_s, phase, unit, hint, headers=True),)
        return (TokenBucket(((0.0, per_s * per),), burst_s * per_s * per, unit, hint, headers=True),)

    kind = f"window {length_s:g} s" if is_window else f"bucket {burst_s:.2g} s"
    name = f"{clients} clients, {60 * per_s:.0f} {unit} a minute, {kind}, {hint}"
    return replace(_behind(rng, name, per_s, make, spread=rng.choice((0.0, 0.5))), clients=clients)


def wide_bucket(rng: Random) -> Scenario:
    """Return a bucket without headers of use."""
    per_s, (unit, per, spread) = _rate(rng), _unit(rng)
    hint = rng.choice(HONEST)
    burst = _burst(rng, per_s) * per
    quirk = rng.choice((Quirk.NONE, Quirk.NONSENSE))
    name = f"{60 * per_s:.0f} {unit} a minute, bucket {burst / per:.3g}, {quirk}, {hint}, sizes {spread:g}"
    return _behind(
        rng,
        name,
        per_s,
        lambda: (TokenBucket(((0.0, per_s * per),), burst, unit, hint, headers=quirk is Quirk.NONSENSE),),
        spread=spread,
        quirk=quirk,
    )


def wide_window(rng: Random) -> Scenario:
    """Return a fixed window of a second to a minute without headers."""
    per_s, hint, length_s = _rate(rng), rng.choice(HONEST), rng.choice(LENGTHS_S)
    limit, phase = max(1.0, round(per_s * length_s)), rng.uniform(0, 60)
    return _behind(
        rng,
        f"{limit:g} in each {length_s:g} s, {hint}",
        limit / length_s,
        lambda: (FixedWindow(limit, length_s, phase, hint=hint),),
    )


def sliding_window(rng: Random) -> Scenario:
    """Return a sliding window without headers; some count refusals too."""
    per_s, hint, length_s = _rate(rng), rng.choice(HONEST), rng.choice(LENGTHS_S)
    limit, punishing = max(1.0, round(per_s * length_s)), rng.random() < 1 / 3
    return _behind(
        rng,
        f"{limit:g} in any {length_s:g} s, {hint}{', refusals count' * punishing}",
        limit / length_s,
        lambda: (SlidingWindow(limit, length_s, hint=hint, punishing=punishing),),
    )


def wrong_retry_after(rng: Random) -> Scenario:
    """Return a bucket whose Retry-After is ten times too long, or ten times too short."""
    per_s, hint = between(rng, 5, 60), rng.choice((RetryAfter.LONG, RetryAfter.SHORT))
    burst = max(3.0, per_s * between(rng, 0.3, 5))
    return _behind(
        rng,
        f"{60 * per_s:.0f} a minute, bucket {burst:.3g}, {hint}",
        per_s,
        lambda: (TokenBucket(((0.0, per_s),), burst, hint=hint),),
    )


def half_shown(rng: Random) -> Scenario:
    """Return a server whose headers show the requests, while it is the tokens that run out."""
    per_s, spread, hint = between(rng, 5, 60), rng.choice((0.0, 0.5)), rng.choice(HONEST)
    burst_s = between(rng, 0.5, 30)
    return _behind(
        rng,
        f"{60 * per_s:.0f} a minute in tokens, bucket {burst_s:.2g} s, {hint}, sizes {spread:g}",
        per_s,
        lambda: (
            TokenBucket(((0.0, 3 * per_s),), 180 * per_s, "requests", hint, headers=True),
            TokenBucket(((0.0, MEAN_TOKENS * per_s),), MEAN_TOKENS * per_s * burst_s, "tokens", hint),
        ),
        spread=spread,
    )


def only_on_refusals(rng: Random) -> Scenario:
    """Return a quota that shows headers with its refusals only."""
    per_s, hint = between(rng, 5, 60), rng.choice(HONEST)
    burst = per_s * between(rng, 0.5, 60)
    return _behind(
        rng,
        f"{60 * per_s:.0f} a minute, bucket {burst:.3g}, {hint}",
        per_s,
        lambda: (TokenBucket(((0.0, per_s),), burst, hint=hint, headers=True),),
        quirk=Quirk.ONLY_ON_REFUSALS,
    )


BAR: Final = Bar(0.95, 0.02)

WIDER: Final = (
    Family("wider: headers", wide_headers, BAR),
    Family("wider: headers, many clients", crowded_headers, Bar(0.95, 0.02, fairness=0.95)),
    Family("wider: bucket", wide_bucket, BAR),
    Family("wider: fixed window", wide_window, BAR),
    Family("wider: sliding window", sliding_window, BAR),
    Family("wider: wrong Retry-After", wrong_retry_after, BAR),
    Family("wider: tokens not shown", half_shown, BAR),
    Family("wider: only on refusals", only_on_refusals, BAR),
)

"""Pipe: how many requests in flight keep the server busy."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter.arm import Arm, Finding
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight, clamp
from era_ingest.core.limiter.opening import Opening

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform

TARGET: Final = 0.8
"""Elasticity to sit at: about 1.33 times the knee of a first-come-first-served pool."""
LOW: Final = 0.7
"""Level of the low arm, as a share of the level."""
AT_LEVEL: Final = 0.85
"""Share of a level at which a request counts as sent at that level."""
FLAT: Final = 0.2
"""Elasticity below which the server surely has room: the next step of a ramp is x4, else x2."""
SATURATED: Final = 0.5
"""Elasticity above which a ramp ends, as far as noise allows."""
UNSURE: Final = 0.25
"""Elasticity below which a comparison says that the level is far too low."""
FINE: Final = 0.36
"""Step below which a turn ends the search."""
FLAT_TWICE: Final = 2
REVERSED: Final = -0.3
"""Elasticity below which the server has become faster during a comparison."""
FLOORS: Final = 2
"""How often the time between two looks above the least level doubles."""
SMOOTHING: Final = 0.1
GLIDE_LEAST_S: Final = 0.2
GLIDE_MOST_S: Final = 0.5
"""A ramp's step takes one latency, within these bounds, seconds."""
HOLD_LEAST_S: Final = 12.0
DRIFT: Final = 0.2
AGAIN: Final = 0.6
"""Two drifts one way in a row count from this share of one."""
JUMP: Final = 0.5
"""Changes of ln latency while cruising: that call for a new comparison, and for a cut first."""


class Bounds(NamedTuple):
    """Requests in flight: at the start, at least, at most."""

    start: int = 4
    least: int = 2
    most: int = 512


class Mode(StrEnum):
    """What the pipe is doing."""

    OPENING = "opening"
    RAMP = "ramp"
    LOW = "low"
    HIGH = "high"
    CRUISE = "cruise"


class Pipe:
    """Finds the knee of the server's latency and holds the number of requests in flight just above it.

    Formula. The elasticity ``e = d ln(latency) / d ln(in flight)`` is 0 while the server has room and 1 when
    it only queues, whatever the latency is. It is measured between two arms of requests (see ``Arm``) sent at
    different levels, and steered to ``TARGET``.

    States. *Opening*: the first requests alone tell a lone worker from a wide server (see ``Opening``).
    *Ramp*: the level goes x4 a round trip while latency is flat, x2 while it is unclear, and glides to each
    new level within a latency (0.2 to 0.5 s) so that a refusal is heard before many are on their way; it ends
    at ``e > 0.5`` with the level at the knee that the last two arms imply. *Low, high*: compare 0.7 of the
    level with the level, move by a step (0.25 in ln, x1.4 while it goes one way, halved at a turn); two flat
    comparisons ramp again. *Cruise*: hold for at least 12 s, 30 latencies and 8 low arms; compare again then,
    or when latency rises by 20 %; when it jumps by half, cut the level by as much first; when it falls by
    20 %, ramp.

    Defaults. Start 4, at least 2, at most 512 in flight. ``ceiling`` is a further bound, set by others.

    At the least level the comparison is with one more, ever more rarely while that only queues.

    Weak spots. A level below 4 has coarse steps. A comparison costs the low arm's throughput (about 5 % of a
    few round trips, held to a fraction of the time by the cruise). Latency that follows something other than
    the load (batches of very different size, other people's traffic) is noise to it, which it answers with
    longer arms.

    Args:
        uniform: Randomness, so that several clients do not measure in step.
        bounds: Requests in flight.
    """

    def __init__(self, uniform: Uniform, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.ceiling = math.inf
        self.latency_s: float | None = None
        self.mode = Mode.OPENING
        self.target = float(self.bounds.start)
        self._uniform = uniform
        self._opening = Opening(self.bounds.start)
        self._spread = 0.3
        self._before: Finding | None = None
        self._room_seen = False
        self._step, self._way, self._flat = 0.25, 0, 0
        self._base_s: float | None = None
        self._drift = 0.0
        self._from_floor, self._floors = False, 0
        self._cruise_until = 0.0
        self._settled_at = 0.0
        self._low_since = self._low_s = 0.0
        self._glide_from, self._glide_start, self._glide_s = 0.0, 0.0, 0.0
        self._arm = Arm(8, 1, math.inf)

    # ---- the door

    def wait(self, now: float, in_flight: int) -> float:
        """Return 0 if one more may go, seconds while the level glides up, else infinity (until an event)."""
        if self.mode is Mode.OPENING:
            if not self._opening.is_over(now):
                return self._opening.wait(now)
            self._end_opening(now)
        if in_flight < self.level(now):
            return 0.0
        if in_flight >= self._goal() or self._glide_s <= 0:
            return math.inf
        share = (in_flight + 1 - self._glide_from) / max(self._goal() - self._glide_from, 1.0)
        return max(self._glide_start + share * self._glide_s - now, 1e-4)

    def level(self, now: float) -> int:
        """Return how many may be in flight now."""
        goal = self._goal()
        if now < self._glide_start + self._glide_s and goal > self._glide_from:
            share = (now - self._glide_start) / self._glide_s
            return max(1, int(self._glide_from + share * (goal - self._glide_from) + 1e-6))
        return goal

    def _goal(self) -> int:
        level = min(self.target - 1, LOW * self.target) if self.mode is Mode.LOW else self.target
        return max(1, int(min(level + 0.5, self.ceiling, self.bounds.most)))

    @property
    def _top(self) -> float:
        return min(self.ceiling, self.bounds.most)

    # ---- what happens

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        if self.mode is Mode.OPENING:
            self._opening.on_send(flight)
        elif flight.sent_at >= self._settled_at and self._arm.wants(flight):
            self._arm.add(flight)

    def on_drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency."""
        if self.mode is Mode.OPENING:
            self._opening.on_drop(flight)
        if flight.arm is not None:
            flight.arm.drop(flight)
            flight.arm = None

    def on_success(self, now: float, flight: Flight) -> None:
        """Take a latency."""
        latency_s = max(now - flight.sent_at, 1e-6)
        old = self.latency_s
        self.latency_s = latency_s if old is None else old + SMOOTHING * (latency_s - old)
        if self.mode is Mode.OPENING:
            self._opening.on_success(flight, latency_s)
            if self._opening.is_over(now):
                self._end_opening(now)
            return
        if flight.arm is not None:
            flight.arm.note(flight, latency_s)
            flight.arm = None
        finding = self._arm.finding(now)
        if finding is not None:
            self._learn(now, finding)

    # ---- orders from others

    def glide(self, now: float, start: float, over_s: float) -> None:
        """Go from ``start`` requests in flight to the level within ``over_s`` seconds instead of at once."""
        self._glide_from, self._glide_start, self._glide_s = start, now, over_s

    def resume(self, now: float, level: float) -> None:
        """Return to a level that was right before, gliding up to it, and look at latency anew."""
        self.target = clamp(level, self.bounds.least, self._top)
        self.glide(now, max(1.0, self.target / 4), clamp(2 * (self.latency_s or LATENCY_GUESS_S), 0.2, 2.0))
        self._settled_at = now + self._glide_s
        self._cruise(now, None)

    def obey_ceiling(self, now: float, ceiling: float) -> None:
        """Stay at or below ``ceiling`` from now on; a ramp that ran into it is over, one that it held goes on."""
        if ceiling < self.target:
            self.target = max(1.0, ceiling)
            if self.mode in {Mode.OPENING, Mode.RAMP}:
                self._cruise(now, None)
        elif ceiling > self.ceiling and self.target >= self.ceiling - 1:
            self.ceiling = ceiling
            if ceiling < math.inf:
                self.target = min(ceiling, float(self.bounds.most))
            else:
                self._before = None
                self._ramp_to(now, self.target, 2 * self.target)
        self.ceiling = ceiling

    # ---- learning

    def _learn(self, now: float, found: Finding) -> None:
        self._spread += 0.3 * (found.spread - self._spread)
        goal = self._goal()
        if self.mode is Mode.RAMP:
            self._ramp(now, found)
        elif self.mode is Mode.LOW:
            self._compare_next(now, found)
        elif self.mode is Mode.HIGH:
            self._compare(now, found)
        else:
            self._watch(now, found)
        if self.mode is not Mode.RAMP and self._goal() != goal:
            self._settled_at = now + (self.latency_s or 0.0)

    def _compare_next(self, now: float, found: Finding) -> None:
        """Go on to the high arm, unless even the low one is far slower than the level was before."""
        self._low_s = now - self._low_since
        known_s = self._base_s or found.latency_s
        if found.latency_s > math.exp(JUMP) * known_s:
            self._cut(found.latency_s / known_s)
            self._base_s = found.latency_s
            self._tune(now, 0.25)
            return
        self._before, self.mode = found, Mode.HIGH
        self._next_arm()

    def _cut(self, slower: float) -> None:
        """Lower the level for a server that became ``slower`` times as slow."""
        self.target = max(self.bounds.least, self.target * max(0.4, 1 / slower))

    def _next_arm(self) -> None:
        if self.mode is Mode.RAMP:
            size = max(0.5 * self.target, 4.0, 40 * self._spread**2)
            self._arm = Arm(size, 0.5 * self.target, max(1.0, 1.5 * (self.latency_s or 0.0)))
            return
        wanted_error = clamp(0.8 * self._step, 0.12, 0.3)
        size = 2 * (1.2 * self._spread / (math.log(1 / LOW) * wanted_error)) ** 2
        size = max(12.0, min(400.0, size), 0.5 * self.target)
        self._arm = Arm(size, AT_LEVEL * self._goal(), max(4.0, 3 * (self.latency_s or 0.0)))

    def _end_opening(self, now: float) -> None:
        first = self._opening.finding()
        slope = self._opening.slope()
        self._before = first
        if slope > SATURATED:
            least, start = self.bounds.least, self.bounds.start
            self.target = least + (start - least) * clamp(2 * (1 - slope), 0.0, 1.0)
            if self.target < least + 0.5:
                self.target = float(least)
                self._cruise(now, None)
            else:
                self._tune(now, 0.25)
        else:
            self._room_seen = True
            self._ramp_to(now, self.target, self.target * (4 if slope < FLAT else 2))

    def _ramp_to(self, now: float, start: float, target: float) -> None:
        self.mode = Mode.RAMP
        self.target = clamp(target, self.bounds.least, self._top)
        self.glide(now, start, clamp(self.latency_s or LATENCY_GUESS_S, GLIDE_LEAST_S, GLIDE_MOST_S))
        self._next_arm()

    def _ramp(self, now: float, found: Finding) -> None:
        before = self._before
        elasticity = None
        if before is not None:
            elasticity = found.elasticity_since(before)
            if elasticity is not None and elasticity > clamp(2 * found.error_since(before), SATURATED, 0.9):
                self._end_ramp(now, found, before)
                return
            self._room_seen |= elasticity is not None
        if self.target >= self._top:
            self._cruise(now, found.latency_s)
            return
        self._before = found
        factor = 4 if elasticity is not None and elasticity < FLAT else 2
        self._ramp_to(now, self.target, self.target * factor)

    def _end_ramp(self, now: float, found: Finding, before: Finding) -> None:
        """Stand at the knee: latency is flat up to it and proportional to the load above it."""
        if self._room_seen:
            knee = found.load * before.latency_s / found.latency_s
            self.target = clamp(1.2 * knee, before.load, found.load)
        else:
            self.target = clamp(0.6 * before.load, self.bounds.least, before.load)
        self._tune(now, 0.25)

    def _tune(self, now: float, step: float | None = None) -> None:
        """Begin a comparison of 0.7 of the level with the level."""
        if step is not None:
            self._step, self._way = step, 0
        self._before, self._low_since = None, now
        self._from_floor = self.target <= self.bounds.least
        if self._from_floor:
            self.target = self.bounds.least + 1.0
        self.mode = Mode.LOW
        self._next_arm()

    def _compare(self, now: float, found: Finding) -> None:
        elasticity = found.elasticity_since(self._before) if self._before else None
        if elasticity is None or self._before is None:
            self._cruise(now, found.latency_s)
            return
        if self._from_floor and elasticity > SATURATED:
            self.target = float(self.bounds.least)
            self._floors = min(self._floors + 1, FLOORS)
            self._cruise(now, None)
            return
        self._floors = 0
        if elasticity < REVERSED and self.target < self._top:
            self._room_seen, self._before = True, found
            self._ramp_to(now, self.target, 2 * self.target)
            return
        error = TARGET - elasticity
        tolerance = found.error_since(self._before)
        way = 1 if error > 0 else -1
        self._flat = self._flat + 1 if elasticity < UNSURE else 0
        at_end = self.target >= self._top if way > 0 else self.target <= self.bounds.least
        if at_end or -max(0.07, tolerance) <= error <= max(0.1, tolerance):
            self._cruise(now, found.latency_s)
            return
        turned = way * self._way < 0
        if turned and self._step <= FINE:
            self.target = clamp(self.target * math.exp(0.5 * way * self._step), self.bounds.least, self._top)
            self._cruise(now, None)
            return
        self._move(now, way, elasticity, found, turned=turned)

    def _move(self, now: float, way: int, elasticity: float, found: Finding, *, turned: bool) -> None:
        if turned:
            self._step *= 0.5
        elif elasticity < UNSURE:
            self._step = 0.5
        elif self._way:
            self._step = min(0.5, 1.4 * self._step)
        self._way = way
        was = self.target
        self.target = clamp(was * math.exp(way * self._step), self.bounds.least, self._top)
        if self._flat >= FLAT_TWICE and self.target < self._top:
            self._flat = 0
            self._before, self._room_seen = found, True
            self._ramp_to(now, was, 2 * was)
        else:
            self._tune(now)

    def _cruise(self, now: float, base_s: float | None) -> None:
        self.mode, self._base_s, self._flat, self._drift = Mode.CRUISE, base_s, 0, 0.0
        hold = max(HOLD_LEAST_S, 30 * (self.latency_s or 0.1), 8 * self._low_s)
        if self.target <= self.bounds.least:
            hold *= 2 ** (1 + self._floors)
        self._cruise_until = now + hold * (0.75 + 0.5 * self._uniform())
        self._next_arm()

    def _watch(self, now: float, found: Finding) -> None:
        if self._base_s is None:
            self._base_s = found.latency_s
            self._next_arm()
            return
        drift = math.log(found.latency_s / self._base_s)
        noise = max(DRIFT, 3.5 * 1.2 * self._spread / math.sqrt(found.size))
        again = self._drift * drift > 0 and abs(drift) > AGAIN * noise
        self._drift = drift if abs(drift) > AGAIN * noise else 0.0
        drifted = again or abs(drift) > noise
        if drifted and drift > max(JUMP, noise):
            self._cut(math.exp(drift))
            self._tune(now, 0.25)
        elif drifted and drift > 0:
            self._tune(now, 0.3)
        elif drifted and self.target < self._top:
            self._before, self._room_seen = found, True
            self._ramp_to(now, self.target, 2 * self.target)
        elif now < self._cruise_until:
            self._next_arm()
        elif self.target < self.ceiling:
            self._tune(now, 0.15)
        else:
            self._cruise(now, self._base_s)

"""Pipe: how many requests in flight keep the server busy."""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from era_ingest.core.limiter import seat as seating
from era_ingest.core.limiter.arm import CLIP_FACTOR, MIN_RISE, Arm, Finding
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight, clamp
from era_ingest.core.limiter.glide import Glide
from era_ingest.core.limiter.opening import Opening
from era_ingest.core.limiter.ramp import BIG, MIDDLE, SMALL, Ramp
from era_ingest.core.limiter.seat import Seat
from era_ingest.core.limiter.watch import Watch

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform

AT_LEVEL: Final = 0.85
"""Share of a level at which a request counts as sent at that level."""
AT_RAMP: Final = 0.5
MOST_AT_RAMP: Final = 0.8
BEYOND: Final = 1.2
"""The same while the level is still gliding up: at least half, and 1.2 times the level before as far as it goes. All
that are sent from there on belong to the arm, so that it is full before the first of them returns."""
SMOOTHING: Final = 0.1
OLD_SPREAD: Final = 20
"""Requests that what is known of the spread of ln(latency) weighs against an arm's own."""
GLIDE_LEAST_S: Final = 0.2
GLIDE_MOST_S: Final = 0.5
"""A ramp's step takes one latency, within these bounds, seconds."""
RESUME_FROM: Final = 0.5
"""Share of the level before an outage that goes at once after it."""
HOLD_LEAST_S: Final = 15.0
HOLD_LATENCIES: Final = 30
HOLD_COMPARISONS: Final = 4
"""How long a level is held, at least: seconds, latencies, times as long as the comparison took."""
SURE: Final = 0.1
LONGER: Final = 2.0
"""Where a comparison's standard error of ln(latency) is more than that, no hold is more times as long as the one before
it since the last ramp: a knee that one noisy comparison has seen is not worth minutes, whatever another look costs."""
SELDOM: Final = 4
"""Comparisons in a row that change nothing double the hold up to so many times."""
NOTHING_NEW: Final = 0.06
"""Steps of a comparison that together change ln(level) by less changed nothing."""
QUEUED: Final = 0.5
"""Elasticity between a jump and the low arm after the cut above which the server queues as before: fewer workers, not
slower ones, so the latency that was normal still is."""
JUMP: Final = 0.22
"""Rise of ln(latency) that calls for a cut before the next comparison."""
CUT_MOST: Final = 0.25
"""A single cut leaves at least this share of the level."""
WANTED_ERROR: Final = 0.05
FINEST_ERROR: Final = 0.02
"""Standard error of ln(latency) that an arm of a comparison is to reach, and beyond which it need not go..."""
WANTED_REQUESTS: Final = 0.2
"""... which at a level of a few requests need not be finer than this share of one..."""
SHARE_OF_HOLD: Final = 0.03
"""... within this share of the time that the level is then held."""
MOST_OF_AN_ARM: Final = 400
LOST: Final = 0.005
"""Share of the throughput that low arms may cost: the hold is long enough for that..."""
LEAST_LOW: Final = 6.0
"""... and the arms, from so many requests on, so short that the longest hold is."""
CRUISE_ARM_S: Final = 0.25
"""An arm of the cruise takes at least so long, seconds: one in a thousand raises a false alarm, and at 5 ms there
would be thousands a minute."""
RAMP_ERROR: Final = 0.3
"""Standard error of the elasticity that an arm of a ramp is to reach, if the level's requests suffice."""
BELOW: Final = 2
"""Requests in flight that a low arm is below the level at least: the level of a few workers is one more than they are,
and a low arm that leaves none idle could not tell them from one less."""


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
    it only queues, whatever the latency is. It is measured between arms of requests (see ``Arm``) sent at
    different levels.

    States, each with its own part that can be read alone:
    *Opening* (``Opening``): a handful of requests tell a lone worker from all other servers.
    *Ramp* (``Ramp``): the level is multiplied until latency follows; that gives the knee.
    *Low, high* (``Seat``): two levels around the present one are compared, and the level is moved to 1.15 knees, or
    one more than the knee if that is more.
    *Cruise* (``Watch``): the level is held until latency changes or the hold is over; then it is compared
    again. When latency jumps the level is cut by as much first; when it falls, the level ramps.
    New levels are approached by a ``Glide``.

    Defaults. Start 4, at least 2, at most 512 in flight. ``ceiling`` is a further bound, set by others.

    Weak spots. A comparison costs the low arm's throughput: about 5 % of a few round trips at many workers, half of
    them at two. The hold after it is so long that this is half a percent of all, but a server of two workers that
    take seconds first costs more. After a noisy comparison the first holds are short instead: it may be wrong by a
    factor (a pool of 28 was held at 7 for 140 s). A change that comes just as a hold begins and moves latency by
    less than the noise is found at the next comparison only. Latency that follows something other than the load
    (batches of very different size, other people's traffic) is noise to it, which it answers with longer arms.

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
        self._glide = Glide()
        self._spread = 0.3
        self._ramp: Ramp | None = None
        self._at_ramp, self._rise = AT_RAMP, 1.0
        self._jumped: Finding | None = None
        self._seat = Seat()
        self._low: Finding | None = None
        self._watch = Watch()
        self._confirmed = 0
        self._compared_from = self.target
        self._cruise_until = self._settled_at = 0.0
        self._held_s = self._error = 0.0
        self._compared_since = self._comparison_s = 0.0
        self._low_s = self._lost_s = 0.0
        self._arm = Arm(8, 1, math.inf)
        self._full: deque[Arm] = deque()

    # ---- the door

    def wait(self, now: float, in_flight: int) -> float:
        """Return 0 if one more may go, seconds while the level glides up, else infinity (until an event)."""
        if self.mode is Mode.OPENING:
            if not self._opening.is_over(now):
                return self._opening.wait(now)
            self._end_opening(now)
        return self._glide.wait(now, self._goal(), in_flight)

    def level(self, now: float) -> int:
        """Return how many may be in flight now."""
        return self._glide.level(now, self._goal())

    def _goal(self) -> int:
        level = self._level
        if self.mode is Mode.LOW:
            level = max(self.bounds.least - 1, min(level - BELOW, round(seating.LOW * self.target)))
        elif self.mode is Mode.HIGH:
            level = max(level, round(seating.HIGH * self.target))
        return max(1, int(min(level, self._top)))

    @property
    def _level(self) -> int:
        """Requests in flight at the target: above the knee, and one more than the knee at least."""
        return max(round(self.target), round(self.target / seating.SEAT) + 1)

    @property
    def _floor(self) -> float:
        """The target of the least level."""
        return seating.SEAT * max(1, self.bounds.least - 1)

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
            if self.mode is Mode.CRUISE and self._arm.is_full:
                self._full.append(self._arm)
                self._arm = self._cruise_arm()

    def on_drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency."""
        if self.mode is Mode.OPENING:
            self._opening.on_drop(flight)
        if flight.arm is not None:
            flight.arm.drop(flight)
            if flight.arm in self._full and not flight.arm.is_full:
                self._full.remove(flight.arm)
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
        finding = (self._full[0] if self._full else self._arm).finding(now)
        if finding is not None:
            self._learn(now, finding)

    # ---- orders from others

    def glide(self, now: float, start: float, over_s: float) -> None:
        """Go from ``start`` requests in flight to the level within ``over_s`` seconds instead of at once."""
        self._glide.begin(now, start, over_s)

    def resume(self, now: float, level: float) -> None:
        """Return to a level that was right before, and look at latency anew."""
        self.target = clamp(level, self._floor, self._top)
        over_s = clamp(self.latency_s or LATENCY_GUESS_S, GLIDE_LEAST_S, GLIDE_MOST_S)
        self.glide(now, max(1.0, RESUME_FROM * self.target), over_s)
        self._cruise(now, None)
        self._settled_at = now + over_s

    def obey_ceiling(self, now: float, ceiling: float) -> None:
        """Stay at or below ``ceiling`` from now on; a ramp that ran into it is over, one that it held goes on."""
        before, self.ceiling = self.ceiling, ceiling
        if ceiling < self.target:
            self.target = max(1.0, ceiling)
            if self.mode in {Mode.OPENING, Mode.RAMP}:
                self._cruise(now, None)
        elif ceiling > before and self.target >= before - 1:
            if ceiling < math.inf:
                self.target = min(ceiling, float(self.bounds.most))
            else:
                self._ramp = None
                self._ramp_to(now, 2 * self.target)

    # ---- learning

    def _learn(self, now: float, found: Finding) -> None:
        if self.mode is not Mode.CRUISE:
            share = found.size / (found.size + OLD_SPREAD)
            self._spread += share * (found.spread - self._spread)
        found = found._replace(spread=self._spread)
        goal = self._goal()
        if self.mode is Mode.RAMP:
            self._on_ramp(now, found)
        elif self.mode is Mode.LOW:
            self._on_low(now, found)
        elif self.mode is Mode.HIGH:
            self._on_high(now, found)
        else:
            self._on_cruise(now, found)
        if self.mode is not Mode.RAMP and self._goal() != goal:
            self._settled_at = now + (self.latency_s or 0.0)

    def _next_arm(self) -> None:
        latency_s = self.latency_s or LATENCY_GUESS_S
        self._full.clear()
        if self.mode is Mode.RAMP:
            floor = self._at_ramp * self._goal()
            needed = (CLIP_FACTOR * self._spread / (RAMP_ERROR * self._rise)) ** 2
            size = max(self._goal() - floor, 4.0, 60 * self._spread**2, min(needed, self._goal()))
            self._arm = Arm(size, floor, max(1.0, 1.5 * latency_s), hurried=True)
        elif self.mode is Mode.CRUISE:
            self._arm = self._cruise_arm()
        else:
            wanted_error = max(WANTED_ERROR, WANTED_REQUESTS / self.target)
            needed, most = (
                (CLIP_FACTOR * self._spread / error) ** 2 for error in (wanted_error, FINEST_ERROR)
            )
            in_hold = self._hold_s() * self._goal() / latency_s
            size = min(MOST_OF_AN_ARM, clamp(SHARE_OF_HOLD * in_hold, needed, most))
            size = max(12.0, size, self.target)
            if self.mode is Mode.LOW:
                lost = max(LOST, 1 - self._goal() * seating.SEAT / self.target)
                size = min(size, max(LEAST_LOW, SELDOM * LOST / lost * in_hold))
            self._arm = Arm(size, AT_LEVEL * self._goal(), max(3.0, 6 * latency_s))

    def _cruise_arm(self) -> Arm:
        in_time = CRUISE_ARM_S * self._goal() / (self.latency_s or LATENCY_GUESS_S)
        return Arm(max(12.0, self.target, in_time), AT_LEVEL * self._goal(), math.inf)

    def _end_opening(self, now: float) -> None:
        if self._opening.is_lone():
            self.target = self._floor
            self._compare(now)
        else:
            self._ramp_from(now, self._opening.finding(), BIG if self._opening.has_room() else MIDDLE)

    # ---- ramp

    def _ramp_from(self, now: float, found: Finding, factor: float) -> None:
        self._ramp, self._seat, self._watch = Ramp(found, factor), Seat(), Watch()
        self._confirmed, self._held_s = 0, 0.0
        self._ramp_to(now, factor * self.target)

    def _ramp_to(self, now: float, target: float) -> None:
        start, self.mode = self.target, Mode.RAMP
        self.target = clamp(target, self._floor, self._top)
        self.glide(now, start, clamp(self.latency_s or LATENCY_GUESS_S, GLIDE_LEAST_S, GLIDE_MOST_S))
        self._at_ramp = clamp(BEYOND * start / self.target, AT_RAMP, MOST_AT_RAMP)
        self._rise = max(MIN_RISE, math.log(self.target / start * (1 + self._at_ramp) / 2))
        self._next_arm()

    def _on_ramp(self, now: float, found: Finding) -> None:
        if self._ramp is None:
            self._ramp = Ramp(found, MIDDLE)
            factor: float | None = MIDDLE
        else:
            factor = self._ramp.next_factor(found)
        if factor is None:
            self.target = clamp(seating.SEAT * self._ramp.knee(found), self._floor, self._top)
            self._compare(now)
        elif self.target >= self._top:
            self._cruise(now, found.latency_s)
        else:
            self._ramp_to(now, factor * self.target)

    # ---- compare

    def _compare(self, now: float) -> None:
        """Begin comparisons around the level; at the least one, of that with one more."""
        self._compared_from, self._lost_s = self.target, 0.0
        self._compare_again(now)

    def _compare_again(self, now: float) -> None:
        self._low, self._compared_since = None, now
        self.mode = Mode.LOW
        self._next_arm()

    def _on_low(self, now: float, found: Finding) -> None:
        """Go on to the high arm, unless even the low one is far slower than the level was before."""
        normal_s = self._normal_s(found)
        if normal_s is not None and found.latency_s > math.exp(JUMP) * normal_s:
            self._cut(found.latency_s / normal_s)
            self._jumped = found
            self._compare(now)
            return
        self._low, self._low_s, self.mode = found, now - self._compared_since, Mode.HIGH
        self._next_arm()

    def _normal_s(self, found: Finding) -> float | None:
        """Return what a low arm's latency should be, seconds; None: no latency is normal any more."""
        base_s = self._watch.base_s
        if base_s is None or self._jumped is None:
            return base_s
        elasticity = self._jumped.elasticity_since(found)
        return base_s / seating.SEAT if elasticity is not None and elasticity > QUEUED else None

    def _on_high(self, now: float, found: Finding) -> None:
        assert self._low is not None
        self._comparison_s = now - self._compared_since
        low = self._low
        self._jumped, self._error = None, found.latency_error_since(low)
        self._lost_s += self._low_s * max(0.0, 1 - low.per_s / found.per_s)
        step = self._seat.learn(self.target, low, found)
        if step.is_flat and self.target < self._top:
            self._ramp_from(now, found, SMALL)
            return
        self.target = clamp(step.level, self._floor, self._top)
        if step.is_final or not self._floor < self.target < self._top:
            same = abs(math.log(self.target / self._compared_from)) < NOTHING_NEW
            self._confirmed = self._confirmed + 1 if same else 0
            self._cruise(now, found.latency_at(self._level, low))
        else:
            self._watch = Watch(found.latency_at(self._level, low))
            self._compare_again(now)

    def _cut(self, slower: float) -> None:
        """Lower the level for a server that became ``slower`` times as slow."""
        self.target = max(self._floor, self.target * max(CUT_MOST, 1 / slower))

    # ---- cruise

    def _cruise(self, now: float, base_s: float | None) -> None:
        self.mode, self._watch = Mode.CRUISE, Watch(base_s)
        hold_s = self._hold_s() * min(SELDOM, 2**self._confirmed)
        if self._error > SURE:
            hold_s = min(hold_s, max(self._usual_s(), LONGER * self._held_s))
        self._held_s = hold_s
        self._cruise_until = now + hold_s * (0.75 + 0.5 * self._uniform())
        self._next_arm()

    def _hold_s(self) -> float:
        """Return how long a level is held, seconds."""
        return max(self._usual_s(), self._lost_s / LOST)

    def _usual_s(self) -> float:
        """Return how long a level is held that was never compared before, seconds."""
        latencies_s = HOLD_LATENCIES * (self.latency_s or LATENCY_GUESS_S)
        return max(HOLD_LEAST_S, latencies_s, HOLD_COMPARISONS * self._comparison_s)

    def _on_cruise(self, now: float, found: Finding) -> None:
        self._full.popleft()
        change = self._watch.change(found)
        if change is None:
            if now >= self._cruise_until:
                self._compare(now)
            return
        self._confirmed = 0
        if change < 0:
            if self.target < self._top:
                self._ramp_from(now, found, SMALL)
            else:
                self._cruise(now, None)
            return
        self._seat.doubt(seating.UNKNOWN if change > JUMP else seating.DOUBTFUL)
        if change > JUMP:
            self._cut(math.exp(change))
            self._jumped = found
        self._compare(now)

"""Pipe: how many requests in flight keep the server busy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter import seat as seating
from era_ingest.core.limiter.arms import Arms
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight, clamp
from era_ingest.core.limiter.hold import Hold
from era_ingest.core.limiter.jump import JUMP, Jump, share_left
from era_ingest.core.limiter.level import Bounds, Level, Mode
from era_ingest.core.limiter.opening import Opening
from era_ingest.core.limiter.ramp import BIG, MIDDLE, SMALL, Ramp
from era_ingest.core.limiter.seat import Seat
from era_ingest.core.limiter.sizing import Sizing
from era_ingest.core.limiter.watch import Watch

if TYPE_CHECKING:
    from era_ingest.core.limiter.arm import Arm, Finding
    from era_ingest.core.limiter.flight import Uniform

SMOOTHING: Final = 0.1
GLIDE_LEAST_S: Final = 0.2
GLIDE_MOST_S: Final = 0.5
"""A ramp's step takes one latency, within these bounds, seconds."""
RESUME_FROM: Final = 0.5
"""Share of the level before an outage that goes at once after it."""


class Pipe:
    """Finds the knee of the server's latency and holds the number of requests in flight just above it.

    Formula. The elasticity ``e = d ln(latency) / d ln(in flight)`` is 0 while the server has room and 1 when
    it only queues, whatever the latency is. It is measured between arms of requests (see ``Arm``) sent at
    different levels.

    Parts that can be read alone: how large an arm is (``Sizing``), how long a level is held (``Hold``), how it becomes
    requests in flight (``Level``), and for each state the one that judges it:
    *Opening* (``Opening``): a handful of requests tell a lone worker from all other servers.
    *Ramp* (``Ramp``): the level is multiplied until latency follows; that gives the knee.
    *Low, high* (``Seat``): two levels around the present one are compared, and the level is moved to 1.15 knees, or
    one more than the knee if that is more.
    *Cruise* (``Watch``): the level is held until latency changes or the hold is over; then it is compared
    again. When latency jumps the level is cut by as much first; when it falls, the level ramps.

    Defaults. Those of the parts.

    Weak spots. A comparison costs the low arm's throughput: about 5 % of a few round trips at many workers, half of
    them at two; a server of two workers that take seconds first costs more than the hold after it makes up for. One
    noisy comparison may be wrong by a factor (a pool of 28 was held at 7 for 140 s; see ``Hold``). Latency that follows
    something other than the load (batches of very different size, other people's traffic) is noise to it.

    Args:
        uniform: Randomness, so that several clients do not measure in step.
        bounds: Requests in flight.
    """

    def __init__(self, uniform: Uniform, bounds: Bounds | None = None) -> None:
        self.latency_s: float | None = None
        self.mode = Mode.OPENING
        self._level = Level(bounds or Bounds())
        self._uniform = uniform
        self._opening = Opening(self.bounds.start)
        self._sizing, self._hold = Sizing(), Hold()
        self._ramp: Ramp | None = None
        self._jump = Jump()
        self._seat = Seat()
        self._low: Finding | None = None
        self._watch = Watch()
        self._cruise_until = self._settled_at = 0.0
        self._arms = Arms()

    # ---- the door

    def wait(self, now: float, in_flight: int) -> float:
        """Return 0 if one more may go, seconds while the level glides up, else infinity (until an event)."""
        if self.mode is Mode.OPENING:
            if not self._opening.is_over(now):
                return self._opening.wait(now)
            self._end_opening(now)
        return self._level.wait(now, self.mode, in_flight)

    def level(self, now: float) -> int:
        """Return how many may be in flight now."""
        return self._level.at(now, self.mode)

    @property
    def bounds(self) -> Bounds:
        """Requests in flight: at the start, at least, at most."""
        return self._level.bounds

    @property
    def target(self) -> float:
        """The level that is held, in requests in flight."""
        return self._level.target

    def _goal(self) -> int:
        return self._level.goal(self.mode)

    # ---- what happens

    def on_send(self, flight: Flight) -> None:
        """Note a request that goes out."""
        if self.mode is Mode.OPENING:
            self._opening.on_send(flight)
        elif flight.sent_at >= self._settled_at:
            is_full = self._arms.add(flight)
            if is_full and self.mode is Mode.CRUISE:
                self._arms.follow(self._cruise_arm())

    def on_drop(self, flight: Flight) -> None:
        """Forget a request that brought no latency."""
        if self.mode is Mode.OPENING:
            self._opening.on_drop(flight)
        self._arms.drop(flight)

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
        finding = self._arms.note(now, flight, latency_s)
        if finding is not None:
            self._learn(now, finding)

    # ---- orders from others

    def glide(self, now: float, start: float, over_s: float) -> None:
        """Go from ``start`` requests in flight to the level within ``over_s`` seconds instead of at once."""
        self._level.glide(now, start, over_s)

    def resume(self, now: float, level: float) -> None:
        """Return to a level that was right before, and look at latency anew."""
        self._level.move_to(level)
        over_s = clamp(self.latency_s or LATENCY_GUESS_S, GLIDE_LEAST_S, GLIDE_MOST_S)
        self.glide(now, max(1.0, RESUME_FROM * self.target), over_s)
        self._cruise(now, None)
        self._settled_at = now + over_s

    def obey_ceiling(self, now: float, ceiling: float) -> None:
        """Stay at or below ``ceiling`` from now on; a ramp that ran into it is over, one that it held goes on."""
        level, before = self._level, self._level.ceiling
        level.ceiling = ceiling
        if ceiling < level.target:
            level.target = max(1.0, ceiling)
            if self.mode in {Mode.OPENING, Mode.RAMP}:
                self._cruise(now, None)
        elif ceiling > before and level.target >= before - 1:
            if ceiling < math.inf:
                level.target = level.top
            else:
                self._ramp = None
                self._ramp_to(now, 2 * level.target)

    # ---- learning

    def _learn(self, now: float, found: Finding) -> None:
        if self.mode is not Mode.CRUISE:
            self._sizing.learn(found)
        found = self._sizing.judged(found)
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
        self._arms.begin(self._build_arm())

    def _build_arm(self) -> Arm:
        if self.mode is Mode.RAMP:
            return self._sizing.ramp_arm(self._goal(), self.latency_s)
        if self.mode is Mode.CRUISE:
            return self._cruise_arm()
        hold_s, is_low = self._hold.expected_s(self.latency_s), self.mode is Mode.LOW
        return self._sizing.comparison_arm(
            self._goal(), self.target, self.latency_s, hold_s=hold_s, is_low=is_low
        )

    def _cruise_arm(self) -> Arm:
        return self._sizing.cruise_arm(self._goal(), self.target, self.latency_s)

    def _end_opening(self, now: float) -> None:
        if self._opening.is_lone():
            self._level.target = self._level.floor
            self._compare(now)
        else:
            self._ramp_from(now, self._opening.finding(), BIG if self._opening.has_room() else MIDDLE)

    # ---- ramp

    def _ramp_from(self, now: float, found: Finding, factor: float) -> None:
        self._ramp, self._seat, self._watch = Ramp(found, factor), Seat(), Watch()
        self._hold.forget()
        self._ramp_to(now, factor * self.target)

    def _ramp_to(self, now: float, target: float) -> None:
        start, self.mode = self.target, Mode.RAMP
        self._level.move_to(target)
        self.glide(now, start, clamp(self.latency_s or LATENCY_GUESS_S, GLIDE_LEAST_S, GLIDE_MOST_S))
        self._sizing.step(start, self.target)
        self._next_arm()

    def _on_ramp(self, now: float, found: Finding) -> None:
        if self._ramp is None:
            self._ramp = Ramp(found, MIDDLE)
            factor: float | None = MIDDLE
        else:
            factor = self._ramp.next_factor(found)
        if factor is None:
            self._level.move_to(seating.SEAT * self._ramp.knee(found))
            self._compare(now)
        elif self._level.is_at_top:
            self._cruise(now, found.latency_s)
        else:
            self._ramp_to(now, factor * self.target)

    # ---- compare

    def _compare(self, now: float) -> None:
        """Begin comparisons around the level; at the least one, of that with one more."""
        self._hold.begin_comparisons(self.target)
        self._compare_again(now)

    def _compare_again(self, now: float) -> None:
        self._hold.begin_comparison(now)
        self._low, self.mode = None, Mode.LOW
        self._next_arm()

    def _on_low(self, now: float, found: Finding) -> None:
        """Go on to the high arm, unless even the low one is far slower than the level was before."""
        normal_s = self._jump.normal_s(self._watch.base_s, found)
        if normal_s is not None and found.latency_s > math.exp(JUMP) * normal_s:
            self._cut(found.latency_s / normal_s)
            self._jump.happened(found)
            self._compare(now)
            return
        self._hold.low_is_done(now)
        self._low, self.mode = found, Mode.HIGH
        self._next_arm()

    def _on_high(self, now: float, found: Finding) -> None:
        assert self._low is not None
        low = self._low
        self._jump.explain()
        self._hold.high_is_done(now, found.latency_error_since(low), 1 - low.per_s / found.per_s)
        step = self._seat.learn(self.target, low, found)
        if step.is_flat and not self._level.is_at_top:
            self._ramp_from(now, found, SMALL)
            return
        self._level.move_to(step.level)
        if step.is_final or not self._level.is_between:
            self._hold.settle(self.target)
            self._cruise(now, found.latency_at(self._level.seated, low))
        else:
            self._watch = Watch(found.latency_at(self._level.seated, low))
            self._compare_again(now)

    def _cut(self, slower: float) -> None:
        """Lower the level for a server that became ``slower`` times as slow."""
        self._level.target = max(self._level.floor, share_left(slower) * self.target)

    # ---- cruise

    def _cruise(self, now: float, base_s: float | None) -> None:
        self.mode, self._watch = Mode.CRUISE, Watch(base_s)
        self._cruise_until = now + self._hold.begin(self.latency_s) * (0.75 + 0.5 * self._uniform())
        self._next_arm()

    def _on_cruise(self, now: float, found: Finding) -> None:
        self._arms.retire()
        change = self._watch.change(found)
        if change is None:
            if now >= self._cruise_until:
                self._compare(now)
            return
        self._hold.surprised()
        if change < 0:
            if not self._level.is_at_top:
                self._ramp_from(now, found, SMALL)
            else:
                self._cruise(now, None)
            return
        self._seat.doubt(seating.UNKNOWN if change > JUMP else seating.DOUBTFUL)
        if change > JUMP:
            self._cut(math.exp(change))
            self._jump.happened(found)
        self._compare(now)

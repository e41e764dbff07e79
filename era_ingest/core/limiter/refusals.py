"""Refusals: what a 429 without headers means, a cap on requests in flight, a rate, or a window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.cap import Cap
from era_ingest.core.limiter.drought import ALONE_FROM, Drought
from era_ingest.core.limiter.flight import LATENCY_GUESS_S, Flight
from era_ingest.core.limiter.rate import Phase, Rate
from era_ingest.core.limiter.spending import Mark, Spending
from era_ingest.core.limiter.window import WHOLE_S, NotAWindowError, Window

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform

WINDOW_RETRY_S: Final = 3.0
"""A Retry-After of at least this much may be the rest of a window."""
WINDOW_SPANS: Final = 8
"""... if it is as long as so many requests took before."""
USUAL_LENGTH_S: Final = 60.0
DISCREDITED_S: Final = 300.0
"""For so long no window is suspected after one that was none, seconds."""
ROUNDED_S: Final = 1.0
"""A Retry-After up to this may be a fraction rounded up to whole seconds."""


class Refusals:
    """Chooses the model that explains the refusals, and asks it for permission.

    First a *cap* is suspected: its test costs at most one more refusal, and if it fails, the two refusals and
    what went between them are the first measurement of a *rate*. A Retry-After of 3 s or more that spans over
    8 requests, or a drought that long, is a *window*.

    Args:
        uniform: Randomness for the times of probes.
    """

    def __init__(self, uniform: Uniform) -> None:
        self.books = Spending()
        self.cap = Cap()
        self.rate = Rate(uniform, self.books)
        self.window: Window | None = None
        self._drought = Drought()
        self._uniform = uniform
        self._before: tuple[Mark, Mark] | None = None
        self._pace_before = 0.0
        self._no_window_until = self._refused_at = -math.inf

    def wait(self, now: float, flight_cost: tuple[float, float], in_flight: int) -> float:
        """Return 0 if a request may go, else seconds, or infinity until an event."""
        self._relieve(self._drought.ended_at(now, self.cap.refusal_s))
        wait = max(self._drought.wait(now, self.cap.refusal_s), self.cap.wait(now, in_flight))
        if wait > 0:
            return wait
        if self.window is not None:
            return self.window.wait(now, flight_cost[self.window.unit])
        return self.rate.wait(now, flight_cost[self.rate.unit])

    def on_send(self, now: float, flight: Flight) -> None:
        """Note a request that goes out."""
        self.books.on_send(flight)
        self._drought.on_send(flight)
        self.cap.on_send(now)
        if self.window is not None:
            self.window.on_send(now, flight)
        else:
            self.rate.on_send(now, flight.cost[self.rate.unit])

    def on_lost(self, flight: Flight) -> None:
        """Note a request that failed otherwise: it may or may not have been let in."""
        self.books.on_returned(flight)
        self._drought.on_lost(flight)

    def on_accepted(self, now: float, flight: Flight, latency_s: float) -> None:
        """Note a reply."""
        self.books.window_s = max(1.0, 1.5 * latency_s)
        self.rate.latency_s = latency_s
        self.cap.on_success(now, flight, latency_s)
        self._relieve(self._drought.answered(flight))

    def _relieve(self, turn: float | None) -> None:
        """Note the end of a drought: requests are let in again from ``turn`` on. Was that a window's turn?"""
        if turn is None:
            return
        lasted = turn - self._drought.since
        if self.window is not None:
            self.window.on_turned(turn, turn - self._refused_at)
        elif (
            turn >= self._no_window_until
            and lasted > WINDOW_RETRY_S
            and lasted * self._pace_before > WINDOW_SPANS
        ):
            self._begin_window(turn, turn, turn - self._refused_at)

    def on_refused(self, now: float, flight: Flight, retry_after_s: float | None) -> float:
        """Learn from a refusal; return seconds of silence."""
        mark = self.books.mark(flight)
        self.books.on_returned(flight)
        self.rate.on_returned(flight)
        if self.window is not None:
            self.window.on_returned(flight)
        self._time_refusal(now, flight)
        if self._drought.is_old(flight):
            if self.cap.is_suspected:
                self.cap.on_refused(now, flight)
            return retry_after_s or 0.0 if (retry_after_s or 0.0) > ROUNDED_S else 0.0
        self._relieve(self._drought.ended_by(flight))
        self._drought.on_refused(now, flight)
        self._refused_at = flight.sent_at
        if self.window is not None:
            return self._refused_in_window(now, flight, retry_after_s)
        if self._drought.length >= ALONE_FROM and self.rate.phase is not Phase.OFF:
            return self._ask_later(now, retry_after_s)
        return self._refused(now, flight, mark, retry_after_s)

    # ---- which model

    def _time_refusal(self, now: float, flight: Flight) -> None:
        taken = now - flight.sent_at
        self.cap.refusal_s += 0.3 * (taken - self.cap.refusal_s)
        self.rate.refusal_s = self.cap.refusal_s
        if self.window is not None:
            self.window.refusal_s = self.cap.refusal_s

    def _refused(self, now: float, flight: Flight, mark: Mark, retry_after_s: float | None) -> float:
        if self._drought.length == 1:
            since = self._before[1] if self._before else self.books.start()
            self._before = (since, mark)
            self._pace_before = mark.since(since).requests / max(0.5, mark.since(since).span_s)
        long = now >= self._no_window_until and retry_after_s is not None and retry_after_s >= WINDOW_RETRY_S
        if long and retry_after_s is not None and retry_after_s * self._pace_before > WINDOW_SPANS:
            self._begin_window(now, now + retry_after_s, WHOLE_S)
            return retry_after_s
        if self.rate.phase is Phase.OFF and self._may_be_cap(now, flight, retry_after_s):
            return retry_after_s or 0.0
        self.rate.on_refused(now, mark)
        return self._pause(now, retry_after_s)

    def _may_be_cap(self, now: float, flight: Flight, retry_after_s: float | None) -> bool:
        if self.cap.is_suspected:
            return self.cap.on_refused(now, flight)
        if flight.in_flight <= 1 or now < self.cap.discredited_until:
            return False
        self.cap.suspect(now, flight.in_flight, test=retry_after_s is None)
        return True

    def _pause(self, now: float, retry_after_s: float | None) -> float:
        if self._drought.length >= ALONE_FROM:
            return self._ask_later(now, retry_after_s)
        gap = self.books.mean[self.rate.unit] / self.rate.pace
        if retry_after_s is None:
            return min(2 * gap, 1.0)
        if retry_after_s <= ROUNDED_S and self.rate.is_bounded:
            return min(retry_after_s, 2 * gap)
        return max(retry_after_s * (1 + 0.05 * self._uniform()), min(gap, 1.0))

    def _ask_later(self, now: float, retry_after_s: float | None) -> float:
        """Return when to ask again in a drought; a Retry-After that did not help is not believed twice."""
        pause = self._unevenly(self._drought.pause(now))
        if retry_after_s is None:
            return pause
        return retry_after_s if self._drought.length <= ALONE_FROM else max(retry_after_s, pause)

    # ---- windows

    def _begin_window(self, now: float, turn: float, late_s: float) -> None:
        start, mark = self._before or (self.books.start(), self.books.start())
        epoch = mark.since(start)
        unit = self.rate.unit
        self.window = Window(
            now,
            ends_at=turn,
            late_s=late_s,
            used=max(epoch.accepted[unit], 8 * self.books.mean[unit]),
            began_at=start.at,
            until=mark.at,
            unit=unit,
            books=self.books,
        )
        if turn <= now:
            self.window.on_turned(turn, late_s)
        self.window.refusal_s = self.cap.refusal_s
        self.cap.clear()

    def _refused_in_window(self, now: float, flight: Flight, retry_after_s: float | None) -> float:
        assert self.window is not None
        try:
            pause = self.window.on_refused(
                now, flight, is_first=self._drought.length == 1, retry_after_s=retry_after_s
            )
        except NotAWindowError:
            counted = (self.window.limit or 1.0) / (self.window.length_s or USUAL_LENGTH_S)
            mean = Mark(now, self.books.accepted).since(self.books.start()).rate(self.window.unit)
            self.window, self._no_window_until = None, now + DISCREDITED_S
            self.rate.adopt(now, max(counted, mean))
            return retry_after_s or LATENCY_GUESS_S
        if pause is not None:
            return pause
        since = self.window.turn.last_at
        return self._unevenly(self._drought.pause(now, math.inf if since is None else since))

    def _unevenly(self, pause_s: float) -> float:
        """Return a pause up to a quarter shorter or longer: in step with a window it would never meet its turn."""
        return pause_s * (0.75 + 0.5 * self._uniform())

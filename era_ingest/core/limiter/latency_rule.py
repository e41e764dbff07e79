"""The specification's own controller, for comparison: a concurrency that follows absolute latency."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from era_ingest.core.limiter.counting import CountingLimiter


@dataclass(frozen=True, slots=True)
class LatencyRuleParameters:
    """The rule's numbers; the defaults are the specification's.

    Attributes:
        start: Requests in flight at the start.
        least: At least so many.
        most: At most so many.
        window: Replies whose mean latency decides.
        fast_s: Below this mean the limit rises by ``step``, seconds.
        slow_s: Above this mean it falls to ``slow_factor`` of itself, seconds.
        refusals: So many 429s cut it to ``refusal_factor`` of itself.
    """

    start: int = 10
    least: int = 1
    most: int = 50
    window: int = 20
    fast_s: float = 0.6
    slow_s: float = 1.2
    step: float = 2.0
    slow_factor: float = 0.9
    refusals: int = 3
    refusal_factor: float = 0.7


class LatencyRule(CountingLimiter):
    """Raises the limit while replies are fast, lowers it while they are slow or refused.

    Formula. After each 20 replies: +2 if their mean latency is below 0.6 s, x0.9 if above 1.2 s; x0.7 at
    every third 429. State: the limit, the latencies since the last decision, 429s since the last cut.

    When not to use it: a server that takes 2.5 s and could serve hundreds at once is throttled to one
    request; a limit on the rate is found again and again by refusals. It is here to be compared with.

    Args:
        parameters: The rule's numbers.
    """

    def __init__(self, parameters: LatencyRuleParameters | None = None) -> None:
        self.parameters = parameters or LatencyRuleParameters()
        p = self.parameters
        super().__init__(start=p.start, least=p.least, most=p.most, name="latency")
        self._latencies: deque[float] = deque(maxlen=p.window)
        self._refusals = 0

    def _on_latency(self, now: float, latency_s: float) -> float:
        del now
        p = self.parameters
        self._latencies.append(latency_s)
        if len(self._latencies) < p.window:
            return self.limit
        mean = sum(self._latencies) / len(self._latencies)
        self._latencies.clear()
        if mean < p.fast_s:
            return self.limit + p.step
        return self.limit * p.slow_factor if mean > p.slow_s else self.limit

    def _on_refusal(self, now: float, sent_at: float) -> float:
        del now, sent_at
        self._refusals += 1
        if self._refusals < self.parameters.refusals:
            return self.limit
        self._refusals = 0
        return self.limit * self.parameters.refusal_factor

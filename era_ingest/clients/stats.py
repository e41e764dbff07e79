"""What a run of the client did so far: counts, and a bounded picture of its requests over time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from era_ingest.core.limiter import FailureKind

MAX_SAMPLES = 2000
LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram's buckets, seconds; one more has no bound."""


@dataclass(frozen=True, slots=True)
class LatencySample:
    """One good request.

    Attributes:
        at_s: Seconds from the run's start to its sending.
        latency_s: Seconds from sending to the whole reply.
        in_flight: Requests in flight when it was sent, itself included.
        limit: Requests that the limiter allowed then.
    """

    at_s: float
    latency_s: float
    in_flight: int
    limit: float


class Samples:
    """Keeps every n-th of a stream, evenly over the whole, where n doubles when ``bound`` is reached.

    Args:
        bound: Samples kept, at most; >= 2.
    """

    def __init__(self, bound: int = MAX_SAMPLES) -> None:
        self._bound = bound
        self._every = 1
        self._seen = 0
        self._kept: list[LatencySample] = []

    def add(self, sample: LatencySample) -> None:
        """Take a sample, or leave it out."""
        if self._seen % self._every == 0:
            if len(self._kept) >= self._bound:
                self._kept = self._kept[::2]
                self._every *= 2
            if self._seen % self._every == 0:
                self._kept.append(sample)
        self._seen += 1

    def all(self) -> list[LatencySample]:
        """Return what is kept, in order."""
        return list(self._kept)


@dataclass(slots=True)
class LatencyHistogram:
    """How long good requests took.

    Attributes:
        counts: Requests by bucket of ``LATENCY_BOUNDS_S``, the one without a bound last; each in one of them.
        sum_s: Their latencies together, seconds.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, latency_s: float) -> None:
        """Take one in."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        self.sum_s += latency_s


@dataclass(slots=True)
class EmbeddingStats:
    """Counts of one run; readable while it runs.

    Attributes:
        texts: Texts embedded and committed.
        refused: Texts that cannot be embedded.
        requests: Requests sent.
        rate_limited: Requests that were answered "slow down".
        retries: Requests that repeat one that failed, whole or in halves.
        tokens: Tokens of committed texts, as the server counted them; estimated where it did not.
        commits: Calls of ``commit``; requests that finish together are committed together.
        failures: Failed requests by kind.
        cancelled: Requests that were given up, so that their outcome is not known.
        latency: Of good requests.
        samples: Good requests over time.
    """

    texts: int = 0
    refused: int = 0
    requests: int = 0
    rate_limited: int = 0
    retries: int = 0
    tokens: int = 0
    commits: int = 0
    failures: dict[FailureKind, int] = field(default_factory=dict)
    cancelled: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    samples: Samples = field(default_factory=Samples)

    def count_failure(self, kind: FailureKind) -> None:
        """Count a failed request."""
        self.failures[kind] = self.failures.get(kind, 0) + 1

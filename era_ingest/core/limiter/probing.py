"""Probing: how often a quota that shows no headers is asked for more, and for how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from era_ingest.core.limiter.flight import clamp

if TYPE_CHECKING:
    from era_ingest.core.limiter.flight import Uniform

GAIN: Final = 0.25
LEAST_GAIN: Final = 0.03
"""How far above the learned limit a probe goes, and how steep a climb is."""
TINY: Final = 3.0
"""Requests below which a bucket holds too few to be asked for much more at once."""
REFUSED_SHARE: Final = 0.008
"""Share of requests that may be refused; each request earns so much of a refusal."""
PURSE: Final = 8.0
"""Most refusals saved up, or owed."""
PROBE_EVERY: Final = 48.0
"""A probe comes each 48 / sqrt(requests a second) seconds: it is worth more where the rate is higher."""
PROBE_SOONEST_S: Final = 5.0
PROBE_LATEST_S: Final = 60.0
PROBE_LATENCIES: Final = 4.0
"""No sooner than so many latencies: what a probe finds is of no use before."""
IN_CREDIT: Final = 0.7
"""... times so much while less was refused than earned."""


class Probing:
    """Plans the probes of a learned rate so that few requests are refused.

    Formula. Each request earns 0.008 of a refusal, each refusal spends one. While there is credit a probe
    comes each ``34 / sqrt(requests a second)`` seconds, between 5 and 60 and not below four latencies; in
    debt not before a whole refusal has been earned. A quarter more or less at random keeps clients apart.

    State. The purse (-8 to 8 refusals), and the gain: 25 % more than known, halved down to 3 % while a bucket
    of less than three requests refuses at once and nothing is learned, doubled again otherwise.

    Weak spot. Below one request a second even one probe a minute is more than 0.8 %.

    Args:
        uniform: Randomness for the times of probes.
    """

    def __init__(self, uniform: Uniform) -> None:
        self.gain = GAIN
        self._uniform, self._purse = uniform, 0.0

    def on_send(self) -> None:
        """Earn."""
        self._purse = min(PURSE, self._purse + REFUSED_SHARE)

    def on_refused(self) -> None:
        """Spend."""
        self._purse = max(-PURSE, self._purse - 1)

    def adapt(self, *, is_lost: bool, burst_requests: float) -> None:
        """Ask for less after a probe that learned nothing of a tiny bucket, else for more again."""
        factor = 0.5 if is_lost and burst_requests < TINY else 2
        self.gain = clamp(self.gain * factor, LEAST_GAIN, GAIN)

    def period_s(self, requests_per_s: float, latency_s: float) -> float:
        """Return seconds until the next probe."""
        period = PROBE_EVERY / math.sqrt(requests_per_s)
        if self._purse < 0:
            period = max(period, 1 / (REFUSED_SHARE * requests_per_s))
        else:
            period *= IN_CREDIT
        period = clamp(period, max(PROBE_SOONEST_S, PROBE_LATENCIES * latency_s), PROBE_LATEST_S)
        return period * (0.75 + 0.5 * self._uniform())

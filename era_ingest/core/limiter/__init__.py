"""Flow control: how fast, and how many at once, requests may go to a server."""

from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.aimd import Aimd
from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, Limiter, LimiterState, ServerHints
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.core.limiter.latency_rule import LatencyRule, LatencyRuleParameters
from era_ingest.core.limiter.level import Bounds

__all__ = [
    "NO_HINTS",
    "AdaptiveLimiter",
    "Aimd",
    "Bounds",
    "FailureKind",
    "FixedLimiter",
    "LatencyRule",
    "LatencyRuleParameters",
    "Limiter",
    "LimiterState",
    "ServerHints",
]

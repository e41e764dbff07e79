"""Flow control: how fast, and how many at once, requests may go to a server."""

from era_ingest.core.limiter.contract import NO_HINTS, FailureKind, Limiter, LimiterState, ServerHints

__all__ = ["NO_HINTS", "FailureKind", "Limiter", "LimiterState", "ServerHints"]

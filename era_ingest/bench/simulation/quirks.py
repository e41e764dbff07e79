"""What real servers and the proxies before them do to rate-limit headers on their way to the client."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from era_ingest.core.limiter.contract import NO_HINTS, ServerHints

STALE_S = 2.0
"""How old the figures of a stale header are, seconds."""


class Quirk(StrEnum):
    """How the ``x-ratelimit-*`` headers are off; Retry-After is left as it is."""

    NONE = "none"
    ROUNDED = "rounded"
    """Resets are whole seconds, rounded up."""
    STALE = "stale"
    """The figures are those of a reply up to two seconds ago, as a cached counter's are."""
    NOT_ON_REFUSALS = "not on refusals"
    ONLY_ON_REFUSALS = "only on refusals"
    NONSENSE = "nonsense"
    """Azure's and litellm's: limit -1, remaining 0 or below, reset -1."""
    NO_RESET = "no reset"


@dataclass(slots=True)
class Proxy:
    """Hands headers on, with a quirk.

    Attributes:
        quirk: How it spoils them.
    """

    quirk: Quirk = Quirk.NONE
    _kept: ServerHints = NO_HINTS
    _kept_at: float = field(default=-math.inf)

    def hand_on(self, now: float, hints: ServerHints, *, refused: bool) -> ServerHints:
        """Return what arrives of the headers of a reply sent at ``now`` seconds."""
        if self.quirk is (Quirk.NOT_ON_REFUSALS if refused else Quirk.ONLY_ON_REFUSALS):
            return ServerHints(retry_after_s=hints.retry_after_s)
        match self.quirk:
            case Quirk.ROUNDED:
                return replace(
                    hints,
                    reset_requests_s=_ceil(hints.reset_requests_s),
                    reset_tokens_s=_ceil(hints.reset_tokens_s),
                )
            case Quirk.STALE:
                if now > self._kept_at + STALE_S:
                    self._kept, self._kept_at = hints, now
                return replace(self._kept, retry_after_s=hints.retry_after_s)
            case Quirk.NONSENSE:
                return ServerHints(-1.0, 0.0, -1.0, -1.0, -3.0, -1.0, hints.retry_after_s)
            case Quirk.NO_RESET:
                return replace(hints, reset_requests_s=None, reset_tokens_s=None)
            case _:
                return hints


def _ceil(seconds: float | None) -> float | None:
    return None if seconds is None else float(math.ceil(seconds))

"""Bars: what a run on a server of a family must reach."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from era_ingest.bench.simulation.scenario import Outcome, Scenario

RANDOM_P95 = 3.0
"""What p95 a random server may have, unless its own family's bar allows more."""
UNBOUNDED = 100_000
"""Probes a second that no run reaches."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a run must reach; the units are those of ``Outcome``."""

    goodput: float = 0.0
    refused: float = 1.0
    p95: float = math.inf
    recovery_s: float = math.inf
    fairness: float = 0.0
    wasted_tokens: float = 1.0
    failed: float = 1.0
    probes_per_s: int = UNBOUNDED

    def as_dict(self) -> dict[str, float]:
        """Return the figures that are held to something."""
        return {name: value for name, value in asdict(self).items() if value != getattr(NO_BAR, name)}

    def missed(self, outcome: Outcome) -> list[str]:
        """Return the names of the figures that fall short."""
        least = ("goodput", "fairness")
        most = ("refused", "p95", "recovery_s", "wasted_tokens", "failed", "probes_per_s")
        low = [name for name in least if getattr(outcome, name) < getattr(self, name)]
        return low + [name for name in most if getattr(outcome, name) > getattr(self, name)]


NO_BAR = Bar()


@dataclass(frozen=True, slots=True)
class Family:
    """A row: how to draw one of its servers, and its bar."""

    name: str
    draw: Callable[[Random], Scenario]
    bar: Bar

    @property
    def p95_at_random(self) -> float:
        """What p95 it may have among random servers: its own bar, or 3."""
        return self.bar.p95 if self.bar.p95 < math.inf else RANDOM_P95

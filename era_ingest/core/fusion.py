"""Several rankings made one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

T = TypeVar("T", bound="Hashable")

RANK_CONSTANT = 60
"""How little the first places stand out; the value of the source, which found others to be hardly better."""


def fuse(rankings: Iterable[Iterable[T]]) -> list[tuple[T, float]]:
    """Return what stands in any ranking, best first, each with the sum of 1 / (60 + its rank) over the rankings.

    Reciprocal rank fusion: it needs no scores, so that a cosine and a text rank, which have no common scale, can be
    put together. Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
    Rank Learning Methods", SIGIR 2009.

    Args:
        rankings: Each best first and without doubles; ranks begin at 1. Equals keep the order of the first ranking.
    """
    scores: dict[T, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda scored: -scored[1])

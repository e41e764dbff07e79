"""What a run has counted and not yet put down: each increment is put down once, though its outcome may be lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class Series(NamedTuple):
    """One counter: its name, and its labels in the order of their names."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, **labels: str) -> Self:
        """Return the counter of a name and labels."""
        return cls(name, tuple(sorted(labels.items())))


@dataclass(frozen=True, slots=True)
class Beat:
    """One addition to the totals.

    Attributes:
        number: Counts the additions of one writer, from 1.
        amounts: What is added, > 0, by counter.
    """

    number: int
    amounts: Mapping[Series, float]


class Increments:
    """Cuts growing counts into beats.

    A beat whose outcome is not known is handed out again as it was: whoever adds it tells by its number whether it is
    there already. What was counted meanwhile waits for the next one.
    """

    def __init__(self) -> None:
        self._done: dict[Series, float] = {}
        self._beat: Beat | None = None
        self._number = 0

    def next(self, counts: Mapping[Series, float]) -> Beat:
        """Return the beat that is to be added now.

        Args:
            counts: What was counted since the start, by counter; none of them ever falls.
        """
        if self._beat is None:
            grown = {
                series: value - self._done.get(series, 0.0)
                for series, value in counts.items()
                if value > self._done.get(series, 0.0)
            }
            self._number += 1
            self._beat = Beat(self._number, grown)
        return self._beat

    def confirm(self) -> None:
        """Note that the beat was added."""
        assert self._beat is not None
        for series, amount in self._beat.amounts.items():
            self._done[series] = self._done.get(series, 0.0) + amount
        self._beat = None

    @property
    def is_pending(self) -> bool:
        """Whether a beat was handed out and not confirmed."""
        return self._beat is not None

"""Increments: whatever is lost on the way, every count arrives once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.increments import Increments, Series

A, B = Series.of("a"), Series.of("b", kind="x")


def test_a_beat_whose_outcome_is_unknown_is_handed_out_again_as_it_was() -> None:
    """What was counted meanwhile waits for the next number."""
    increments = Increments()
    first = increments.next({A: 3.0})
    assert increments.is_pending
    assert increments.next({A: 5.0, B: 1.0}) == first
    increments.confirm()
    second = increments.next({A: 5.0, B: 1.0})
    assert (second.number, second.amounts) == (2, {A: 2.0, B: 1.0})


def test_labels_are_one_series_in_any_order() -> None:
    assert Series.of("a", x="1", y="2") == Series.of("a", y="2", x="1")


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["added", "lost before", "lost after"]))))
def test_totals_are_exact_however_often_outcomes_are_lost(steps: list[tuple[int, str]]) -> None:
    """Against a table that takes each number once, as the database does."""
    increments, counted, total, latest = Increments(), 0, 0.0, 0

    def add(fate: str) -> None:
        nonlocal total, latest
        beat = increments.next({A: float(counted)})
        if fate != "lost before" and beat.number > latest:
            total, latest = total + beat.amounts.get(A, 0.0), beat.number
        if fate == "added":
            increments.confirm()

    for amount, fate in steps:
        counted += amount
        before = total
        add(fate)
        assert before <= total <= counted
    if increments.is_pending:
        add("added")
    add("added")
    assert total == counted

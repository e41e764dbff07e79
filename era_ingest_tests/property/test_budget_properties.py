"""The budget: what is spent and promised never exceeds the bound, unless a server counts more than ever."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.budget import FIRST_CAUTION, TokenBudget

ESTIMATES = st.floats(0.1, 1e4)
STEADY = st.floats(0.05, FIRST_CAUTION)
STEPS = st.lists(st.tuples(ESTIMATES, st.booleans(), st.booleans()), max_size=60)


@given(st.floats(1, 1e5), STEADY, STEPS)
def test_a_server_that_counts_steadily_never_counts_more_than_the_bound(
    bound: float, ratio: float, steps: list[tuple[float, bool, bool]]
) -> None:
    """Up to twice the estimate, which is what a first request is taken to cost."""
    budget = TokenBudget(bound)
    flying: list[tuple[float, float]] = []
    for estimated, answered, known in steps:
        amount = budget.promise(estimated)
        if amount is not None:
            flying.append((amount, estimated))
        if flying and (amount is None or answered):
            first, guess = flying.pop(0)
            budget.settle(first, estimated=guess, counted=guess * ratio if known else None)
        assert budget.promises == len(flying)
        assert budget.spent + budget.promised <= bound * (1 + 1e-9)
    assert budget.promised == pytest.approx(sum(amount for amount, _ in flying), abs=1e-6)


@given(st.floats(1, 1e5), st.lists(st.tuples(ESTIMATES, st.floats(0.01, 50)), max_size=40))
def test_a_server_that_surprises_exceeds_by_one_surprise(
    bound: float, replies: list[tuple[float, float]]
) -> None:
    """With one request at a time: at most what that request cost beyond its promise."""
    budget = TokenBudget(bound)
    for estimated, ratio in replies:
        amount = budget.promise(estimated)
        if amount is None:
            continue
        budget.settle(amount, estimated=estimated, counted=estimated * ratio)
        assert budget.spent <= bound * (1 + 1e-9) + max(0.0, estimated * ratio - amount)
        assert budget.promised == 0.0


@given(st.lists(ESTIMATES, max_size=20))
def test_without_a_bound_everything_fits(estimates: list[float]) -> None:
    """And is counted all the same."""
    budget = TokenBudget()
    assert budget.bound == math.inf
    for estimated in estimates:
        amount = budget.promise(estimated)
        assert amount is not None
        budget.settle(amount, estimated=estimated)
    assert budget.spent == pytest.approx(sum(estimates))


def test_what_cost_nothing_teaches_nothing() -> None:
    """A refused request gives its promise back."""
    budget = TokenBudget(100)
    amount = budget.promise(50)
    assert amount == 100
    assert budget.promise(1) is None
    budget.settle(amount, estimated=0)
    assert (budget.spent, budget.promised, budget.caution) == (0, 0, FIRST_CAUTION)

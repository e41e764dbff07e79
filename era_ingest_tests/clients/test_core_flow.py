"""Batching, token estimates, backoff, and the fixed limiter: the pure parts of the client."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.batching import Batch, BatchLimits, LimitLearner, Sized, pack_batches
from era_ingest.core.limiter import FailureKind, ServerHints
from era_ingest.core.limiter.fixed import FixedLimiter
from era_ingest.core.retry import Backoff, RetryBudget
from era_ingest.core.tokens import TokenEstimator, estimate_tokens

SIZED = st.builds(Sized, st.integers(), st.integers(0, 50), st.floats(0, 50))
LIMITS = st.builds(BatchLimits, st.integers(1, 9), st.integers(1, 100), st.floats(1, 100))


@given(st.lists(SIZED), LIMITS)
def test_batches_hold_every_item_once_in_order_within_the_limits(
    items: list[Sized[int]], limits: BatchLimits
) -> None:
    """The batches' concatenation is the input; only a lone item may exceed a limit."""
    batches = pack_batches(items, limits)
    assert [item for batch in batches for item in batch.items] == items
    for batch in batches:
        assert 1 <= len(batch) <= limits.max_texts
        assert len(batch) == 1 or (
            batch.n_bytes <= limits.max_bytes and batch.tokens <= limits.max_tokens * (1 + 1e-9)
        )


@given(st.lists(SIZED, min_size=1), LIMITS)
def test_packing_is_greedy(items: list[Sized[int]], limits: BatchLimits) -> None:
    """The first item of a batch would not have fitted into the one before."""
    batches = pack_batches(items, limits)
    for before, after in itertools.pairwise(batches):
        first = after.items[0]
        assert (
            len(before) + 1 > limits.max_texts
            or before.n_bytes + first.n_bytes > limits.max_bytes
            or before.tokens + first.tokens > limits.max_tokens * (1 - 1e-9)
            or before.n_bytes >= limits.max_bytes
            or before.tokens >= limits.max_tokens
        )


@given(st.lists(SIZED, min_size=2))
def test_halves_are_the_whole(items: list[Sized[int]]) -> None:
    """Two halves, neither empty, the first not shorter."""
    left, right = Batch.of(items).halves()
    assert left.items + right.items == tuple(items)
    assert len(left) - len(right) in {0, 1}


def _batch(texts: int, tokens_each: float) -> Batch[int]:
    return Batch.of(Sized(number, 1, tokens_each) for number in range(texts))


def test_a_refused_batch_of_a_usual_count_lowers_the_tokens_else_the_count() -> None:
    """What was taken before tells which of the two limits was met."""
    learner = LimitLearner(BatchLimits(64))
    learner.too_large(_batch(64, 10), named=True)
    assert learner.limits.max_texts == 32
    learner.accepted(_batch(32, 10))
    learner.too_large(_batch(32, 1000), named=True)
    assert learner.limits == BatchLimits(32, max_tokens=16_000)


def test_a_refusal_by_chance_teaches_nothing() -> None:
    """What was taken before is not too large; and a reason that is not named must come twice."""
    learner = LimitLearner(BatchLimits(64))
    learner.accepted(_batch(64, 10))
    learner.too_large(_batch(64, 10), named=True)
    learner.too_large(_batch(64, 11), named=False)
    learner.accepted(_batch(64, 10))
    learner.too_large(_batch(64, 11), named=False)
    assert learner.limits == BatchLimits(64)
    learner.too_large(_batch(64, 11), named=False)
    assert learner.limits == BatchLimits(64, max_tokens=352)


@given(st.text())
def test_estimates_of_tokens_are_positive_and_grow_with_the_text(text: str) -> None:
    """At least one; a longer text never has fewer."""
    assert 1 <= estimate_tokens(text) <= estimate_tokens(text + "x")


def test_estimates_follow_the_documented_formula() -> None:
    """Four ASCII characters, or 2.2 bytes of other scripts, a token."""
    assert estimate_tokens("a" * 400) == pytest.approx(100)
    assert estimate_tokens("ж" * 110) == pytest.approx(100)
    assert estimate_tokens("a" * 400 + "ж" * 110) == pytest.approx(200)


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(-10, 1e9))))
def test_the_estimator_follows_usage_within_its_clamp(seen: list[tuple[float, float]]) -> None:
    """Whatever servers report, the ratio stays between a half and two."""
    estimator = TokenEstimator()
    for estimated, counted in seen:
        estimator.observe(estimated, counted)
    assert 0.5 <= estimator.ratio <= 2.0


def test_the_estimator_learns_a_steady_ratio() -> None:
    """After many replies the estimate is what the server counts."""
    estimator = TokenEstimator()
    for _ in range(100):
        estimator.observe(100, 130)
    assert estimator.estimate("a" * 400) == pytest.approx(130, rel=0.01)


@given(st.integers(0, 5000), st.floats(0, 1))
def test_delays_are_jittered_from_zero_to_a_capped_bound(retry: int, uniform: float) -> None:
    """Full jitter: anything between nothing and the bound."""
    bound = Backoff(0.5, 30.0).delay_s(retry, 1.0)
    assert bound == min(30.0, 0.5 * 2.0 ** min(retry, 60))
    assert 0 <= Backoff(0.5, 30.0).delay_s(retry, uniform) <= bound


def test_the_retry_budget_counts_from_the_first_failure_after_a_success() -> None:
    """A success in between begins a new count."""
    budget = RetryBudget(10)
    assert not budget.fail(0)
    assert not budget.fail(9.9)
    assert budget.fail(10)
    budget.succeed()
    assert not budget.fail(15)
    assert RetryBudget(0).fail(0)


def test_the_fixed_limiter_lets_so_many_go_and_no_more() -> None:
    """A third waits for an event, and goes when one has come back."""
    limiter = FixedLimiter(2)
    first = limiter.on_send(0, 1)
    limiter.on_send(0, 1)
    assert limiter.gate(0, 1) == math.inf
    assert limiter.state(0).held_by == "fixed"
    limiter.on_success(1, first)
    assert limiter.gate(1, 1) == 0
    assert limiter.state(1).in_flight == 1


def test_the_fixed_limiter_pauses_as_long_as_the_server_asks() -> None:
    """A Retry-After holds all requests; an unavailable server's too."""
    limiter = FixedLimiter(2)
    ticket = limiter.on_send(0, 1)
    limiter.on_failure(1, ticket, FailureKind.RATE_LIMITED, hints=ServerHints(retry_after_s=7))
    assert limiter.gate(1, 1) == 7
    assert limiter.gate(8, 1) == 0
    ticket = limiter.on_send(8, 1)
    limiter.on_failure(9, ticket, FailureKind.SERVER_ERROR, hints=ServerHints(retry_after_s=3))
    assert limiter.gate(9, 1) == 3


def test_bare_refusals_pause_longer_each_time_but_a_volley_counts_once() -> None:
    """Half a second, then one; requests that were already on their way do not add."""
    limiter = FixedLimiter(4, pause_s=0.5, max_pause_s=30)
    tickets = [limiter.on_send(0, 1) for _ in range(3)]
    for ticket in tickets:
        limiter.on_failure(1, ticket, FailureKind.RATE_LIMITED)
    assert limiter.gate(1, 1) == 0.5
    limiter.on_failure(2, limiter.on_send(2, 1), FailureKind.RATE_LIMITED)
    assert limiter.gate(2, 1) == 1.0
    limiter.on_success(4, limiter.on_send(3, 1))
    limiter.on_failure(5, limiter.on_send(5, 1), FailureKind.RATE_LIMITED)
    assert limiter.gate(5, 1) == 0.5


def test_other_failures_and_cancellations_free_the_seat_without_a_pause() -> None:
    """A refused input says nothing about load."""
    limiter = FixedLimiter(1)
    limiter.on_failure(0, limiter.on_send(0, 1), FailureKind.REJECTED, hints=ServerHints(retry_after_s=9))
    assert limiter.gate(0, 1) == 0
    limiter.on_cancel(0, limiter.on_send(0, 1))
    assert limiter.gate(0, 1) == 0

"""Whatever a server does, a controller keeps its books and always lets something happen again."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from era_ingest.core.limiter.adaptive import AdaptiveLimiter
from era_ingest.core.limiter.aimd import Aimd
from era_ingest.core.limiter.contract import FailureKind, Limiter, ServerHints
from era_ingest.core.limiter.latency_rule import LatencyRule

if TYPE_CHECKING:
    from collections.abc import Callable

MAKERS: dict[str, Callable[[], Limiter]] = {
    "adaptive": lambda: AdaptiveLimiter(uniform=Random(3).random),
    "aimd": Aimd,
    "latency": LatencyRule,
}
figures = st.none() | st.sampled_from([-1.0, 0.0, 1.0, 7.0, 1000.0]) | st.floats(0, 1e6)
hints = st.builds(
    ServerHints,
    limit_requests=figures,
    remaining_requests=figures,
    reset_requests_s=figures,
    limit_tokens=figures,
    remaining_tokens=figures,
    reset_tokens_s=figures,
    retry_after_s=st.none() | st.floats(0, 100),
)
no_hints = st.builds(ServerHints, retry_after_s=st.none() | st.floats(0, 100))
events = st.tuples(
    st.sampled_from(["wait", "send", "send", "send", "good", "good", "cancel", *FailureKind]),
    st.floats(0, 5),
    st.integers(0, 10_000),
    hints | no_hints,
)


def check(limiter: Limiter, now: float, tickets: list[int]) -> None:
    """Check what must hold at any moment."""
    state = limiter.state(now)
    assert state.in_flight == len(tickets)
    assert state.limit >= 1
    assert state.rate_per_s is None or state.rate_per_s >= 0


def assert_it_goes_on(limiter: Limiter, now: float, tickets: list[int]) -> None:
    """With nothing in flight, waiting as told leads to a send within a bounded number of questions."""
    while tickets:
        limiter.on_cancel(now, tickets.pop())
    for _ in range(300):
        wait = limiter.gate(now, 10.0)
        assert wait < math.inf, "nothing in flight, and told to wait for an event"
        if wait == 0:
            return
        now += wait
    pytest.fail("asked 300 times, never let go")


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(events, max_size=80))
def test_books_are_kept_and_nothing_hangs(
    name: str, steps: list[tuple[str, float, int, ServerHints]]
) -> None:
    """A request goes only when the gate is 0; counts agree; with nothing in flight the gate ends."""
    limiter, now, tickets = MAKERS[name](), 0.0, list[int]()
    for action, seconds, number, told in steps:
        if action == "send":
            wait = limiter.gate(now, float(number))
            assert wait >= 0
            if wait == 0:
                tickets.append(limiter.on_send(now, float(number)))
        elif action == "wait" or not tickets:
            now += seconds
        elif action == "good":
            limiter.on_success(now, tickets.pop(number % len(tickets)), hints=told)
        elif action == "cancel":
            limiter.on_cancel(now, tickets.pop(number % len(tickets)))
        else:
            limiter.on_failure(now, tickets.pop(number % len(tickets)), FailureKind(action), hints=told)
        check(limiter, now, tickets)
    assert_it_goes_on(limiter, now, tickets)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=60))
def test_nothing_is_sent_during_a_silence_that_the_server_ordered(steps: list[tuple[bool, float]]) -> None:
    """Retry-After of the first refusal holds to the end."""
    limiter = AdaptiveLimiter(uniform=Random(5).random)
    tickets = [limiter.on_send(0.0, 10.0) for _ in range(4)]
    limiter.on_failure(0.1, tickets.pop(), FailureKind.RATE_LIMITED, hints=ServerHints(retry_after_s=50.0))
    now = 0.1
    for reply, seconds in steps:
        now = min(now + seconds, 50.0)
        if reply and tickets:
            limiter.on_success(now, tickets.pop())
        assert limiter.gate(now, 10.0) > 0

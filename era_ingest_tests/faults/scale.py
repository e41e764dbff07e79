"""How much a fault test does, and from which seed.

Each test has a short form, which CI runs, and a long one (marker ``slow``, ``make torture``). ``ERA_TORTURE_FACTOR``
scales the counts of the long forms: 0.1 makes them a tenth as long, 10 ten times as long. ``ERA_TORTURE_SEED`` draws
other cases; a failure names the seed that it ran with.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark.structures import ParameterSet

FACTOR = float(os.environ.get("ERA_TORTURE_FACTOR") or 1)
SEED = "ERA_TORTURE_SEED"
FIRST_SEED = int(os.environ.get(SEED) or 0)
LONG_S = 3 * 3600


def short_and_long(short: int, long: int, *, short_s: float = 180.0) -> list[ParameterSet]:
    """Return the two forms of a test that does something so many times, for ``pytest.mark.parametrize``.

    Args:
        short: How often in the short form.
        long: How often in the long one.
        short_s: After so many seconds the short form has failed.
    """
    count = max(short, round(long * FACTOR))
    return [
        pytest.param(short, id="short", marks=pytest.mark.timeout(short_s)),
        pytest.param(count, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(LONG_S)]),
    ]


def cases(short: int, long: int) -> list[ParameterSet]:
    """Return seeds as test parameters: ``short`` of them in the short form, all ``long`` in the long one.

    The seed is the test's id, so that a failure prints it.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + max(short, round(long * FACTOR)))
    return [
        pytest.param(seed, id=f"seed{seed}", marks=[] if number < short else pytest.mark.slow)
        for number, seed in enumerate(seeds)
    ]


@contextmanager
def seeded() -> Iterator[random.Random]:
    """Yield a source of randomness; a failure within says how to have it again."""
    seed = FIRST_SEED if os.environ.get(SEED) else random.SystemRandom().randrange(2**32)
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"again with {SEED}={seed}")
        raise

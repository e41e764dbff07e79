"""How much a fault test does, and from which seed.

Each test has a short form, which CI runs, and a long one (marker ``slow``, ``make torture``). ``ERA_TORTURE_COUNT``
sets the count of the long forms, ``ERA_TORTURE_SEED`` the seed of all; a failure names the seed that it ran with.
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

COUNT = "ERA_TORTURE_COUNT"
SEED = "ERA_TORTURE_SEED"


def short_and_long(short: int, long: int) -> list[ParameterSet]:
    """Return the two forms of a test, for ``pytest.mark.parametrize``."""
    count = int(os.environ.get(COUNT) or long)
    return [
        pytest.param(short, id="short"),
        pytest.param(count, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3 * 3600)]),
    ]


@contextmanager
def seeded() -> Iterator[random.Random]:
    """Yield a source of randomness; a failure within says how to have it again."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(2**32))
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"again with {SEED}={seed}")
        raise

"""Patience with the database."""

from __future__ import annotations

import psycopg
import pytest

from era_ingest.errors import PermanentError, StoreUnavailableError
from era_ingest.pipelines.retrying import retry_transient


class _Failing:
    """Fails some times, then returns."""

    def __init__(self, times: int, error: Exception) -> None:
        self.calls = 0
        self._times = times
        self._error = error

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return "done"


async def _no_sleep(_seconds: float) -> None:
    return


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection"),
        psycopg.errors.DeadlockDetected("deadlock"),
        StoreUnavailableError("away"),
    ],
)
async def test_what_is_transient_is_done_again(error: Exception) -> None:
    """Three failures, then success."""
    work = _Failing(3, error)
    assert await retry_transient(work, sleep=_no_sleep) == "done"
    assert work.calls == 4


async def test_what_is_permanent_is_raised_at_once() -> None:
    """Trying again cannot help."""
    work = _Failing(1, PermanentError("no"))
    with pytest.raises(PermanentError):
        await retry_transient(work, sleep=_no_sleep)
    assert work.calls == 1


@pytest.mark.parametrize(
    "cause", [psycopg.OperationalError("disk full\nLINE 1"), StoreUnavailableError("disk full. Free some.")]
)
async def test_a_spent_budget_is_a_typed_error_with_the_cause(cause: Exception) -> None:
    """The message names the last cause and what to do."""
    work = _Failing(10**9, cause)
    with pytest.raises(
        StoreUnavailableError, match=r"for 0 s: disk full\.( Free some\.)? What was"
    ) as caught:
        await retry_transient(work, budget_s=0.0, sleep=_no_sleep)
    assert "era doctor" in caught.value.message
    assert caught.value.__cause__ is cause

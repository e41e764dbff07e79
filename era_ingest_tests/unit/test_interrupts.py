"""A cancelled run's work on the event loop ends, wherever the interrupt meets it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest

from era_ingest.orchestration.interrupts import run_interruptibly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class InterruptedRunError(BaseException):
    """What the handler of these tests raises, as Dagster's does."""


def handle(*_: object) -> NoReturn:
    raise InterruptedRunError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Both signals raise, as in a step of a run."""
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def soon() -> None:
    asyncio.get_running_loop().call_soon(interrupt)


def from_a_thread() -> None:
    threading.Timer(0.05, interrupt).start()


@pytest.mark.parametrize("when", [interrupt, soon, from_a_thread])
def test_an_interrupt_cancels_the_work_and_is_raised(when: Callable[[], None]) -> None:
    """In a step of the task, in a callback of the loop, while it waits: what is open is closed first."""
    closed = []

    async def work() -> None:
        try:
            when()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(InterruptedRunError):
        run_interruptibly(work())
    assert closed == [True]
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is handle


def test_work_that_is_not_interrupted_goes_its_way() -> None:
    """Its result and its errors are its own, also in a thread, where there are no signals."""

    async def work(result: int) -> int:
        await asyncio.sleep(0)
        return 1 // result

    assert run_interruptibly(work(1)) == 1
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(work(0))
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_interruptibly(work(1))))
    thread.start()
    thread.join()
    assert results == [1]
    assert signal.getsignal(signal.SIGINT) is handle

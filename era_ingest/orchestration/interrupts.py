"""A run that is cancelled: Dagster interrupts its process, and the work on the event loop ends as a cancelled task.

Dagster's handler raises an error wherever the main thread is. Inside a callback of an event loop that error is
swallowed: asyncio lets none but ``SystemExit`` and ``KeyboardInterrupt`` through.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Result = TypeVar("_Result")


def run_interruptibly(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine on a loop of its own; an interrupt cancels it, and is raised once it has ended.

    What is raised is what the present handler of SIGINT raises. Other threads than the main one get no interrupts, and
    the event loops of Windows know none.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    received: list[int] = []
    try:
        return asyncio.run(_cancelled_by_signals(work, received))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received and callable(handler := handlers[signal.SIGINT]):
            handler(signal.SIGINT, None)


async def _cancelled_by_signals(work: Coroutine[Any, Any, _Result], received: list[int]) -> _Result:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel, number)
    return await work

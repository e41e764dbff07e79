"""Start a program from a process that is small, and report what it cost.

Linux counts a process's greatest memory from the fork on: started by the benchmark itself, which is large, no
program would seem to need less than that.

    python -I -S spawn.py REPORT TIMEOUT_S COMMAND...

writes to the file REPORT one JSON object: ``error`` if the program could not be started, else ``returncode``,
``wall_s``, ``cpu_s``, ``maxrss`` as the system counts it (the greatest single process), and ``memory``: what the
program and all its children together held, as pairs of seconds and bytes; only Linux tells those.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

MAX_SAMPLES = 2_000
"""When there are so many, every other one is dropped, and they are taken half as often."""
FIRST_PAUSE_S = 0.02
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def spawn(command: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a program to its end, at most so many seconds; return the report."""
    started = time.perf_counter()
    try:
        process = subprocess.Popen(command)  # noqa: S603 - what the benchmark asks for
    except OSError as error:
        return {"error": str(error)}
    killer = threading.Timer(timeout_s, process.kill)
    killer.start()
    over = threading.Event()
    memory: list[tuple[float, int]] = []
    sampler = threading.Thread(target=sample_memory, args=(process.pid, over, memory))
    sampler.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    killer.cancel()
    over.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "returncode": process.returncode,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "maxrss": usage.ru_maxrss,
        "memory": memory,
    }


def sample_memory(pid: int, over: threading.Event, samples: list[tuple[float, int]]) -> None:
    """Note again and again what a process and its children hold, until it is over."""
    started = time.perf_counter()
    pause_s = FIRST_PAUSE_S
    while not over.wait(pause_s):
        if held := resident_bytes(pid):
            samples.append((time.perf_counter() - started, held))
        if len(samples) == MAX_SAMPLES:
            del samples[::2]
            pause_s *= 2


def resident_bytes(pid: int) -> int:
    """Return what a process and its descendants hold; 0 where it is gone, or the system does not tell.

    Each one's own pages, and the pages of files and libraries once: those of the process that has most of them.
    """
    own, shared = 0, 0
    for member in _family(pid):
        with suppress(OSError), open(f"/proc/{member}/statm", encoding="ascii") as file:  # noqa: PTH123
            resident, of_files = map(int, file.read().split()[1:3])
            own += resident - of_files
            shared = max(shared, of_files)
    return (own + shared) * _PAGE_BYTES


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    members = [pid]
    for member in members:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{member}/task"):  # noqa: PTH208 - pathlib would double the memory
                with open(f"/proc/{member}/task/{thread}/children", encoding="ascii") as file:  # noqa: PTH123
                    members += map(int, file.read().split())
    return members


def main() -> None:
    """Run once."""
    report = spawn(sys.argv[3:], float(sys.argv[2]))
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would double the memory
        json.dump(report, file)


if __name__ == "__main__":
    main()

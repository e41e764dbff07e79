"""Start a program from a process that is small, and report what it cost.

Linux counts a process's greatest memory from the fork on: started by the benchmark itself, which is large, no
program would seem to need less than that.

    python -I -S spawn.py REPORT TIMEOUT_S COMMAND...

writes to the file REPORT one JSON object: ``error`` if the program could not be started, else ``returncode``,
``wall_s``, ``cpu_s`` and ``maxrss`` as the system counts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any


def spawn(command: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a program to its end, at most so many seconds; return the report."""
    started = time.perf_counter()
    try:
        process = subprocess.Popen(command)  # noqa: S603 - what the benchmark asks for
    except OSError as error:
        return {"error": str(error)}
    killer = threading.Timer(timeout_s, process.kill)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "returncode": process.returncode,
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "maxrss": usage.ru_maxrss,
    }


def main() -> None:
    """Run once."""
    report = spawn(sys.argv[3:], float(sys.argv[2]))
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would double the memory
        json.dump(report, file)


if __name__ == "__main__":
    main()

"""The forge: programs of the project as forks of one process that has imported everything already.

A program that is killed and run again two hundred times would spend most of its life importing Dagster. The
forge imports once and forks for each order; the child is a process of its own, with an environment, descriptors
and database connections of its own, and runs what ``run_and_kill`` runs. It takes one JSON object a line on
standard input, ``{"environment", "arguments", "log"}``, and answers two: ``{"pid"}`` and ``{"status"}``, the
exit code or minus the signal. One order at a time.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import traceback
from typing import Any

from era_ingest_tests.faults import run_and_kill


def _import_everything() -> None:
    """Import what programs import lazily."""
    import dagster._cli

    import era_ingest.__main__
    import era_ingest.cli.app
    import era_ingest.definitions
    import era_ingest.orchestration.recorded

    era_ingest.cli.app.load_commands()
    del dagster


def _child(order: dict[str, Any]) -> None:
    """Become the program that an order asks for; never return."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(order["environment"])
    code = 1
    try:
        code = run_and_kill.main(order["arguments"])
    except BaseException:  # noqa: BLE001 - the program's boundary: what a person would see stands in the log
        traceback.print_exc()
    atexit._run_exitfuncs()
    os._exit(code)  # taking Dagster apart module by module would cost a second


def main() -> None:
    """Serve orders until standard input ends."""
    _import_everything()
    gc.freeze()
    os.write(1, b'{"ready": true}\n')
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
        os.write(1, json.dumps({"pid": pid}).encode() + b"\n")
        _, status = os.waitpid(pid, 0)
        os.write(1, json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()

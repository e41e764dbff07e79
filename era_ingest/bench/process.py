"""A program run to its end as a process of its own, with what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_ingest.errors import EraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TIMEOUT_S = 3600.0
_ERROR_CHARS = 500
_KIB_PER_MB = 1000 / 1.024 if sys.platform != "darwin" else 1e6


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended well.

    Attributes:
        wall_s: Seconds from its start to its end, imports included.
        cpu_s: CPU seconds of it and its children.
        peak_mb: Greatest memory of it or one of its children, resident, 10^6 bytes. Linux counts from the
            fork on, so that it is never less than what the caller had then.
        told: The JSON object on the last line of its output.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    told: dict[str, Any]


def run_process(
    command: Sequence[str], environment: Mapping[str, str], *, name: str = "", timeout_s: float = _TIMEOUT_S
) -> Finished:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        environment: All of its environment.
        name: What to call it in an error; the beginning of the command by default.
        timeout_s: Seconds after which it is killed.

    Raises:
        EraError: It cannot be started, failed, ran out of time, or printed no JSON object on its last line; the
            message holds the end of what it said.
    """
    name = name or " ".join(Path(part).name for part in command[:3])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)  # noqa: S603 - asked for
        except OSError as error:
            raise EraError(f"{name} cannot be started: {error}") from error
        killer = threading.Timer(timeout_s, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        killer.cancel()
        out.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
        told = _parse_object(lines[-1]) if lines else None
        if process.returncode != 0 or told is None:
            err.seek(0)
            said = err.read().decode(errors="replace")[-_ERROR_CHARS:].strip()
            how = "no JSON object on its last line" if process.returncode == 0 else f"{process.returncode}"
            raise EraError(f"{name} ended after {wall_s:.1f} s with {how}: {said}")
    return Finished(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / _KIB_PER_MB, told)


def _parse_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

"""A program run to its end as a process of its own, with what it cost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_ingest.bench import spawn
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
        peak_mb: Greatest memory of it and its children together, resident, 10^6 bytes; where the system does not
            tell that, of it or one of its children.
        told: The JSON object on the last line of its output.
        memory: What they held over time, as pairs of seconds and 10^6 bytes; empty where the system does not tell.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    told: dict[str, Any]
    memory: tuple[tuple[float, float], ...] = ()


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
    with tempfile.TemporaryDirectory(prefix="era-bench-") as folder:
        report, out, err = (Path(folder, part) for part in ("report", "out", "err"))
        starter = [sys.executable, "-I", "-S", spawn.__file__, str(report), str(timeout_s), *command]
        with out.open("wb") as to_out, err.open("wb") as to_err:
            subprocess.run(starter, env=environment, stdout=to_out, stderr=to_err, check=True)  # noqa: S603
        found = json.loads(report.read_bytes())
        if "error" in found:
            raise EraError(f"{name} cannot be started: {found['error']}")
        lines = out.read_text(errors="replace").splitlines()
        told = _parse_object(lines[-1]) if lines else None
        if found["returncode"] != 0 or told is None:
            how = found["returncode"] or "no JSON object on its last line"
            said = err.read_text(errors="replace")[-_ERROR_CHARS:].strip()
            raise EraError(f"{name} ended after {found['wall_s']:.1f} s with {how}: {said}")
    memory = tuple((at_s, held / 1e6) for at_s, held in found["memory"])
    peak_mb = max(found["maxrss"] / _KIB_PER_MB, *(held for _, held in memory), 0.0)
    return Finished(found["wall_s"], found["cpu_s"], peak_mb, told, memory)


def _parse_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

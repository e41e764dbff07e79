"""Requests a second, by a load tool that is none of ours: ``hey`` (Debian has it under this name)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from era_ingest.errors import ConfigurationError, EraError

if TYPE_CHECKING:
    from collections.abc import Callable

CALLERS = (1, 4, 16)
_PER_S = re.compile(r"Requests/sec:\s*([\d.]+)")
_P95_S = re.compile(r"95%+ in ([\d.]+) secs")
_STATUS = re.compile(r"\[(\d{3})\]\s+(\d+) responses")


@dataclass(frozen=True, slots=True)
class Throughput:
    """What so many callers at once came to.

    Attributes:
        callers: How many.
        per_s: Answers a second.
        p95_ms: 95th percentile of an answer's time, milliseconds.
        refused: Answers that were not 200.
    """

    callers: int
    per_s: float
    p95_ms: float
    refused: int


def measure_throughput(
    url: str, body: dict[str, Any], seconds: int, on_step: Callable[[str], None]
) -> tuple[Throughput, ...]:
    """Let ``hey`` post a body again and again, by each number of callers.

    Args:
        url: Where to.
        body: What, as JSON.
        seconds: How long each.
        on_step: Told what is done next.

    Raises:
        ConfigurationError: There is no ``hey``.
        EraError: It failed.
    """
    hey = shutil.which("hey")
    if hey is None:
        raise ConfigurationError("There is no `hey`: `apt-get install hey`.")
    found = []
    with tempfile.TemporaryDirectory(prefix="era-bench-") as folder:
        file = Path(folder, "body.json")
        file.write_text(json.dumps(body), encoding="utf-8")
        for callers in CALLERS:
            on_step(f"hey: {callers} callers")
            command = [hey, "-z", f"{seconds}s", "-c", str(callers), "-m", "POST", "-T", "application/json"]
            done = subprocess.run(  # noqa: S603 - what the user asked for
                [*command, "-D", str(file), url], capture_output=True, text=True, check=False
            )
            found.append(_parse(done.stdout or done.stderr, callers))
    return tuple(found)


def _parse(said: str, callers: int) -> Throughput:
    per_s, p95_s = _PER_S.search(said), _P95_S.search(said)
    if per_s is None or p95_s is None:
        raise EraError(f"`hey` said nothing of requests a second: {said.strip()[-300:]}")
    refused = sum(int(count) for status, count in _STATUS.findall(said) if status != "200")
    return Throughput(callers, float(per_s[1]), float(p95_s[1]) * 1000, refused)

"""What reading a file costs, measured in a process of its own; and files that are dear to read."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from era_ingest.errors import EraError
from era_ingest.pipelines.reading import ReadOptions, read_or_refuse
from era_ingest.store.landing import source_of

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FOX = "The quick brown fox jumps over the lazy dog, again and again, all day. "


YARDSTICK_S = 0.1
"""CPU seconds that `_yardstick` takes on the machine whose seconds the bound is in."""


class Cost(NamedTuple):
    """CPU seconds, bytes of memory above what was there before, what came of it, and the machine's pace.

    Attributes:
        slowness: How many times as long as on the bound's machine a fixed piece of work took just then; at least 1.
    """

    cpu_s: float
    peak_bytes: int
    outcome: str
    slowness: float


def measure_cost(path: Path) -> Cost:
    """Return what reading a book costs a process that has read one before."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write_end, json.dumps(_measure(path)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        raw = answer.read()
    os.waitpid(child, 0)
    return Cost(*json.loads(raw))


def _measure(path: Path) -> Cost:
    warm_up = path.with_suffix(".warm.json")
    warm_up.write_text('[{"rules": ["a"], "raw_text": "b"}]')
    read_or_refuse(source_of(warm_up), ReadOptions())
    warm_up.unlink()
    source = source_of(path)
    pace_s = _yardstick()
    gc.collect()
    CLEAR.write_text("5")
    before, started = _status("VmRSS"), time.process_time()
    outcome = read_or_refuse(source, ReadOptions())
    cpu_s = time.process_time() - started
    shown = (
        getattr(outcome, "reason", "?") if isinstance(outcome, EraError) else f"{outcome.chunk_count} chunks"
    )
    peak_bytes = _status("VmHWM") - before
    pace_s = (pace_s + _yardstick()) / 2
    return Cost(cpu_s, peak_bytes, shown, max(1.0, pace_s / YARDSTICK_S))


def _yardstick() -> float:
    """Return the CPU seconds of a fixed piece of work in Python, which depend on nothing but the machine."""
    started = time.process_time()
    found: dict[int, str] = {}
    for number in range(1_000_000):
        found[number & 1023] = str(number)
    return time.process_time() - started


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _many(make: Callable[[int], str], head: str = "[", tail: str = "]") -> Callable[[int], str]:
    """Return a maker of a list with as many elements as fit into a size."""

    def build(size: int) -> str:
        parts: list[str] = []
        left, number = size, 0
        while left > 0:
            parts.append(make(number))
            left -= len(parts[-1]) + 1
            number += 1
        return head + ",".join(parts) + tail

    return build


def _again(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit.encode()))


def _one_chapter(text: str) -> str:
    return json.dumps([{"raw_text": text}], ensure_ascii=False)


SHAPES: dict[str, Callable[[int], str]] = {
    "prose.json": _many(lambda n: json.dumps({"chapter_index": n, "raw_text": FOX * 200})),
    "one-chapter.json": lambda size: json.dumps([{"raw_text": FOX * (size // len(FOX))}]),
    "emoji.json": _many(
        lambda n: json.dumps({"chapter_index": n, "raw_text": FOX * 200 + "\U0001f600"}, ensure_ascii=False)
    ),
    "wide-chapter.json": lambda size: _one_chapter("\U0001f600" + FOX * (size // len(FOX))),
    "wide-lines.json": lambda size: _one_chapter("\U0001f600" + (FOX + "\r\n") * (size // (len(FOX) + 4))),
    "wide-marks.json": lambda size: _one_chapter("\U0001f600" + ("e\u0301" + FOX) * (size // (len(FOX) + 3))),
    "wide-hidden.json": lambda size: _one_chapter(
        "\U0001f600" + ("\u200b" + FOX + "\n\n\n") * (size // (len(FOX) + 9))
    ),
    "chinese.json": lambda size: json.dumps([{"raw_text": "漢字。" * (size // 9)}], ensure_ascii=False),
    "sixty-bytes.json": _many(lambda n: f'{{"chapter_index":{n},"domains":["a"],"principles":["p {n}"]}}'),
    "objects.json": _many(lambda n: f'{{"chapter_index":{n},"rules":[{{"text":"p {n}"}}]}}'),
    "empty-chapters.json": _many(lambda _: "{}"),
    "indexes.json": _many(lambda n: f'{{"chapter_index":{n}}}'),
    "falling-indexes.json": _many(lambda n: f'{{"chapter_index":{10**7 - n}}}'),
    "same-index.json": _many(lambda _: '{"chapter_index":1}'),
    "lists.json": _many(lambda _: "[]"),
    "numbers.json": _many(lambda n: str(n + 1000)),
    "short-entries.json": _many(lambda n: f'"{n + 1000}"', '[{"principles":[', "]}]"),
    "short-objects.json": _many(lambda n: f'{{"text":"{n + 1000}"}}', '[{"principles":[', "]}]"),
    "entries.json": _many(
        lambda n: (
            f'"Statement {n} holds as long as it is about a hundred characters long, as the real ones are."'
        ),
        '[{"principles":[',
        "]}]",
    ),
    "junk-member.json": _many(lambda _: "[]", '[{"x":[', "]}]"),
    "members.json": _many(lambda n: f'"k{n}":1', "[{", "}]"),
    "same-member.json": _many(lambda _: '"a":1', "[{", "}]"),
    "domains.json": _many(lambda n: f'"d{n}"', '[{"domains":[', "]}]"),
    "in-an-object.json": _many(lambda n: f'{{"chapter_index":{n},"rules":["p {n}"]}}', '{"chapters":[', "]}"),
    "blanks.json": lambda size: "[" + " " * size + "]",
    "escapes.json": lambda size: json.dumps([{"raw_text": "é\u0301" * (size // 12)}]),
    "prose.md": _again((FOX + "\n") * 8 + "\n"),
    "short-lines.md": _again("ab\n"),
    "headings.md": _again("# ab\n"),
    "chapters.md": _again("# ab\nx\n"),
    "feeds.md": _again("a\f"),
    "prose.txt": _again((FOX + "\n") * 8 + "\n"),
    "short-lines.txt": _again("ab\n"),
    "chapters.txt": _again("Chapter 1\n\nab\n\n"),
}

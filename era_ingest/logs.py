"""Logs: one line an event, as JSON or for the console, with what it is about; no secret, and no forged line.

The standard library's logging, since everything that this project stands on (Dagster, uvicorn, psycopg) logs through
it already: structlog would be a second way beside it, for what two formatters do.

``bound`` says what the lines of a block are about (job, run, book, stage); it follows the block's tasks and threads
as context variables do. Further facts go with a line: ``log.info("book loaded", extra={"rows": 3})``.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal

from era_ingest.core.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TextIO

    LogFormat = Literal["console", "json"]

MAX_CHARS: Final = 4_000
"""Characters of one text of a line, at most."""
_TRACE_CHARS: Final = 4 * MAX_CHARS
_NO_FACTS: Mapping[str, str] = {}
_bound: ContextVar[Mapping[str, str]] = ContextVar("era_log_context", default=_NO_FACTS)
_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


@contextmanager
def bound(**facts: str | None) -> Iterator[None]:
    """Say what the lines of a block are about, such as ``job``, ``run``, ``book`` or ``stage``; None: not known."""
    known = {name: value for name, value in facts.items() if value}
    token = _bound.set({**_bound.get(), **known})
    try:
        yield
    finally:
        _bound.reset(token)


def set_up(
    style: LogFormat, level: str, *, secrets: Iterable[str | None] = (), stream: TextIO | None = None
) -> None:
    """Send the logs of this process to standard error; called again, only the last call counts.

    Dagster's own loggers write by themselves: they are left alone.

    Args:
        style: ``console`` or ``json``.
        level: Of this project's lines; others are shown from ``warning`` on.
        secrets: What no line may hold.
        stream: Where lines go instead of standard error, as it is at that moment.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, StandardErrorHandler)]:
        root.removeHandler(handler)
    handler = StandardErrorHandler(stream)
    handler.setFormatter(build_formatter(style, Redactor(secrets)))
    handler.addFilter(lambda record: not record.name.startswith("dagster"))
    root.addHandler(handler)
    logging.getLogger("era_ingest").setLevel(level.upper())
    handler.setLevel(logging.ERROR if level == "error" else logging.NOTSET)


def build_formatter(style: LogFormat, redactor: Redactor) -> logging.Formatter:
    """Return what turns a record into a line."""
    return _Json(redactor) if style == "json" else _Console(redactor)


class StandardErrorHandler(logging.StreamHandler[Any]):
    """Writes to standard error as it is when a line comes: a progress bar may stand before it for a while."""

    def __init__(self, stream: TextIO | None = None) -> None:
        logging.Handler.__init__(self)
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        """Where a line goes."""
        return self._stream or sys.stderr

    @stream.setter
    def stream(self, _: object) -> None:
        """Ignored: the base class sets it."""


class _Lines(logging.Formatter):
    """What both styles share: the facts of a line, each redacted and bounded."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what the line says, in order."""
        more = {name: value for name, value in vars(record).items() if name not in _OWN}
        more = {name: value for name, value in more.items() if not name.startswith(("dagster", "_"))}
        facts: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._text(record.getMessage()),
        }
        trace = str(more.pop("error", ""))
        facts.update((name, self._plain(value)) for name, value in {**_bound.get(), **more}.items())
        if record.exc_info and record.exc_info[0] is not None:
            trace = self.formatException(record.exc_info)
        if trace:
            facts["error"] = self._text(trace, _TRACE_CHARS)
        return facts

    def _plain(self, value: object) -> object:
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
            return value
        return self._text(str(value))

    def _text(self, text: str, bound_chars: int = MAX_CHARS) -> str:
        text = self._redactor.redact(text)
        return text if len(text) <= bound_chars else f"{text[:bound_chars]}… ({len(text):,} characters)"


class _Json(_Lines):
    """One JSON object a line; ASCII, so that no character of a name can break it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(self.facts(record), allow_nan=False)


class _Console(_Lines):
    """Time, level, message, then ``name=value``; what could forge or hide a line is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an error of several lines follows it, each marked."""
        facts = self.facts(record)
        facts.pop("logger")
        trace = str(facts.pop("error", ""))
        head = f"{facts.pop('time')[11:23]} {facts.pop('level'):7} {escape(facts.pop('message'))}"
        line = " ".join([head, *(f"{name}={_quoted(value)}" for name, value in facts.items())])
        if trace and "\n" not in trace:
            return f"{line} error={_quoted(trace)}"
        return "\n".join([line, *(f"  | {escape(part)}" for part in trace.splitlines())])


def escape(text: str) -> str:
    """Return the text with what does not print (line breaks, escape codes, marks of direction) written out."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _quoted(value: object) -> str:
    text = str(value)
    if text.isprintable() and text and not set(text) & set(' ="\\'):
        return text
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'

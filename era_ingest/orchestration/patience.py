"""Dagster's storage outlives a restart of the database: what passes by itself is tried again for a while."""

from __future__ import annotations

import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.runs.base import RunStorage
from dagster._core.storage.schedules.base import ScheduleStorage

from era_ingest.store.embedded.waiting import Waiter
from era_ingest.store.failures import CANCELLED, is_passing_state

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0
"""How long one call of the storage is tried again."""
_NOT_CALLS = frozenset({"dispose", "end_watch", "optimize_for_webserver", "register_instance", "watch"})
_INTERFACES = (RunStorage, EventLogStorage, ScheduleStorage)
_Storage = TypeVar("_Storage", bound=type)


def patient(storage: _Storage) -> _Storage:
    """Make a storage class patient: each call of Dagster's interface is repeated while the database is away.

    A call is several statements, each committed by itself. So it is repeated as long as none of them wrote, and none
    that might have written was lost with its connection: no event stands twice. A storage with a bound on its
    statements (the webserver's) does not repeat those that were cancelled by it.
    """
    names = {
        name
        for interface in _INTERFACES
        if issubclass(storage, interface)
        for name, value in vars(interface).items()
        if callable(value) and not name.startswith("_") and name not in _NOT_CALLS
    }
    for name in names:
        setattr(storage, name, _patiently(getattr(storage, name)))
    return storage


def watch_statements(engine: sqlalchemy.Engine) -> None:
    """Let the calls on an engine know what they wrote."""
    sqlalchemy.event.listen(engine, "before_cursor_execute", _note_attempt)
    sqlalchemy.event.listen(engine, "after_cursor_execute", _note_success)


class _Call(threading.local):
    """The call of the storage that this thread is in, if any.

    Attributes:
        busy: There is one.
        sending: A statement is on its way that may write.
        wrote: One has written.
    """

    busy = False
    sending = False
    wrote = False


_call = _Call()


def _note_attempt(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    _call.sending = not statement.lstrip().lower().startswith("select")


def _note_success(*_: Any) -> None:
    _call.wrote = _call.wrote or _call.sending
    _call.sending = False


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if _call.busy:  # the outermost call is the one that is repeated
            return method(self, *arguments, **named)
        _call.busy = True
        try:
            return _repeat(self, method, arguments, named)
        finally:
            _call.busy = False

    return call


def _repeat(
    storage: Any, method: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    _call.sending = _call.wrote = False
    for waited_s in Waiter().attempts(PATIENCE_S):
        try:
            return method(storage, *arguments, **named)
        except (sqlalchemy.exc.DBAPIError, psycopg2.Error) as error:
            bounded = getattr(storage, "statements_bounded", False)
            if waited_s >= PATIENCE_S or _call.wrote or not _passes(error, cancelled=not bounded):
                raise
    raise AssertionError


def _passes(error: Exception, *, cancelled: bool) -> bool:
    """Say whether trying again may help, and cannot harm.

    Args:
        error: What happened.
        cancelled: Also try again where a statement ran out of time.
    """
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    state = getattr(cause, "pgcode", None)
    if (
        state is None
    ):  # the connection: it could not be had, or was lost while something may have been written
        return isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError) and not _call.sending
    return is_passing_state(state) and (cancelled or state != CANCELLED)

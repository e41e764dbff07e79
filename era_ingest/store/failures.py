"""psycopg's errors as this project's: what happened at which server, and what to do; never the password."""

from __future__ import annotations

import psycopg
from psycopg import conninfo

from era_ingest.core.redaction import Redactor
from era_ingest.errors import ConfigurationError, EraError, StoreUnavailableError

_WRONG_LOGIN = ("28000", "28P01", "3D000")  # invalid authorisation, invalid password, no such database
_WRONG_LOGIN_WORDS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
)
_UNAVAILABLE = ("08", "57P", "53", "58")
"""Classes of SQLSTATE: connection; operator intervention; disk, memory or connections used up; I/O."""
CANCELLED = "57014"
_PASSING = ("25006", "40001", "40P01", "55P03", CANCELLED)
"""Read-only (a standby), serialization failure, deadlock, lock not available, cancelled by a timeout."""


def place(url: str) -> str:
    """Say where a URL points, as ``database "era" at host:port``, without user and password."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "the database of ERA_DATABASE_URL"
    name = parts.get("dbname") or parts.get("user") or "?"
    return f'database "{name}" at {parts.get("host") or "the local socket"}:{parts.get("port") or 5432}'


def is_connection_failure(error: psycopg.Error) -> bool:
    """Say whether the server is away, out of something or busy, rather than the statement being wrong."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return is_passing_state(error.sqlstate)


def is_passing_state(state: str) -> bool:
    """Say of a SQLSTATE whether trying again later may help."""
    return state.startswith(_UNAVAILABLE) or state in _PASSING


def connection_error(error: Exception, url: str) -> EraError:
    """Return the error for a connection that cannot be had or was lost."""
    where = place(url)
    said = _without_password(str(error).strip().rstrip(".?") or type(error).__name__, url)
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if isinstance(error, psycopg.ProgrammingError) and state is None:
        return ConfigurationError(
            f"ERA_DATABASE_URL is no PostgreSQL URL: {said}. It looks like "
            "postgresql://user:password@host:5432/database."
        )
    if state in _WRONG_LOGIN or (state is None and any(words in said for words in _WRONG_LOGIN_WORDS)):
        return ConfigurationError(f"{where} refuses the login: {said}. Check ERA_DATABASE_URL.")
    if state == "42501":  # insufficient privilege
        return ConfigurationError(f"The user of {where} may not do what is needed: {said}. Grant it to him.")
    if state in _PASSING:
        return StoreUnavailableError(
            f"{where} did not take it: {said}. It was tried for a while; run again, what was committed is kept."
        )
    if state == "53100":
        return StoreUnavailableError(f"The disk of {where} is full: {said}. Free some space and run again.")
    return StoreUnavailableError(
        f"{where} is not available: {said}. Check that the server runs and can be reached (`era doctor`), "
        "then run again; what was committed is kept."
    )


def _without_password(text: str, url: str) -> str:
    try:
        password = conninfo.conninfo_to_dict(url).get("password")
    except psycopg.Error:
        return text.replace(url, "(URL)")
    return Redactor([str(password) if password else None]).redact(text)

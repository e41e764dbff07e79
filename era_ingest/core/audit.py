"""What an audit finds: one thing that is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something is lost, doubled, wrong or out of date."""
    WARNING = "warning"
    """Nothing is wrong, but a person should know."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One finding.

    Attributes:
        code: A short stable code, such as ``lost_rows``.
        severity: How bad it is.
        subject: The book, domain, file or table that it is about.
        detail: What was found and what was expected, and what to do, for a person.
    """

    code: str
    severity: Severity
    subject: str
    detail: str


def error(code: str, subject: str, detail: str) -> Finding:
    """Return a finding that something is wrong."""
    return Finding(code, Severity.ERROR, subject, detail)


def warning(code: str, subject: str, detail: str) -> Finding:
    """Return a finding that a person should know of."""
    return Finding(code, Severity.WARNING, subject, detail)

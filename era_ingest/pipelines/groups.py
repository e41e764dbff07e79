"""Errors of tasks that ran together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from era_ingest.errors import EraError


def first_error(errors: ExceptionGroup[EraError]) -> EraError:
    """Return the first error of a group, however deep it lies: the one that ended the others."""
    first = errors.exceptions[0]
    return first_error(first) if isinstance(first, ExceptionGroup) else first

"""JSON values that are read lazily, made whole for comparison."""

from __future__ import annotations

from typing import Any

from era_ingest.core.json_walk import JsonList


def whole_value(value: Any) -> Any:
    """Return a value with all that its lists hold."""
    if isinstance(value, JsonList):
        return [whole_value(element) for element in value]
    if isinstance(value, dict):
        return {key: whole_value(member) for key, member in value.items()}
    return value

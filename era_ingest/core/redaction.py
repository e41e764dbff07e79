"""Secrets out of texts: the one place that decides what a message or a log line may not hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN: Final = "***"
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{4,}")
_PASSWORD = re.compile(r"(?i)\b(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)")
_USERINFO = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


class Redactor:
    """Takes known secrets out of texts, and what looks like one: bearer tokens, passwords in URLs.

    Args:
        secrets: What is known, as it is; in a URL it may stand percent-encoded, which is found too. None and empty
            texts are passed over.
    """

    def __init__(self, secrets: Iterable[str | None]) -> None:
        known = {secret for secret in secrets if secret}
        forms = (
            known | {quote(secret, safe="") for secret in known} | {quote_plus(secret) for secret in known}
        )
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __repr__(self) -> str:
        return "Redactor()"

    def redact(self, text: str) -> str:
        """Return the text with ``***`` where a secret stood."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern in (_BEARER, _PASSWORD):
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return _USERINFO.sub(rf"\1{HIDDEN}@", text)

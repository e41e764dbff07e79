"""Every reason code that the code gives is explained."""

from __future__ import annotations

import re
from pathlib import Path

import era_ingest
from era_ingest.core.reasons import REASONS, explain_reason

PACKAGE = Path(era_ingest.__file__).parent
_CODE = re.compile(
    r'(?:refuse|refusal|_refuse_length|_Refusal|_refuse|Defect)\((?:[^"()]|\([^()]*\))*?"([a-z]+(?:_[a-z]+)*)"'
    r'|reason="([a-z_]+)"'
)
OF_NAMES = {"too_long", "slug", "chunk_file", "identifier", "domain", "path", "reserved", "empty"}
OF_POSTS = {"other_form", "book_name", "key_reused"}
NOT_QUARANTINED = OF_NAMES | OF_POSTS


def test_every_reason_in_the_code_is_explained() -> None:
    """Reasons stand in the source as literals; each has its sentence."""
    found = {
        code
        for file in [
            *PACKAGE.glob("core/*.py"),
            *PACKAGE.glob("store/landing.py"),
            *PACKAGE.glob("pipelines/*.py"),
        ]
        for match in _CODE.findall(file.read_text(encoding="utf-8"))
        for code in match
        if code
    }
    assert len(found) > 30
    assert found - NOT_QUARANTINED <= REASONS.keys()


def test_an_unknown_reason_is_said_to_be_one() -> None:
    """A row of another version has a code that nobody knows here."""
    assert "does not know" in explain_reason("of_tomorrow")

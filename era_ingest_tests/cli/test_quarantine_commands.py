"""The quarantine on the command line: listed, explained, and tried again once its cause is gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from era_ingest_tests.servers import running_server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Era = Callable[..., subprocess.CompletedProcess[str]]

BOOK = {
    "title": "A Book",
    "chapters": [{"chapter_index": 1, "rules": ["A rule that is good.", "A poison rule.", {"no": "text"}]}],
}


def _rows(era: Era, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(era("quarantine", "list", "--json", *arguments).stdout)["rows"]
    return rows


def _server(url: str) -> dict[str, str]:
    return {"ERA_EMBEDDER": "openai", "ERA_EMBED_URL": url, "ERA_EMBED_MODEL": "m"}


def test_what_was_refused_is_explained_and_tried_again(era: Era, tmp_path: Path) -> None:
    """A text that the server takes by now leaves the quarantine; an item that is as it was stays in it."""
    landing = tmp_path / "books"
    landing.mkdir()
    (landing / "book.json").write_text(json.dumps(BOOK), encoding="utf-8")
    with running_server("--fault", "400:1:poison", "--dimensions", "16") as url:
        assert era("ingest", landing, **_server(url)).returncode == 3
    rows = {row["kind"]: row for row in _rows(era)}
    assert rows["text"]["text"] == "A poison rule."
    assert rows["item"]["pointer"] == "/chapters/0/rules/2"
    listed = era("quarantine", "list").stdout
    assert rows["text"]["id"][:8] in listed
    assert "unknown_item_shape" in listed
    shown = era("quarantine", "show", rows["text"]["id"][:8])
    assert shown.returncode == 0, shown.stderr
    assert "answered 400" in shown.stdout
    assert "explanation: The embedding server refuses this text" in shown.stdout
    with running_server("--dimensions", "16") as url:
        again = era("quarantine", "retry", "--book", "book", "--json", **_server(url))
        assert again.returncode == 3, again.stderr
    summary = json.loads(again.stdout.splitlines()[-1])
    assert (summary["texts_embedded"], summary["rows_written"], summary["quarantined"]) == (1, 1, 1)
    assert [row["kind"] for row in _rows(era)] == ["item"]


def test_a_document_that_was_mended_is_retried_by_its_id(era: Era, tmp_path: Path) -> None:
    """Only its book is read again; an id that names nothing says so."""
    landing = tmp_path / "books"
    landing.mkdir()
    (landing / "book.json").write_text("[{", encoding="utf-8")
    assert era("ingest", landing).returncode == 3
    (row,) = _rows(era)
    assert row["explanation"].startswith("The file ends in the middle")
    (landing / "book.json").write_text(
        json.dumps(BOOK["chapters"]).replace(', {"no": "text"}', ""), encoding="utf-8"
    )
    again = era("quarantine", "retry", row["id"])
    assert again.returncode == 0, again.stderr
    assert _rows(era) == []
    for wanted in (row["id"], "nonsense", "ab"):
        done = era("quarantine", "show", wanted)
        assert done.returncode == 1
        assert "era quarantine list" in done.stderr
    assert era("quarantine", "retry").returncode == 2
    assert "Nothing to try again." in era("quarantine", "retry", "--all").stderr

"""The commands as a user types them: subprocesses on a real database, exit codes, JSON on the last line."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import era_ingest
import era_ingest.cli
from era_ingest.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import CliRunner

    Era = Callable[..., subprocess.CompletedProcess[str]]

SAMPLES = Path(era_ingest.__file__).parent / "samples"


def _summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def test_the_help_knows_every_command() -> None:
    """Commands are imported when they are asked for; the list of them holds all that the modules define."""
    listed = cli.list_commands(click.Context(cli))
    for module in pkgutil.iter_modules(era_ingest.cli.__path__, "era_ingest.cli."):
        import_module(module.name)
    assert listed == sorted(cli.commands)


def test_ingest_starts_its_recorder_before_it_imports_much() -> None:
    """What takes long is imported while the recorder's process imports Dagster."""
    program = (
        "import sys; from era_ingest.cli import cli; cli.get_command(None, 'ingest'); "
        "import era_ingest.orchestration.local_run; "
        "print({'dagster', 'numpy', 'psycopg', 'pyarrow', 'aiohttp'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_session_from_ingest_to_search(era: Era, landing: Path) -> None:
    """Ingest, look, search, verify, ingest again: the contract's names, exit codes and figures."""
    plan = era("ingest", "--plan", "--json", landing)
    assert plan.returncode == 0, plan.stderr
    done = era("ingest", landing, "--json")
    assert done.returncode == 0, done.stderr
    first = _summary(done)
    contract = {
        *("books", "chapters", "entries", "passages", "texts_embedded", "texts_reused", "requests"),
        *("rate_limited", "quarantined", "rows_written", "rows_deleted", "seconds", "stage_seconds"),
    }
    assert contract <= first.keys()
    assert first["rows_written"] == first["entries"] + first["passages"] > 100
    assert json.loads(plan.stdout)["texts"] == first["texts_embedded"]

    again = era("ingest", landing, "--json")
    assert again.returncode == 0, again.stderr
    second = _summary(again)
    assert (second["requests"], second["rows_written"], second["rows_deleted"]) == (0, 0, 0)
    assert second["books_by_status"] == {"unchanged": first["books"]}

    found = era("search", "trade what matters little to you", "-k", 3, "--json")
    assert found.returncode == 0, found.stderr
    results = json.loads(found.stdout)["results"]
    assert len(results) == 3
    assert "Trade what matters little" in results[0]["text"]
    shown = era(
        "search", "trade what matters little to you", "--category", "principle", "--domain", "Negotiation"
    )
    assert "Trade what matters little" in shown.stdout

    status = era("status", "--json")
    assert len(json.loads(status.stdout)["books"]) == first["books"]
    verified = era("verify", "--json")
    assert verified.returncode == 0, verified.stdout
    doctor = era("doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
    assert era("quarantine", "list").stdout == "The quarantine is empty.\n"


def test_something_quarantined_is_exit_3_and_listed_with_its_place(era: Era, landing: Path) -> None:
    """A broken neighbour costs itself; the list names file, pointer and reason."""
    (landing / "broken.json").write_text('{"title": "x", "chapters": [', encoding="utf-8")
    done = era("ingest", landing, "--json")
    assert done.returncode == 3, done.stderr
    assert _summary(done)["books_by_status"]["refused"] == 1
    rows = json.loads(era("quarantine", "list", "--json").stdout)["rows"]
    assert [Path(row["file"]).name for row in rows] == ["broken.json"]
    assert rows[0]["reason"]
    assert "Traceback" not in done.stderr


def test_a_minister_file_that_somebody_changed_is_found_by_verify(
    era: Era, landing: Path, tmp_path: Path
) -> None:
    """Exit 4 names the file."""
    assert era("ingest", landing).returncode == 0
    file = next((tmp_path / "ministers").glob("*/rules.json"))
    file.write_bytes(file.read_bytes().replace(b'"rules"', b'"ruins"'))
    done = era("verify")
    assert done.returncode == 4, done.stdout
    assert file.parent.name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "overrides", "said"),
    [
        (("ingest", "nowhere"), {}, "does not exist"),
        (("search", "x"), {}, "era ingest"),
        (("search", "x"), {"ERA_EMBEDDER": "nonsense"}, "ERA_EMBEDDER"),
        (("status",), {"ERA_DATABASE_URL": "postgresql://u:pass-word@127.0.0.1:1/x"}, "127.0.0.1"),
        (("ingest", SAMPLES), {"ERA_EMBEDDER": "local", "ERA_MODELS_DIR": "none"}, "era models fetch"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_remedy(
    era: Era, arguments: tuple[object, ...], overrides: dict[str, str], said: str
) -> None:
    """Exit 1, no traceback, no secret."""
    done = era(*arguments, **overrides)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "pass-word" not in done.stderr


def test_help_suffices(era: Era) -> None:
    """Every command and every setting is named, and examples stand a line each, as they are typed."""
    shown = era("--help").stdout
    assert "\n  era ingest data/landing  " in shown
    for name in ("ingest", "search", "status", "dev", "doctor", "verify", "db", "bench", "ERA_DATABASE_URL"):
        assert name in shown


def test_a_search_that_finds_nothing_says_where_it_looked(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A domain that there is not is mostly one that is spelled otherwise."""

    async def find_nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr("era_ingest.cli.search.search_once", find_nothing)
    for narrowed, said in (
        ([], "Nothing found. "),
        (["--domain", "stratgy"], 'in the domain "stratgy"; is that'),
    ):
        done = runner.invoke(cli, ["search", *narrowed, "patience"])
        assert done.exit_code == 0
        assert said in done.stderr


def test_no_command_is_cut_off_in_a_list(runner: CliRunner) -> None:
    """What a list of commands says of each is a whole sentence, on a terminal of 80 columns."""
    groups = [[], *([name] for name, found in cli.commands.items() if isinstance(found, click.Group))]
    assert len(groups) > 3
    for group in groups:
        shown = runner.invoke(cli, [*group, "--help"], terminal_width=80).stdout
        commands = shown.partition("Commands:\n")[2].partition("\n\n")[0]
        assert commands
        assert not [line for line in commands.splitlines() if not re.search(r"[^.]\.$", line)]

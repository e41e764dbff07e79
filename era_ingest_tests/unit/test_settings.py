"""Settings: typed, explained, never showing a secret; the README's table is the settings' own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from era_ingest.errors import ConfigurationError
from era_ingest.settings import describe_settings, load_settings
from tools.write_settings_table import build_table


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no ERA_* variable of the caller reach a test."""
    for row in describe_settings():
        monkeypatch.delenv(row.name, raising=False)


def test_every_variable_of_the_contract_is_there() -> None:
    """The names that others rely on."""
    names = {row.name for row in describe_settings()}
    assert names >= {
        "ERA_HOME",
        "ERA_DATABASE_URL",
        "ERA_LANDING_DIR",
        "ERA_MINISTERS_DIR",
        "ERA_EMBEDDER",
        "ERA_EMBED_URL",
        "ERA_EMBED_MODEL",
        "ERA_EMBED_DIMENSIONS",
        "ERA_EMBED_API_KEY",
        "ERA_PRESET",
    }
    assert all(row.description for row in describe_settings())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ERA_EMBEDDER", "word2vec"),
        ("ERA_EMBED_DIMENSIONS", "0"),
        ("ERA_PASSAGES", "perhaps"),
        ("ERA_PRESET", "huge"),
        ("ERA_DOMAIN_ALIASES", "{not json"),
        ("ERA_DOMAIN_ALIASES", "/no/such/file.json"),
        ("ERA_PASSAGE_MIN_CHARS", "2000"),
        ("ERA_EMBED_MAX_COST", "1"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which variable is wrong and where to look."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match="start it again; `era --help` lists all") as caught:
        load_settings()
    assert variable in caught.value.message


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key nor the database's password stands in the settings' repr."""
    monkeypatch.setenv("ERA_EMBED_API_KEY", "sk-very-secret")
    monkeypatch.setenv("ERA_DATABASE_URL", "postgresql://u:pass-word@h/d")
    shown = repr(load_settings())
    assert "sk-very-secret" not in shown
    assert "pass-word" not in shown


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI systems set variables to nothing."""
    monkeypatch.setenv("ERA_EMBEDDER", "")
    monkeypatch.setenv("ERA_DATABASE_URL", "")
    settings = load_settings()
    assert settings.embedder == "local"
    assert settings.database_url is None


def test_switches_and_aliases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``off`` is a switch; aliases come as JSON or as the path of a file of it."""
    monkeypatch.setenv("ERA_PASSAGES", "off")
    monkeypatch.setenv("ERA_DOMAIN_ALIASES", '{"psych": "psychology"}')
    assert load_settings().passages is False
    assert load_settings().domain_aliases == {"psych": "psychology"}
    file = tmp_path / "aliases.json"
    file.write_text(json.dumps({"biz": "business"}))
    monkeypatch.setenv("ERA_DOMAIN_ALIASES", str(file))
    assert load_settings().domain_aliases == {"biz": "business"}


def test_the_lower_of_both_budgets_counts() -> None:
    """A bound in money is a bound in tokens by the price of a million."""
    assert load_settings().max_tokens == math.inf
    settings = load_settings(embed_price=0.5, embed_max_cost=1.0, embed_max_tokens=5_000_000)
    assert settings.max_tokens == 2_000_000


def test_the_readme_has_the_table_of_settings() -> None:
    """`python tools/write_settings_table.py` was run after the last change."""
    readme = Path(__file__).parents[2] / "README.md"
    assert build_table() in readme.read_text(encoding="utf-8")

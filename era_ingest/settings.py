"""Process settings: read once from the environment (``ERA_*``), typed, with defaults and units."""

from __future__ import annotations

import json
import math
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from era_ingest.core.presets import PRESETS, Preset
from era_ingest.errors import ConfigurationError


class EmbedderKind(StrEnum):
    """Which backend computes vectors."""

    LOCAL = "local"
    OLLAMA = "ollama"
    OPENAI = "openai"
    HASHING = "hashing"


def _parse_switch(value: object) -> object:
    """Take ``on`` and ``off`` beside what pydantic takes for a bool."""
    return {"on": True, "off": False}.get(value.lower(), value) if isinstance(value, str) else value


def _parse_aliases(value: object) -> object:
    """Take a JSON object, or the path of a file that holds one."""
    if not isinstance(value, str):
        return value
    try:
        text = value if value.lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise ValueError(f"the file {value} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error


Switch = Annotated[bool, BeforeValidator(_parse_switch)]


class Settings(BaseSettings):
    """All settings of one process; each field is the variable ``ERA_<FIELD>``.

    Empty variables count as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="ERA_", env_ignore_empty=True, frozen=True, extra="ignore", enable_decoding=False
    )

    home: Path = Field(Path(".era"), description="all state of one installation")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL with pgvector >= 0.8.4; unset: the embedded server under ERA_HOME"
    )
    landing_dir: Path = Field(Path("data/landing"), description="where books arrive")
    ministers_dir: Path = Field(Path("data/ministers"), description="where minister files go")
    chunks_url: str | None = Field(
        None, description="folder or object-store URL of the chunks' Parquet; unset: ERA_HOME/chunks"
    )
    models_dir: Path | None = Field(None, description="where local models are kept; unset: ERA_HOME/models")

    embedder: EmbedderKind = Field(EmbedderKind.LOCAL, description="local | ollama | openai | hashing")
    embed_url: str | None = Field(None, description="the server's root, as its own clients take it")
    embed_model: str | None = Field(None, description="the model's name; unset: the backend's default")
    embed_dimensions: int | None = Field(
        None, ge=1, le=16000, description="vector size to ask for; unset: the model's own"
    )
    embed_api_key: SecretStr | None = Field(None, description="bearer token of the endpoint")
    embed_controller: Literal["adaptive", "latency", "aimd", "fixed"] = Field(
        "adaptive",
        description="who decides how many requests go: adaptive (finds the server's limit by itself) | "
        "latency (start 10, +2 under 0.6 s, x0.9 over 1.2 s, x0.7 at three 429s) | aimd | fixed",
    )
    embed_concurrency: int = Field(8, ge=1, le=1024, description="requests in flight of the fixed controller")
    embed_batch_texts: int | None = Field(
        None, ge=1, le=2048, description="texts a request; unset: the preset's"
    )
    embed_timeout_s: float = Field(60.0, gt=0, description="time limit of one request, seconds")
    embed_retry_budget_s: float = Field(
        900.0, ge=0, description="how long one batch is retried before it is given up, seconds"
    )
    embed_int8: Switch = Field(
        False,
        description="local model in int8: faster, nearly the same vectors (`era bench embed` measures both)",
    )
    embed_price: float = Field(
        0.0, ge=0, description="what the endpoint charges for a million tokens, in any currency; 0: not told"
    )
    embed_max_tokens: int | None = Field(
        None, ge=1, description="a run stops before it spends more tokens than this; unset: no bound"
    )
    embed_max_cost: float | None = Field(
        None, gt=0, description="a run stops before it costs more than this (needs ERA_EMBED_PRICE)"
    )
    preset: Literal["local", "standard", "high_throughput"] = Field(
        "standard", description="workers, batch sizes, pool sizes"
    )

    passages: Switch = Field(True, description="cut chapters' text into passages: on | off")
    passage_min_chars: int = Field(512, ge=1, description="least length of a passage, characters")
    passage_max_chars: int = Field(1024, ge=16, description="greatest length of a passage, characters")
    passage_overlap_chars: int = Field(0, ge=0, description="characters shared by neighbours, at most")
    domain_aliases: Annotated[dict[str, str], BeforeValidator(_parse_aliases)] = Field(
        default_factory=dict, description='synonyms, as JSON or a file of it: {"psych": "psychology"}'
    )
    index_min_rows: int = Field(10_000, ge=1, description="rows above which a domain gets an ANN index")
    index_memory_mb: int = Field(
        2_048,
        ge=64,
        description="what building one ANN index takes of the database's memory, at most, 2^20 bytes",
    )
    settle_s: float = Field(
        5.0, ge=0, description="a file is taken once it has not changed for so long, seconds"
    )
    max_removed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of a landing folder's books that may vanish at once (of 10 or more; never all): more are "
        "kept until `era ingest --allow-removals`; 1: never asks",
    )
    max_file_bytes: int = Field(512 * 1024 * 1024, ge=1, description="larger input files are refused")

    serve_tokens: SecretStr | None = Field(
        None,
        description="who may call `era serve`: read:<SHA-256 of a token>,write:<...>; unset: this machine only",
    )
    serve_max_body_bytes: int = Field(
        64 * 1024 * 1024, ge=1, description="larger books are refused over HTTP"
    )
    serve_timeout_s: float = Field(
        30.0, gt=0, description="time for a body to arrive, and for its answer to begin, seconds each"
    )
    serve_search_timeout_s: float = Field(
        5.0,
        gt=0,
        description="time of a search in the database, and of waiting for a connection to it, seconds each",
    )
    serve_rate_per_s: float = Field(
        100.0,
        ge=0,
        description="requests of one token (or address) a second, twice as many at once; 0: no bound",
    )
    serve_max_waiting: int = Field(
        100, ge=0, description="while so many runs wait in the queue, books are answered with 503"
    )
    dagster_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="address of the Dagster UI, which the page of `era serve` and alerts link to; unset: no links",
    )
    alert_webhook: SecretStr | None = Field(
        None, description="URL that is told of failed runs and late assets; a secret; unset: nobody is told"
    )
    alert_format: Literal["slack", "json"] = Field(
        "slack",
        description="body of an alert: slack (also Mattermost, Rocket.Chat) | json (kind, id, text and facts)",
    )
    alert_late_h: float | None = Field(
        None,
        ge=1 / 60,
        description="an alert goes out where no book was loaded for so many hours, and once one is; unset: never",
    )

    log_format: Literal["console", "json"] = Field(
        "console", description="how log lines look: console | json (one object a line, on standard error)"
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        None,
        description="debug | info | warning | error; unset: info, and error for commands that tell a person themselves",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.passage_min_chars > self.passage_max_chars:
            raise ValueError("ERA_PASSAGE_MIN_CHARS is greater than ERA_PASSAGE_MAX_CHARS")
        if self.passage_overlap_chars >= self.passage_min_chars:
            raise ValueError("ERA_PASSAGE_OVERLAP_CHARS must be less than ERA_PASSAGE_MIN_CHARS")
        if self.embed_max_cost is not None and not self.embed_price:
            raise ValueError("ERA_EMBED_MAX_COST needs ERA_EMBED_PRICE, the price of a million tokens")
        return self

    @property
    def bounds(self) -> Preset:
        """The preset's bounds."""
        return PRESETS[self.preset]

    @property
    def batch_texts(self) -> int:
        """Texts a request, at most."""
        return self.embed_batch_texts or self.bounds.batch_texts

    @property
    def max_tokens(self) -> float:
        """Tokens that one run may spend, by either bound; infinite where there is none."""
        by_cost = (
            self.embed_max_cost / self.embed_price * 1e6 if self.embed_max_cost is not None else math.inf
        )
        return min(by_cost, self.embed_max_tokens if self.embed_max_tokens is not None else math.inf)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no message and no log line: keys, and the passwords of URLs."""
        known = [self.embed_api_key, self.serve_tokens, self.database_url]
        texts = [secret.get_secret_value() for secret in known if secret is not None]
        urls = [*texts, self.embed_url or "", self.chunks_url or ""]
        texts += re.findall("[0-9a-f]{64}", " ".join(texts))  # the hashes of tokens, each by itself
        return (*texts, *(password for url in urls if (password := _password_of(url))))

    @property
    def chunks_location(self) -> str:
        """Folder or URL of the chunks' Parquet files."""
        return self.chunks_url or str(self.home.absolute() / "chunks")

    @property
    def models_location(self) -> Path:
        """Folder of the local models."""
        return self.models_dir or self.home / "models"


def _password_of(url: str) -> str:
    """Return the password of a URL; empty where there is none."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process.

    Args:
        **overrides: Fields that win over the environment.

    Raises:
        ConfigurationError: A variable does not parse; the message names each and says what is allowed.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # Not `from error`: that repeats the values, and secrets with them, wherever a program shows it.
        raise ConfigurationError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    """Name each wrong variable and what it is for, without its value, and say what to do."""
    wrong = []
    for item in error.errors(include_url=False, include_input=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        field = Settings.model_fields.get(name)
        label = f"ERA_{name.upper()} ({field.description}): " if field else ""
        wrong.append(f"{label}{item['msg'].removeprefix('Value error, ')}")
    return (
        f"Wrong settings: {'; '.join(wrong)}. Set them right in the environment of this process and start it again; "
        "`era --help` lists all settings and what each takes."
    )


class SettingRow(NamedTuple):
    """One setting, described for people: variable, default, meaning."""

    name: str
    default: str
    description: str


def describe_settings() -> list[SettingRow]:
    """Return every setting with its default and meaning, in the order they are declared."""
    return [
        SettingRow(
            f"ERA_{name.upper()}",
            _show_default(field.get_default(call_default_factory=True)),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def _show_default(value: object) -> str:
    """Write a default as one would type it."""
    if value is None or value == {}:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)

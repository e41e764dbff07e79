"""Alerts to a webhook that works, and to one that does not: on time, tried again, its URL never shown."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from era_ingest.clients.webhook import post_webhook
from era_ingest.errors import ConfigurationError, RequestRejectedError, UpstreamUnavailableError
from era_ingest.pipelines.alerts import Alert, AlertKind, build_body, redact
from era_ingest.settings import load_settings
from era_ingest_tests.webhook_server import SECRET, Webhook, running_webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

ALERT = Alert(
    AlertKind.RUN_FAILED,
    "r1",
    "Run <1> & co failed",
    "``` <b>",
    "2026-01-01T00:00:00+00:00",
    link="http://x/1",
)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with running_webhook() as opened:
        yield opened


async def send(hook: Webhook, *, timeout_s: float = 0.4, budget_s: float = 0.9) -> None:
    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    await post_webhook(
        SecretStr(hook.url),
        b'{"a": 1}',
        timeout_s=timeout_s,
        budget_s=budget_s,
        uniform=lambda: 0.0,
        sleep=at_once,
    )


@pytest.mark.parametrize("fault", [500, 429, 503, 404, 302, "hang", "reset", "drip"])
async def test_one_fault_is_mended_by_the_next_attempt(hook: Webhook, fault: int | str) -> None:
    """It arrives once."""
    hook.behaviour, hook.then = fault, 200
    await send(hook, timeout_s=1.0, budget_s=30.0)
    assert (hook.attempts, hook.bodies) == (2, [{"a": 1}])


@pytest.mark.parametrize("fault", [500, 302, "hang", "reset", "drip"])
async def test_a_fault_that_stays_costs_a_bounded_time_and_shows_no_secret(
    hook: Webhook, fault: int | str
) -> None:
    """The error says what happened and where, and not at which URL."""
    hook.behaviour = fault
    begun = time.monotonic()
    with pytest.raises(UpstreamUnavailableError) as caught:
        await send(hook)
    assert time.monotonic() - begun < 60.0
    assert hook.attempts >= 2
    assert hook.bodies == []
    assert SECRET not in repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)
    assert "127.0.0.1" in caught.value.message


async def test_what_the_server_refuses_is_not_sent_again(hook: Webhook) -> None:
    """A body that is too large, say."""
    hook.behaviour = 413
    with pytest.raises(RequestRejectedError, match="413"):
        await send(hook)
    assert hook.attempts == 1


async def test_a_url_that_is_none_is_named_by_its_variable() -> None:
    """Without showing what stands there."""
    for url in ("ftp://x/S3CR3T", "S3CR3T", "http://[S3CR3T"):
        with pytest.raises(ConfigurationError, match="ERA_ALERT_WEBHOOK") as caught:
            await post_webhook(SecretStr(url), b"{}")
        assert "S3CR3T" not in caught.value.message


def test_slack_s_form_escapes_and_plain_json_does_not() -> None:
    """Nothing that an error says becomes a link, a mention or the end of a block."""
    slack = json.loads(build_body(ALERT, "slack"))
    assert slack["text"] == "Run &lt;1&gt; &amp; co failed\n``` &lt;b&gt;"
    assert [block["text"]["text"] for block in slack["blocks"]] == [
        "*Run &lt;1&gt; &amp; co failed*",
        "```` ` ` &lt;b&gt;```",
        "<http://x/1|in Dagster>",
    ]
    plain = json.loads(build_body(ALERT, "json"))
    assert (plain["kind"], plain["id"], plain["title"]) == ("run_failed", "r1", "Run <1> & co failed")
    assert plain["source"] == "era_ingest"
    long = json.loads(build_body(Alert(AlertKind.ASSET_LATE, "x", "t", "é" * 9_000, ""), "slack"))
    assert all(len(block["text"]["text"]) < 3_000 for block in long["blocks"])


def test_no_secret_of_the_settings_is_told() -> None:
    """Neither whole nor as the part of a URL."""
    settings = load_settings(
        database_url="postgresql://u:hunter22@h/name",
        embed_api_key="sk-abcdef",
        alert_webhook=f"https://hooks.example/services/{SECRET}",
    )
    said = f"sk-abcdef at postgresql://u:hunter22@h/name, password hunter22, /services/{SECRET}: name"
    assert redact(said, settings) == "*** at ***, password ***, /***: name"

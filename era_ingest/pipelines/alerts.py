"""Alerts: what whoever is on call is told, as Slack takes it or as plain JSON, without secrets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

from era_ingest.clients.webhook import post_webhook
from era_ingest.errors import ConfigurationError

if TYPE_CHECKING:
    from era_ingest.settings import Settings

MAX_DETAIL_CHARS = 1_500
"""Slack takes 3,000 a block; an error's first lines are what helps."""
_SHORTEST_SECRET = 4
"""A shorter part of a secret would blot out ordinary words."""


class AlertKind(StrEnum):
    """What an alert is about."""

    RUN_FAILED = "run_failed"
    RUNS_FAILED = "runs_failed"
    """Many at once; one alert for all of them."""
    ASSET_LATE = "asset_late"
    ASSET_FRESH = "asset_fresh"
    """It was late, and is no longer."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        kind: What it is about.
        id: The same if the same alert is sent twice, which a crash at the wrong moment may do.
        title: One line.
        detail: More of it, such as the error; ``""``: nothing.
        at: When it happened, ISO 8601.
        run_id: Of the run in Dagster, where it is about one.
        job_id: Of the job over HTTP, where it is about one.
        link: To it in Dagster's UI, where ERA_DAGSTER_URL says where that is.
    """

    kind: AlertKind
    id: str
    title: str
    detail: str
    at: str
    run_id: str | None = None
    job_id: str | None = None
    link: str | None = None


async def send(alert: Alert, settings: Settings) -> None:
    """Deliver an alert to the webhook.

    Raises:
        ConfigurationError: There is no webhook, or its URL is none.
        RequestRejectedError: It refused this alert for good.
        UpstreamUnavailableError: It could not be delivered now.
    """
    if settings.alert_webhook is None:
        raise ConfigurationError("ERA_ALERT_WEBHOOK is not set.")
    clean = replace(alert, title=redact(alert.title, settings), detail=redact(alert.detail, settings))
    await post_webhook(settings.alert_webhook, build_body(clean, settings.alert_format))


def build_body(alert: Alert, form: Literal["slack", "json"]) -> bytes:
    """Return an alert as JSON.

    Slack's form is that of incoming webhooks (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks):
    ``text`` is what notifications show, ``blocks`` what the channel does; ``&``, ``<`` and ``>`` are escaped.
    """
    detail = alert.detail if len(alert.detail) <= MAX_DETAIL_CHARS else alert.detail[:MAX_DETAIL_CHARS] + "…"
    if form == "json":
        return orjson.dumps({**asdict(alert), "detail": detail, "source": "era_ingest"})
    title, shown = _escape(alert.title), _escape(detail)
    texts = [f"*{title}*", *([f"```{shown.replace('```', '` ` `')}```"] if shown else [])]
    if alert.link:
        texts.append(f"<{alert.link}|in Dagster>")
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts]
    return orjson.dumps({"text": f"{title}\n{shown}".strip(), "blocks": blocks})


def redact(text: str, settings: Settings) -> str:
    """Return a text without the secrets that the settings hold, whole or as the password or path of a URL."""
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(settings: Settings) -> set[str]:
    found = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if not isinstance(value, SecretStr):
            continue
        secret = value.get_secret_value()
        found.add(secret)
        if "://" in secret:
            url = urlsplit(secret)
            found |= {part for part in (url.password, url.path.strip("/")) if part}
            if name == "database_url":
                found.discard(url.path.strip("/"))  # the database's name is no secret
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

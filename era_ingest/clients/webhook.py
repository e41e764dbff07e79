"""One POST to a webhook whose URL is a secret: bounded in time, tried again for a while, and never shown."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from era_ingest.core.retry import Backoff
from era_ingest.errors import ConfigurationError, RequestRejectedError, UpstreamUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import SecretStr

TIMEOUT_S = 5.0
"""Of one attempt, from connecting to the reply's head."""
BUDGET_S = 15.0
"""Of all attempts of one call together."""
_BACKOFF = Backoff(base_s=0.5, cap_s=4.0)
_REFUSED = frozenset({400, 413, 415, 422})
"""What is wrong with one body, and not with the URL or the server; sent again it would be refused again."""


async def post_webhook(
    url: SecretStr,
    body: bytes,
    *,
    timeout_s: float = TIMEOUT_S,
    budget_s: float = BUDGET_S,
    uniform: Callable[[], float] = random.random,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Send one JSON body; redirects are not followed, and of the reply only the status counts.

    Args:
        url: Where to; appears in no message.
        body: JSON.
        timeout_s: Of one attempt, seconds.
        budget_s: Of all attempts, seconds; the last one may end ``timeout_s`` later.
        uniform: Returns random numbers in [0, 1).
        sleep: Waits.

    Raises:
        ConfigurationError: The URL is none.
        RequestRejectedError: The server refused this body; it need not be sent again.
        UpstreamUnavailableError: It could not be delivered now.
    """
    target = _parse(url)
    begun, retry, said = time.monotonic(), 0, ""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        while True:
            said = await _attempt(session, target, body)
            pause_s = _BACKOFF.delay_s(retry, uniform())
            if not said:
                return
            if time.monotonic() + pause_s - begun >= budget_s:
                raise UpstreamUnavailableError(
                    f"The alert webhook at {target.host} took nothing in {retry + 1} attempts: {said}."
                )
            await sleep(pause_s)
            retry += 1


async def _attempt(session: aiohttp.ClientSession, target: URL, body: bytes) -> str:
    """Return ``""`` once it was taken, else why not.

    Raises:
        RequestRejectedError: See `post_webhook`.
    """
    headers = {"Content-Type": "application/json"}
    try:
        async with session.post(target, data=body, headers=headers, allow_redirects=False) as reply:
            status = reply.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return type(error).__name__  # its words may hold the URL
    if status in _REFUSED:
        raise RequestRejectedError(f"The alert webhook at {target.host} refused an alert with {status}.")
    return "" if 200 <= status < 300 else f"it answered {status}"  # noqa: PLR2004 - what HTTP calls success


def _parse(url: SecretStr) -> URL:
    try:
        target = URL(url.get_secret_value().strip())
    except ValueError:
        target = URL()
    if target.scheme not in {"http", "https"} or not target.host:
        raise ConfigurationError("ERA_ALERT_WEBHOOK is no http(s) URL.")
    return target

"""Where the database is: ``ERA_DATABASE_URL``, or the embedded server under ERA_HOME."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from era_ingest.settings import Settings


@contextmanager
def database(settings: Settings, *, on_wait: Callable[[str], None] | None = None) -> Iterator[str]:
    """Yield the database's URL; the embedded server, where it is meant, runs as long as the context is open.

    Args:
        settings: ``database_url`` wins over ``home``.
        on_wait: Told about every five seconds of waiting for the embedded server; the log by default.

    Raises:
        ConfigurationError: The embedded server needs a person's help.
        StoreUnavailableError: It cannot start now.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    from era_ingest.store.embedded import hold  # an own server needs none of it

    with hold(settings.home, on_wait=on_wait) as lease:
        yield lease.url

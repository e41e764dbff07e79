"""Sessions of people who signed in with a token: a cookie that this process made and can check, nothing stored.

A cookie says whose token it was and until when it holds, under a MAC of a key that lives and dies with the process:
neither the settings, which hold hashes of tokens, nor a leaked cookie give more than reading the page until then. It
ends early where the token is taken out of the settings, or the service is started again.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING

from era_ingest.service.access import find_grant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.service.access import Grant

COOKIE = "era_session"
LIFETIME_S = 12 * 3600
"""A working day; then the token is asked for again."""
_FORM = re.compile(r"([0-9a-f]{12})\.([0-9]{1,12})\.([0-9a-f]{64})")


class Sessions:
    """Opens and checks sessions.

    Args:
        grants: Tokens that may sign in; empty: nobody has to.
        clock: Seconds since 1970.
    """

    def __init__(self, grants: Sequence[Grant], *, clock: Callable[[], float] = time.time) -> None:
        self._grants = grants
        self._clock = clock
        self._key = secrets.token_bytes(32)

    @property
    def needed(self) -> bool:
        """Whether people have to sign in."""
        return bool(self._grants)

    def open(self, token: str) -> str | None:
        """Return the cookie of a new session; None where the token is not known."""
        grant = find_grant(self._grants, token)
        return None if grant is None else self._seal(grant.caller, int(self._clock()) + LIFETIME_S)

    def find(self, cookie: str) -> str | None:
        """Return whose session a cookie stands for; None where it holds for nobody, or no longer."""
        match = _FORM.fullmatch(cookie)
        if match is None:
            return None
        caller, until = match[1], int(match[2])
        sealed = hmac.compare_digest(self._seal(caller, until), cookie)
        known = any(grant.caller == caller for grant in self._grants)
        return caller if sealed and known and self._clock() < until else None

    def _seal(self, caller: str, until: int) -> str:
        message = f"{caller}.{until}"
        return f"{message}.{hmac.digest(self._key, message.encode(), 'sha256').hex()}"

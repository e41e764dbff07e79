"""Sessions of people who signed in with a token: a cookie that the service made and can check, nothing stored.

A cookie says whose token it was and until when it holds, under a MAC. The MAC's key is derived from the tokens' hashes,
so that a session goes on over restarts and at every replica that has the same ``ERA_SERVE_TOKENS``, and ends where they
change: at the least when its own token is taken out. Whoever can read that setting could make a cookie, and read the
page with it, though not call anything under ``/v1``: keep it as a secret.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import TYPE_CHECKING

from era_ingest.service.access import find_grant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from era_ingest.service.access import Grant

COOKIE = "era_session"
LIFETIME_S = 12 * 3600
"""A working day; then the token is asked for again."""
_PURPOSE = b"era_ingest session cookies, version 1"
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
        self._key = derive_key(grants)

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


def derive_key(grants: Sequence[Grant]) -> bytes:
    """Return the key of the sessions of these tokens, 32 bytes; the same in whatever order they stand.

    It is HKDF's extraction (RFC 5869) with the purpose as salt. A token has 32 random bytes, so that its hash is as
    good as a random key.
    """
    material = sorted({grant.digest + grant.scope.value.encode() for grant in grants})
    return hmac.digest(_PURPOSE, b"\n".join(material), "sha256")

"""Who may call: bearer tokens, of which the settings hold only hashes.

A token is 32 random bytes, so that one SHA-256 is hash enough: there is nothing to guess, and no salt to add.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from era_ingest.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from era_ingest.settings import Settings

MAX_TOKENS = 1_000
_LINE = re.compile(r"(read|write):([0-9a-f]{64})")
_TOKEN_BYTES = 32


class Scope(StrEnum):
    """What a token allows; ``write`` allows reading too."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Grant:
    """One token that is known, by its hash.

    Attributes:
        digest: SHA-256 of the token.
        scope: What it allows.
    """

    digest: bytes
    scope: Scope

    @property
    def caller(self) -> str:
        """Name of who holds it, as it stands in logs and job records: nothing can be learned from it."""
        return self.digest.hex()[:12]


def load_grants(settings: Settings) -> tuple[Grant, ...]:
    """Return the tokens of ``ERA_SERVE_TOKENS``; empty where it is unset.

    Raises:
        ConfigurationError: It is not of the form ``read:<SHA-256>,write:<SHA-256>``.
    """
    raw = settings.serve_tokens.get_secret_value() if settings.serve_tokens else ""
    parts = [part for part in re.split(r"[\s,]+", raw) if part]
    matches = [_LINE.fullmatch(part) for part in parts]
    if len(parts) > MAX_TOKENS or not all(matches):
        wrong = [number for number, match in enumerate(matches, 1) if match is None]
        raise ConfigurationError(
            f"ERA_SERVE_TOKENS takes at most {MAX_TOKENS:,} of read:<64 hex digits> or write:<64 hex digits>, comma "
            f"between; wrong: no. {wrong[:5]}. `era serve --new-token read` makes one."
        )
    return tuple(Grant(bytes.fromhex(match[2]), Scope(match[1])) for match in matches if match)


def new_token(scope: Scope) -> tuple[str, str]:
    """Return a fresh token, and what stands for it in ``ERA_SERVE_TOKENS``."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, f"{scope.value}:{digest_of(token).hex()}"


def digest_of(token: str) -> bytes:
    """Return a token's SHA-256."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def find_grant(grants: Sequence[Grant], token: str) -> Grant | None:
    """Return the grant of a token, or None; takes the same time whichever it is, or none."""
    digest = digest_of(token)
    found: Grant | None = None
    for grant in grants:
        if hmac.compare_digest(grant.digest, digest):
            found = grant
    return found


def check_binding(address: str, grants: Sequence[Grant]) -> None:
    """Refuse to serve other machines without tokens.

    Args:
        address: The IP address that is bound.
        grants: Tokens that are known.

    Raises:
        ConfigurationError: The address is not of the loopback interface, and there are no tokens.
    """
    if not grants and not ipaddress.ip_address(address).is_loopback:
        raise ConfigurationError(
            f"Other machines reach {address}, and no token is set: `era serve --new-token write` makes one for "
            "ERA_SERVE_TOKENS (or bind 127.0.0.1)."
        )

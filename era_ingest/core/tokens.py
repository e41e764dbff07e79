"""Estimates of a text's tokens without a tokenizer, corrected by what the server counts.

Estimate: ``ascii / 4 + other UTF-8 bytes / 2.2`` tokens, times a ratio learnt from the ``usage`` of replies.
English prose has about four ASCII characters a token; other scripts about 2.2 bytes a token.
"""

from __future__ import annotations

ASCII_CHARS_PER_TOKEN = 4.0
OTHER_BYTES_PER_TOKEN = 2.2


def estimate_tokens(text: str) -> float:
    """Return the estimated tokens of a text, >= 1."""
    if text.isascii():
        return max(1.0, len(text) / ASCII_CHARS_PER_TOKEN)
    encoded = len(text.encode("utf-8", "surrogatepass"))
    ascii_chars = len(text.encode("ascii", "ignore"))
    return max(1.0, ascii_chars / ASCII_CHARS_PER_TOKEN + (encoded - ascii_chars) / OTHER_BYTES_PER_TOKEN)


class TokenEstimator:
    """Estimates that follow what the server counts.

    The ratio of counted to estimated tokens is a moving mean with the given weight. It is clamped, since some
    servers count something else (infinity's ``usage`` counts characters).

    Args:
        weight: Weight of the newest request in the moving mean, in (0, 1].
        least: Lower bound of the ratio, > 0.
        most: Upper bound of the ratio, >= ``least``.
    """

    def __init__(self, *, weight: float = 0.1, least: float = 0.5, most: float = 2.0) -> None:
        self._weight = weight
        self._least = least
        self._most = most
        self._ratio = 1.0

    @property
    def ratio(self) -> float:
        """Counted over estimated tokens, within the clamp; 1 until a server has counted."""
        return self._ratio

    def estimate(self, text: str) -> float:
        """Return the tokens that the server will probably count for a text, > 0."""
        return estimate_tokens(text) * self._ratio

    def observe(self, estimated: float, counted: float) -> None:
        """Learn from a reply.

        Args:
            estimated: What ``estimate_tokens`` said of all texts of the request (not corrected), > 0.
            counted: What the server counted; <= 0 is ignored (some servers send 0).
        """
        if estimated <= 0 or counted <= 0:
            return
        seen = min(self._most, max(self._least, counted / estimated))
        self._ratio += self._weight * (seen - self._ratio)

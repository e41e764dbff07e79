"""A bound on the tokens of a run: what is spent, what is promised, and whether one more request fits."""

from __future__ import annotations

import math

FIRST_CAUTION = 2.0
"""Before the server has counted anything, a request is taken to cost twice its estimate."""


class TokenBudget:
    """Promises tokens to requests, so that ``spent + promised <= bound`` holds at any time.

    A request is promised ``caution`` times its estimate, where ``caution`` is the greatest ratio of counted to
    estimated tokens of any reply so far, at least 1 (``FIRST_CAUTION`` before the server counted anything).
    So the bound is crossed only by a server that counts more than ever before, and then by the excess of what
    is in flight.

    Args:
        bound: Tokens that may be spent, > 0; infinite: there is no bound.
    """

    def __init__(self, bound: float = math.inf) -> None:
        self.bound = bound
        self.spent = 0.0
        self.promises = 0
        self._promised = 0.0
        self._caution: float | None = None

    @property
    def promised(self) -> float:
        """Tokens promised to requests whose cost is not known yet, >= 0."""
        return self._promised

    @property
    def caution(self) -> float:
        """What an estimate is multiplied by, >= 1."""
        return FIRST_CAUTION if self._caution is None else self._caution

    def promise(self, estimated: float) -> float | None:
        """Set tokens aside for a request.

        Args:
            estimated: Its estimated tokens, >= 0.

        Returns:
            The amount set aside, to be handed to ``settle``; None if it does not fit, and nothing is set
            aside.
        """
        amount = estimated * self.caution
        if self.spent + self._promised + amount > self.bound:
            return None
        self.promises += 1
        self._promised += amount
        return amount

    def settle(self, amount: float, *, estimated: float, counted: float | None = None) -> None:
        """Replace a promise by what the request cost.

        Args:
            amount: What ``promise`` returned.
            estimated: The request's estimated tokens; 0 for one that cost nothing.
            counted: What the server counted; None or 0 where it did not, and the estimate stands.
        """
        self.promises -= 1
        self._promised = max(0.0, self._promised - amount) if self.promises else 0.0
        self.spent += counted or estimated
        if counted and estimated > 0:
            self._caution = max(1.0, self._caution or 0.0, counted / estimated)

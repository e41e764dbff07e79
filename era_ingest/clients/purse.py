"""Leave to spend: requests wait until it is clear that the budget allows them, or that it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from era_ingest.errors import BudgetExceededError

if TYPE_CHECKING:
    from era_ingest.core.budget import TokenBudget


class Purse:
    """Hands out a budget; a request that does not fit waits for those in flight, which may cost less.

    Args:
        budget: The bound and what is spent of it.
    """

    def __init__(self, budget: TokenBudget) -> None:
        self._budget = budget
        self._settled = asyncio.Event()

    async def take(self, estimated: float) -> float:
        """Set tokens aside for a request of so many estimated tokens (>= 0); return the amount.

        Raises:
            BudgetExceededError: It does not fit, and nothing is in flight that could turn out cheaper.
        """
        budget = self._budget
        while (amount := budget.promise(estimated)) is None:
            if not budget.promises:
                raise BudgetExceededError(
                    f"The bound of {budget.bound:,.0f} tokens a run is reached: {budget.spent:,.0f} are spent, "
                    f"and the next request takes {estimated:,.0f} to {estimated * budget.caution:,.0f} more.",
                    bound_tokens=budget.bound,
                    spent_tokens=budget.spent,
                )
            self._settled.clear()
            await self._settled.wait()
        return amount

    def settle(self, amount: float, *, estimated: float, counted: float | None = None) -> None:
        """Replace what was set aside by what the request cost; see ``TokenBudget.settle``."""
        self._budget.settle(amount, estimated=estimated, counted=counted)
        self._settled.set()

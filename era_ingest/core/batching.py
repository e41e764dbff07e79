"""Packing of items into requests by count, bytes and estimated tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one request may carry.

    Attributes:
        max_texts: Items, >= 1.
        max_bytes: Bytes of all items together, > 0.
        max_tokens: Estimated tokens of all items together, > 0.
    """

    max_texts: int
    max_bytes: float = math.inf
    max_tokens: float = math.inf


class Sized(NamedTuple, Generic[T]):
    """An item and its size.

    Attributes:
        item: What is packed.
        n_bytes: UTF-8 bytes, >= 0.
        tokens: Estimated tokens, >= 0.
    """

    item: T
    n_bytes: int
    tokens: float


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Items of one request, in the order in which they came; never empty.

    Attributes:
        items: The items with their sizes.
        n_bytes: Their bytes together.
        tokens: Their estimated tokens together.
    """

    items: tuple[Sized[T], ...]
    n_bytes: int
    tokens: float

    @classmethod
    def of(cls, items: Iterable[Sized[T]]) -> Batch[T]:
        """Return a batch of these items."""
        whole = tuple(items)
        return cls(whole, sum(item.n_bytes for item in whole), sum(item.tokens for item in whole))

    def __len__(self) -> int:
        return len(self.items)

    def halves(self) -> tuple[Batch[T], Batch[T]]:
        """Return the two halves (the first is not shorter) of a batch of at least two items."""
        middle = (len(self.items) + 1) // 2
        return Batch.of(self.items[:middle]), Batch.of(self.items[middle:])


class BatchPacker(Generic[T]):
    """Packs a stream of items greedily: a batch is closed by the item that does not fit any more.

    An item that alone exceeds a limit goes in a batch of its own: the server decides whether it is too large.

    Args:
        limits: What one request may carry; may be replaced between items.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._open: list[Sized[T]] = []
        self._n_bytes = 0
        self._tokens = 0.0

    def __len__(self) -> int:
        """Items in the open batch."""
        return len(self._open)

    def add(self, item: Sized[T]) -> tuple[Batch[T], ...]:
        """Take an item; return the batches that are full by it (at most two)."""
        limits = self.limits
        n_bytes, tokens = self._n_bytes + item.n_bytes, self._tokens + item.tokens
        before: tuple[Batch[T], ...] = ()
        if self._open and not (
            len(self._open) < limits.max_texts and n_bytes <= limits.max_bytes and tokens <= limits.max_tokens
        ):
            before = (self._close(),)
            n_bytes, tokens = item.n_bytes, item.tokens
        self._open.append(item)
        self._n_bytes, self._tokens = n_bytes, tokens
        if len(self._open) >= limits.max_texts or n_bytes >= limits.max_bytes or tokens >= limits.max_tokens:
            return (*before, self._close())
        return before

    def flush(self) -> Batch[T] | None:
        """Return what is open as a batch, or None if nothing is."""
        return self._close() if self._open else None

    def _close(self) -> Batch[T]:
        batch = Batch(tuple(self._open), self._n_bytes, self._tokens)
        self._open = []
        self._n_bytes = 0
        self._tokens = 0.0
        return batch


class LimitLearner:
    """Learns what a request may carry from batches that were refused while both their halves were taken.

    A server says that a request is too large, but seldom what would be small enough. If as many texts have
    been taken at once before, the count is not the cause, and the bound of tokens becomes half of what the
    batch held; else the bound of texts does. A wrong guess costs smaller requests, never a text. If as many
    texts and tokens have been taken before, the refusal was chance and teaches nothing; a refusal that does
    not name the size as its reason must come twice.

    Args:
        limits: What is believed at the start; only ever lowered.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._taken_texts = 0
        self._taken_tokens = 0.0
        self._doubted_texts: int | None = None

    def accepted(self, batch: Batch[T]) -> None:
        """Note a batch that the server took."""
        self._taken_texts = max(self._taken_texts, len(batch))
        self._taken_tokens = max(self._taken_tokens, batch.tokens)
        if self._doubted_texts is not None and len(batch) >= self._doubted_texts:
            self._doubted_texts = None

    def too_large(self, batch: Batch[T], *, named: bool) -> None:
        """Note a batch of at least two items that was refused although both halves were taken.

        Args:
            batch: What was refused.
            named: True if the server named the size as its reason.
        """
        count_was_taken = len(batch) <= self._taken_texts
        if count_was_taken and batch.tokens <= self._taken_tokens:
            return
        if not named and self._doubted_texts is None:
            self._doubted_texts = len(batch)
        elif count_was_taken:
            tokens = max(1.0, batch.tokens / 2)
            self.limits = replace(self.limits, max_tokens=min(self.limits.max_tokens, tokens))
        else:
            texts = (len(batch) + 1) // 2
            self.limits = replace(self.limits, max_texts=min(self.limits.max_texts, texts))


def pack_batches(items: Iterable[Sized[T]], limits: BatchLimits) -> list[Batch[T]]:
    """Group items into batches that one request may carry.

    Args:
        items: Items with their sizes, in order.
        limits: What one request may carry.

    Returns:
        Batches whose concatenation is ``items``; only a batch of one item may exceed bytes or tokens.
    """
    packer: BatchPacker[T] = BatchPacker(limits)
    batches = [batch for item in items for batch in packer.add(item)]
    last = packer.flush()
    return [*batches, last] if last else batches

"""Partitions of the graph, and how a set of books becomes the target of ONE run.

A book is a partition of ``books``, named by its slug; a domain is one of ``domains``. Keys are kept in the order
in which they were added, so that a burst of new books is a contiguous range. Other code must not assume that a
key is one book: beyond some 25,000 books a key can become a shelf of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

BOOKS = dg.DynamicPartitionsDefinition(name="books")
DOMAINS = dg.DynamicPartitionsDefinition(name="domains")

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

MAX_RANGE_KEYS = 500
"""Keys of a range that a sensor asks for, at most: Dagster writes one planned event an asset and key, 5 to 18 ms
each (measured), before such a run starts. More keys go as a list, which has none."""
MAX_LISTED_KEYS = 5_000
"""Keys that a run's config lists, at most; a run of more asks the database what there is to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one run works on; exactly one of the three says it.

    Attributes:
        tags: Run tags that name a partition or a contiguous range of them; empty otherwise.
        listed: Partition keys for the run's config, where they are no short range.
        everything: True where the run finds out by itself what is missing or stale.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    everything: bool = False


def build_target(keys: Sequence[str], wanted: Collection[str]) -> Target:
    """Return how one run can be asked for some partitions.

    Dagster groups only contiguous keys into one run, so gaps are listed in the run's config.

    Args:
        keys: All keys of the partitions definition, in its order.
        wanted: Keys to work on, not empty; those not in ``keys`` are taken as added at the end.
    """
    if not wanted:
        raise ValueError("a run needs at least one partition")
    present, asked = set(keys), dict.fromkeys(wanted)
    added = [key for key in asked if key not in present]
    ordered = [key for key in keys if key in asked] + added
    if len(ordered) <= MAX_RANGE_KEYS and _is_contiguous([*keys, *added], ordered):
        return Target(tags=range_tags(ordered[0], ordered[-1]))
    if len(ordered) <= MAX_LISTED_KEYS:
        return Target(listed=tuple(ordered))
    return Target(everything=True)


def range_tags(start: str, end: str) -> dict[str, str]:
    """Return the run tags of a partition, or of a range of partitions (both ends included)."""
    if start == end:
        return {PARTITION_TAG: start}
    return {RANGE_START_TAG: start, RANGE_END_TAG: end}


def _is_contiguous(keys: Sequence[str], ordered: Sequence[str]) -> bool:
    """Say whether ``ordered`` stands in ``keys`` without a gap."""
    first = keys.index(ordered[0])
    return list(keys[first : first + len(ordered)]) == list(ordered)


def register(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, wanted: Iterable[str]
) -> int:
    """Add the partition keys that are missing, in the order given; return how many were."""
    name = _name_of(partitions)
    present = set(instance.get_dynamic_partitions(name))
    missing = [key for key in dict.fromkeys(wanted) if key not in present]
    if missing:
        instance.add_dynamic_partitions(name, missing)
    return len(missing)


def unregister(
    instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition, gone: Iterable[str]
) -> int:
    """Delete the partition keys that are there; return how many were. Their events stay in the event log."""
    name = _name_of(partitions)
    present = set(instance.get_dynamic_partitions(name))
    deleted = [key for key in gone if key in present]
    for key in deleted:
        instance.delete_dynamic_partition(name, key)
    return len(deleted)


def keys_of(context: dg.AssetExecutionContext) -> tuple[str, ...]:
    """Return the partition keys that a run's tags name, in order; empty where they name none."""
    if context.has_partition_key or context.has_partition_key_range:
        return tuple(context.partition_keys)
    return ()


def _name_of(partitions: dg.DynamicPartitionsDefinition) -> str:
    assert partitions.name is not None
    return partitions.name

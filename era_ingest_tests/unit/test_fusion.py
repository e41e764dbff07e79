"""Rankings made one."""

from __future__ import annotations

from era_ingest.core.fusion import RANK_CONSTANT, fuse


def test_what_both_rankings_hold_comes_first() -> None:
    """Second in both beats first in one; the scores are those of the formula."""
    fused = fuse([["a", "b", "c"], ["d", "b"]])
    assert [item for item, _ in fused] == ["b", "a", "d", "c"]
    assert fused[0][1] == 2 / (RANK_CONSTANT + 2)


def test_equals_keep_the_order_of_the_first_ranking() -> None:
    """So that the same question has the same answer."""
    assert [item for item, _ in fuse([["x"], ["y"], ["z"]])] == ["x", "y", "z"]
    assert fuse([[], []]) == []

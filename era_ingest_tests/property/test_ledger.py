"""The ledger: each text is embedded once, each book becomes ready once, and nothing is kept afterwards."""

from __future__ import annotations

from random import Random  # noqa: TC003 - Hypothesis reads the annotations

from hypothesis import given
from hypothesis import strategies as st

from era_ingest.core.ledger import TextLedger

HASHES = st.integers(0, 12).map(lambda n: bytes([n]) * 32)
BOOKS = st.lists(st.lists(HASHES, max_size=8), min_size=1, max_size=6)


@given(BOOKS, st.sets(HASHES), st.sets(HASHES), st.randoms(use_true_random=False))
def test_each_text_once_each_book_once(
    books: list[list[bytes]], known: set[bytes], refused: set[bytes], rng: Random
) -> None:
    """Whatever the order in which texts settle, no text is asked for twice and every book gets ready once."""
    refused = refused - known
    ledger = TextLedger()
    ledger.begin_lookup()
    ready: list[str] = []
    ordered: list[bytes] = []
    for number, hashes in enumerate(books):
        admission = ledger.admit(str(number), hashes, known=known, refused=refused)
        ordered += admission.to_embed
        if admission.ready:
            ready.append(str(number))
    assert len(ordered) == len(set(ordered))
    assert set(ordered) == {h for book in books for h in book} - known - refused
    rng.shuffle(ordered)
    embedded = {content_hash: rng.random() < 0.8 for content_hash in ordered}
    for content_hash in ordered:
        ready += ledger.settle(content_hash, embedded=embedded[content_hash])
    assert sorted(ready) == sorted(str(number) for number in range(len(books)))
    assert ledger.in_flight == 0
    counts = [ledger.close(slug) for slug in ready]
    assert sum(count.embedded for count in counts) == sum(embedded.values())
    for slug, count in zip(ready, counts, strict=True):
        assert count.embedded + count.reused + count.refused == len(set(books[int(slug)]))


def test_a_text_that_settles_during_the_lookup_is_not_asked_for_again() -> None:
    """The store was asked before the text was committed, the answer came after: the ledger remembers."""
    ledger = TextLedger()
    ledger.begin_lookup()
    assert ledger.admit("a", [b"x"], known=(), refused=()).to_embed == (b"x",)
    ledger.begin_lookup()
    assert ledger.settle(b"x", embedded=True) == ["a"]
    admission = ledger.admit("b", [b"x"], known=(), refused=())
    assert admission.ready
    assert admission.to_embed == ()
    assert ledger.close("b").reused == 1

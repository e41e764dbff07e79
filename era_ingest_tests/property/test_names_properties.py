from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from era_ingest.core.names import (
    MAX_DOMAIN_BYTES,
    MAX_IDENTIFIER_BYTES,
    MAX_SLUG_BYTES,
    DomainName,
    DomainNames,
    book_slug,
    fold_domain,
    show_name,
)
from era_ingest.errors import ConfigurationError, InvalidNameError

NAMES = st.text(min_size=1) | st.from_regex(r"[a-z0-9_-]{1,90}", fullmatch=True)
RAW_DOMAINS = st.text(max_size=120) | st.text("ab -_./ÉßЖ心א'", max_size=200)


def _fold(text: str) -> str:
    try:
        return fold_domain(text)
    except InvalidNameError:
        assume(False)
        raise


@given(NAMES)
def test_a_slug_is_safe(name: str) -> None:
    """A slug is ASCII, short, no dot file, and no option."""
    slug = book_slug(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", slug)
    assert len(slug) <= MAX_SLUG_BYTES


@given(st.lists(NAMES, unique=True, max_size=30))
def test_two_names_never_share_a_slug(names: list[str]) -> None:
    """Different names have different slugs."""
    assert len({book_slug(name) for name in names}) == len(names)


@given(NAMES)
def test_a_slug_is_no_fixed_point_unless_it_is_the_name(name: str) -> None:
    """A book that is named like another one's slug gets a slug of its own."""
    slug = book_slug(name)
    assert slug == name or book_slug(slug) != slug


@given(st.binary(min_size=1))
def test_any_file_name_can_be_shown(raw: bytes) -> None:
    """Bytes that are no UTF-8 become valid text."""
    show_name(raw.decode("utf-8", "surrogateescape")).encode("utf-8")


@given(RAW_DOMAINS)
def test_a_folded_domain_is_its_own_fold_and_names_a_view(text: str) -> None:
    """Folding twice changes nothing; the result fits 43 bytes and a view's name."""
    domain = _fold(text)
    assert fold_domain(domain) == domain
    assert len(domain.encode()) <= MAX_DOMAIN_BYTES
    assert len(DomainName(domain).view.value) <= MAX_IDENTIFIER_BYTES


@given(st.text())
def test_folding_refuses_with_one_kind_of_error(text: str) -> None:
    """Any text is folded or refused for a known reason, nothing else."""
    reason = "none"
    try:
        fold_domain(text)
    except InvalidNameError as error:
        reason = error.reason
    assert reason in {"none", "empty", "reserved", "path", "too_long"}


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("abcd")), st.sampled_from("abcd"))
def test_aliases_lead_to_an_end(aliases: dict[str, str], domain: str) -> None:
    """What an alias leads to is led no further; circles are refused."""
    try:
        names = DomainNames.from_aliases(aliases)
    except ConfigurationError:
        return
    once = names.normalise(domain)
    assert names.normalise(once) == once

from __future__ import annotations

import os

import pytest

from era_ingest.core.names import DomainName, DomainNames, Identifier, book_slug, fold_domain, show_name
from era_ingest.errors import ConfigurationError, InvalidNameError


@pytest.mark.parametrize("name", ["crime", "a", "4-hour_week", "x" * 80])
def test_a_slug_that_is_one_already_stays(name: str) -> None:
    """A safe name is its own slug."""
    assert book_slug(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "Crime",
        "crime ",
        "-rf",
        "_x",
        "con",
        "x" * 81,
        "thus-spoke-0a1b2c3d",
        "../../x",
        "..",
        "’",
        "本",
        "a\nb",
    ],
)
def test_any_other_name_gets_a_hash(name: str) -> None:
    """A name that is unsafe, too long, or looks like a slug with a hash gets a suffix of its own."""
    slug = book_slug(name)
    assert slug != name
    assert slug[-9] == "-"
    assert len(slug) <= 80


def test_names_that_fold_alike_have_different_slugs() -> None:
    """Spelling decides: no two of these books share a partition."""
    names = ["Thus spoke", "thus spoke", "thus-spoke", "Thus_Spoke", "thus  spoke", "Thus spoké"]
    assert len({book_slug(name) for name in names}) == len(names)


def test_a_book_without_a_name_is_refused() -> None:
    """There is no slug of nothing."""
    with pytest.raises(InvalidNameError) as caught:
        book_slug("")
    assert caught.value.reason == "empty"


def test_undecodable_bytes_are_shown() -> None:
    r"""A file name in Latin-1 becomes text with ``\xNN``."""
    assert show_name(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert show_name("café") == "café"


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Decision Making", "decision_making"),
        ("decision-making", "decision_making"),
        (" decision_making ", "decision_making"),
        ("Leadership & Strategy", "leadership_strategy"),
        ("Morality/Ethics", "morality_ethics"),
        ("Interpersonal Dynamics𝐍", "interpersonal_dynamicsn"),
        (" אחיות Justice", "hyvt_justice"),
        ("Психология", "psikhologiya"),
        ("心理学", "xinlixue"),
        ("People's Courage", "peoples_courage"),
        ("...", ""),
        ("", ""),
        ("\u0301", ""),
    ],
)
def test_domains_are_folded(text: str, domain: str) -> None:
    """Spellings of one subject are one domain; other scripts are transliterated; nothing left is refused."""
    if domain:
        assert fold_domain(text) == domain
    else:
        with pytest.raises(InvalidNameError) as caught:
            fold_domain(text)
        assert caught.value.reason == "empty"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("all", "reserved"),
        ("ALL ", "reserved"),
        ("../../x", "path"),
        ("..\\x", "path"),
        ("x" * 5000, "too_long"),
    ],
)
def test_domains_that_cannot_be_are_refused(text: str, reason: str) -> None:
    """The reserved name, paths, and texts that are no names."""
    with pytest.raises(InvalidNameError) as caught:
        fold_domain(text)
    assert caught.value.reason == reason
    assert len(caught.value.message) < 200


def test_a_long_domain_is_cut_and_told_apart() -> None:
    """500 characters become 43 bytes; another ending is another domain."""
    first, second = fold_domain("virtue " * 70 + "one"), fold_domain("virtue " * 70 + "two")
    assert len(first) <= 43
    assert first != second
    assert first.startswith("virtue_virtue_")


def test_aliases_fold_synonyms_and_chains() -> None:
    """Synonyms are written as people write; a chain leads to its end; a reserved name may be led away."""
    names = DomainNames.from_aliases(
        {"Psych": "psychology", "Seelenkunde": "psych", "All": "base", "same": "same"}
    )
    assert names.normalise("PSYCH") == names.normalise("Seelenkunde") == "psychology"
    assert names.normalise("all") == "base"
    assert names.normalise("same") == "same"
    assert names.normalise("other") == "other"
    with pytest.raises(InvalidNameError):
        names.normalise("..")


@pytest.mark.parametrize("aliases", [{"a": "b", "b": "a"}, {"a": "all"}, {"": "a"}])
def test_aliases_that_cannot_be_are_a_setting_to_mend(aliases: dict[str, str]) -> None:
    """A circle, a reserved target, an empty synonym."""
    with pytest.raises(ConfigurationError, match="ERA_DOMAIN_ALIASES"):
        DomainNames.from_aliases(aliases)


@pytest.mark.parametrize("value", ["", "1a", "a b", 'a"b', "A", "a\0", "a" * 64, "a;drop", "é"])
def test_identifiers_are_checked(value: str) -> None:
    """What cannot stand in SQL as itself is no identifier."""
    with pytest.raises(InvalidNameError):
        Identifier(value)


@pytest.mark.parametrize("value", ["", "all", "A", "a__b", "_a", "a_", "a-b", "a" * 44])
def test_only_folded_domains_name_views(value: str) -> None:
    """A domain that was not folded names nothing."""
    with pytest.raises(InvalidNameError):
        DomainName(value)
    assert str(DomainName("a" * 43).view) == "doctrine_embeddings_" + "a" * 43

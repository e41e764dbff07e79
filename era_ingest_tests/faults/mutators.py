"""Ways in which doctrine goes wrong: of an entry, of a chapter, of a document, of the file's bytes.

Each takes a sample apart and says what of it may be lost by that: all other statements must be loaded.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import era_ingest
from era_ingest.core.model import DOCTRINE_CATEGORIES

if TYPE_CHECKING:
    import random

LISTS = tuple(category.plural for category in DOCTRINE_CATEGORIES)
SAMPLES = Path(era_ingest.__file__).parent / "samples"
CORPUS = Path(os.environ.get("ERA_CORPUS_DIR") or Path(__file__).parents[3] / "shared" / "corpus")
"""Real books, where there are some; the tests do without them too."""


@dataclass
class Case:
    """A book on its way into the landing folder.

    Attributes:
        chapters: Its doctrine, as JSON values.
        texts: Its chapters' texts, likewise; None: it has no such file.
        raw: The doctrine file's bytes, where a mutator works on them.
        whole: Whether it is written as one file with an object on top.
        original: Statements that stood in it before it went wrong.
        harmed: Those of them that may be lost.
        all_harmed: Whether any may be.
    """

    chapters: list[Any]
    texts: list[Any] | None = None
    raw: bytes | None = None
    whole: bool = False
    original: set[str] = field(default_factory=set)
    harmed: set[str] = field(default_factory=set)
    all_harmed: bool = False

    @property
    def data(self) -> bytes:
        """The doctrine file's bytes."""
        if self.raw is None:
            document: Any = {"title": "T", "chapters": self.chapters} if self.whole else self.chapters
            self.raw = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return self.raw

    def write(self, landing: Path, name: str) -> Path:
        """Put it into a landing folder; return its path there."""
        if self.whole:
            path = landing / f"{name}.json"
            path.write_bytes(self.data)
            return path
        folder = landing / name
        folder.mkdir()
        (folder / "02_doctrine.json").write_bytes(self.data)
        if self.texts is not None:
            (folder / "01_chapters.json").write_text(json.dumps(self.texts), encoding="utf-8")
        return folder


def read_samples() -> list[Case]:
    """Return the shipped books with doctrine, and the real ones where there are some, those twice as rare."""
    folders = [path.parent for path in sorted(SAMPLES.glob("*/02_doctrine.json"))]
    cases = [_read_folder(folder) for folder in folders]
    files = sorted(SAMPLES.glob("*.json"))
    cases += [Case(json.loads(file.read_bytes())["chapters"], whole=True) for file in files]
    real = [_read_folder(path.parent) for path in sorted(CORPUS.glob("*/02_doctrine.json"))]
    return cases * (2 * max(1, len(real) // len(cases))) + real


def _read_folder(folder: Path) -> Case:
    texts = folder / "01_chapters.json"
    loaded = json.loads(texts.read_bytes()) if texts.stat().st_size < 500_000 else None
    return Case(json.loads((folder / "02_doctrine.json").read_bytes()), loaded)


def statements(value: object) -> set[str]:
    """Return the statements of a chapter, or of a list of chapters, that a reader must find."""
    if isinstance(value, list):
        return set().union(*map(statements, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    lists = [value[name] for name in LISTS if isinstance(value.get(name), list)]
    return {item for items in lists for item in items if isinstance(item, str) and item.strip()}


Mutator = Callable[["random.Random", Case], None]


def _chapter(rng: random.Random, case: Case) -> dict[str, Any]:
    """Return a chapter with entries, if there is one."""
    full = [one for one in case.chapters if isinstance(one, dict) and statements(one)]
    chapter: dict[str, Any] = rng.choice(
        full or [one for one in case.chapters if isinstance(one, dict)] or [{}]
    )
    return chapter


def _replace_item(value: Any) -> Mutator:
    """Put something in an entry's place."""

    def mutate(rng: random.Random, case: Case) -> None:
        chapter = _chapter(rng, case)
        lists = [name for name in LISTS if isinstance(chapter.get(name), list) and chapter[name]]
        if not lists:
            return
        items = chapter[rng.choice(lists)]
        place = rng.randrange(len(items))
        if isinstance(items[place], str):
            case.harmed.add(items[place])
        items[place] = copy.deepcopy(value)

    return mutate


def _set_member(key: str, value: Any, *, harms: bool = False, harms_all: bool = False) -> Mutator:
    """Give a chapter's member another value.

    Args:
        key: Of the member.
        value: The value.
        harms: The chapter may be lost.
        harms_all: Another one may be lost, whose index it takes.
    """

    def mutate(rng: random.Random, case: Case) -> None:
        chapter = _chapter(rng, case)
        case.all_harmed = case.all_harmed or harms_all
        if harms or key in LISTS:
            case.harmed |= statements(chapter)
        chapter[key] = copy.deepcopy(value)

    return mutate


def _replace_chapter(value: Any) -> Mutator:
    def mutate(rng: random.Random, case: Case) -> None:
        place = rng.randrange(len(case.chapters)) if case.chapters else 0
        case.harmed |= statements(case.chapters[place : place + 1])
        case.all_harmed = case.all_harmed or value == {}  # it takes the index of another
        case.chapters[place : place + 1] = [copy.deepcopy(value)]

    return mutate


def _mutate_bytes(change: Callable[[random.Random, bytes], bytes], *, harms: bool = True) -> Mutator:
    def mutate(rng: random.Random, case: Case) -> None:
        case.all_harmed = case.all_harmed or harms
        case.raw = change(rng, case.data)

    return mutate


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _drop(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 50) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return (
        data[:at]
        + rng.choice([b"\0", b'"', b"\\", b"{", b"]", b"\xff", b"//", b",", b"\xed\xa0\x80"])
        + data[at:]
    )


def _shuffle(rng: random.Random, case: Case) -> None:
    rng.shuffle(case.chapters)


def _double_chapter(rng: random.Random, case: Case) -> None:
    case.chapters.append(copy.deepcopy(_chapter(rng, case)))


def _no_text_beside(_: random.Random, case: Case) -> None:
    case.texts = None


def _other_texts(rng: random.Random, case: Case) -> None:
    case.texts = [{"chapter_index": rng.randrange(10**6), "raw_text": "Text of nobody."} for _ in range(5)]


def _broken_texts(_: random.Random, case: Case) -> None:
    case.texts = [
        None,
        3,
        {"chapter_index": "x"},
        {"raw_text": 7},
        [],
        {"chapter_index": 1, "raw_text": "\0 "},
    ]


def _many_keys(rng: random.Random, case: Case) -> None:
    _chapter(rng, case).update({f"key {number}": {"a": [number]} for number in range(1000)})


def _one_file(_: random.Random, case: Case) -> None:
    case.whole = True
    case.texts = None


DEEP: Any = "bottom"
for _level in range(400):
    DEEP = [DEEP] if _level % 2 else {"d": DEEP}

MUTATORS: dict[str, Mutator] = {
    "item null": _replace_item(None),
    "item number": _replace_item(7),
    "item true": _replace_item(True),
    "item not a number": _replace_item(float("nan")),
    "item list": _replace_item(["a", "b"]),
    "item empty object": _replace_item({}),
    "item object with unknown keys": _replace_item({"body": "text", "kind": 3}),
    "item object with a statement": _replace_item({"statement": "A statement in an object.", "weight": 0.5}),
    "item object with a bad weight": _replace_item({"text": "A weighty statement.", "weight": -1e999}),
    "item object of nothing but blanks": _replace_item({"text": " ", "rule": "\t"}),
    "item deep": _replace_item(DEEP),
    "item empty": _replace_item(""),
    "item blank": _replace_item(" \n\u200b\ufeff"),
    "item NUL": _replace_item("\0\0"),
    "item lone surrogate": _replace_item("half a \ud83d pair"),
    "item controls": _replace_item("a\x01b\x1bc\u202egnp.exe"),
    "item far too long": _replace_item("long " * 10_000),
    "item of marks": _replace_item("e" + "\u0301" * 5_000),
    "item numeric text": _replace_item("1e999"),
    "title number": _set_member("chapter_title", 3),
    "title too long": _set_member("chapter_title", "t" * 5_000),
    "index missing": _set_member("chapter_index", None, harms_all=True),
    "index negative": _set_member("chapter_index", -1, harms=True),
    "index text": _set_member("chapter_index", " 7", harms_all=True),
    "index huge": _set_member("chapter_index", 10**30, harms=True),
    "index float": _set_member("chapter_index", 1.5, harms=True),
    "index true": _set_member("chapter_index", True, harms=True),
    "domains null": _set_member("domains", None),
    "domains text": _set_member("domains", "Risk and Chance"),
    "domains object": _set_member("domains", {"name": "risk"}),
    "domains of anything": _set_member(
        "domains", [None, 3, "{'name': 'risk'}", "../../etc", "all", "", ["x"]]
    ),
    "domains of other scripts": _set_member("domains", [" אחיות Justice", "倫理", "Этика", "é" * 200]),
    "domains by the hundred": _set_member("domains", [f"domain {number}" for number in range(400)]),
    "domains of SQL": _set_member("domains", ["x'; drop table era.models; --", 'a"b', "a\0b"]),
    "category null": _set_member("rules", None),
    "category text": _set_member("rules", "One rule as a text."),
    "category object": _set_member("claims", {"1": "a claim"}),
    "category number": _set_member("warnings", 5),
    "category of lists": _set_member("principles", [[["a"]], [[]]]),
    "text number": _set_member("raw_text", 4),
    "text blank": _set_member("raw_text", "\n\n"),
    "keys by the thousand": _many_keys,
    "chapter null": _replace_chapter(None),
    "chapter text": _replace_chapter("a chapter"),
    "chapter list": _replace_chapter([1, 2]),
    "chapter empty": _replace_chapter({}),
    "chapter deep": _replace_chapter(DEEP),
    "chapters shuffled": _shuffle,
    "chapter twice": _double_chapter,
    "texts missing": _no_text_beside,
    "texts of others": _other_texts,
    "texts broken": _broken_texts,
    "one file": _one_file,
    "file cut": _mutate_bytes(_cut),
    "file empty": _mutate_bytes(lambda _, __: b""),
    "file of zeros": _mutate_bytes(lambda _, data: bytes(len(data))),
    "file with flipped bits": _mutate_bytes(_flip),
    "file with a hole": _mutate_bytes(_drop),
    "file with something in it": _mutate_bytes(_insert),
    "file twice": _mutate_bytes(lambda _, data: data + b"\n" + data),
    "file and more": _mutate_bytes(lambda _, data: data + b" and more"),
    "file with a mark": _mutate_bytes(lambda _, data: b"\xef\xbb\xbf" + data, harms=False),
    "file with blanks around": _mutate_bytes(lambda _, data: b" \r\n\t" + data + b"\n\n", harms=False),
    "file packed": _mutate_bytes(lambda _, data: gzip.compress(data)),
    "file of another encoding": _mutate_bytes(
        lambda _, data: data.decode("utf-8", "replace").encode("utf-16"), harms=False
    ),
    "file in Latin-1": _mutate_bytes(lambda _, data: b'["caf\xe9"]' + data),
    "file deep": _mutate_bytes(lambda _, data: b"[" * 50_000 + data),
    "file with comments": _mutate_bytes(lambda _, data: b"// doctrine\n" + data),
    "file with single quotes": _mutate_bytes(lambda _, data: data.replace(b'"', b"'")),
    "file with a last comma": _mutate_bytes(lambda _, data: data[:-1] + b"," + data[-1:]),
    "file of an object": _mutate_bytes(lambda _, data: b'{"books": ' + data + b"}"),
    "file of chapters in an object": _mutate_bytes(lambda _, __: b'{"chapters": {"1": {"rules": ["a"]}}}'),
    "file with a key twice": _mutate_bytes(lambda _, data: b'{"chapters": [], "chapters": ' + data + b"}"),
    "file of a scalar": _mutate_bytes(lambda _, __: b"1e999"),
    "file of a page": _mutate_bytes(lambda _, __: b"<html><body>It works!</body></html>"),
    "file with a long number": _mutate_bytes(lambda _, data: b"[" + b"9" * 50_000 + b", " + data[1:]),
}


def mutate(rng: random.Random, samples: list[Case], name: str) -> Case:
    """Return a sample that went wrong in one way, or in up to three."""
    case = copy.deepcopy(rng.choice(samples))
    case.original = statements(case.chapters)
    others = [one for one in MUTATORS if not one.startswith("file")]
    for one in (*rng.sample(others, rng.choice([0, 0, 1, 2])), name):
        MUTATORS[one](rng, case)
    return case

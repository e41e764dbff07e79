"""A reader of minister files, as personas are: reads them over and over and notes what it must never see.

``python minister_reader.py FOLDER`` reads until standard input ends, then prints one JSON object. Every entry's text
ends in the version of its book, so that a file that mixes two versions shows it. Standard library only.
"""

from __future__ import annotations

import json
import select
import sys
from collections import Counter
from pathlib import Path

LISTS = ("principles", "rules", "claims", "warnings")


def versions_of(entries: list[dict[str, str]]) -> set[str]:
    """Return the versions that a list of entries tells of."""
    return {entry["text"].rsplit(" ", 1)[-1] for entry in entries}


def look(folder: Path, seen: Counter[str]) -> None:
    """Read every file of every domain once."""
    for path in folder.glob("*/*.json"):
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            seen["missing"] += 1
            continue
        except ValueError:
            seen["unparsable"] += 1
            continue
        seen["reads"] += 1
        if path.name == "doctrine.json":
            found = set().union(*(versions_of(document[name]) for name in LISTS))
        else:
            found = versions_of(document["entries"])
            seen["wrong totals"] += document["meta"]["total_entries"] != len(document["entries"])
        seen["half new"] += len(found) > 1
        seen["empty"] += not found


def main() -> None:
    """Read until told to stop."""
    seen: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        look(Path(sys.argv[1]), seen)
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()

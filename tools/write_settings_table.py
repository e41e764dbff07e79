"""Write the README's table of settings from the settings themselves; the test suite holds them together."""

from __future__ import annotations

import re
from pathlib import Path

from era_ingest.settings import describe_settings

MARK = "<!-- settings: written by tools/write_settings_table.py, held by a test -->"


def build_table() -> str:
    """Return the table as Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for row in describe_settings():
        meaning = row.description.replace("|", "\\|")
        lines.append(f"| `{row.name}` | `{row.default}` | {meaning} |")
    return "\n".join(lines)


def write_table(readme: Path) -> None:
    """Put the table behind its mark, in the place of the old one."""
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(MARK) + r"\n(?:\n\|[^\n]*(?:\n\|[^\n]*)*\n)?")
    readme.write_text(pattern.sub(lambda _: f"{MARK}\n\n{build_table()}\n", text), encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(__file__).parent.parent / "README.md")
    print("README.md: settings written")

"""README and docs: what they link to in the project is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "tools").rglob("README.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Pages, folders and pictures; addresses of other sites are not asked for."""
    links = re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', page.read_text(encoding="utf-8"))
    targets = {(link or source).partition("#")[0] for link, source in links}
    inside = {target for target in targets if target and not target.startswith(("http:", "https:"))}
    assert not [target for target in inside if not (page.parent / target).exists()]


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme]

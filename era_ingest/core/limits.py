"""Bounds of what one book may hold: beyond them input is refused, not cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Bounds of one book; what is over one becomes a defect, or refuses the file where it says so.

    Attributes:
        max_entry_chars: Characters of one doctrine entry. Far above what any embedding model reads.
        max_title_chars: Characters of a title.
        max_chapter_chars: Characters of one chapter's text; the largest novels have 3 million in all.
        max_entries: Entries of one category of one chapter; real ones have some tens.
        max_domains: Domains of one chapter.
        max_headings: Headings of one Markdown file or plain text; more refuse it.
        max_values: Arrays, objects and members of objects in one JSON file; more refuse it. It holds the memory of
            what is nested so deep that it is decoded at once, and the time for what is no book.
        max_defects: Defects listed for one book; the last one says how many more there were.
    """

    max_entry_chars: int = 32_768
    max_title_chars: int = 2_048
    max_chapter_chars: int = 16_777_216
    max_entries: int = 50_000
    max_domains: int = 256
    max_headings: int = 50_000
    max_values: int = 4_000_000
    max_defects: int = 10_000

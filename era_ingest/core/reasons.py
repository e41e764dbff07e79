"""What the reason codes of the quarantine mean, and what a person can do: one sentence each."""

from __future__ import annotations

_MEND = "Mend the file; the next ingestion takes it up by itself."
_SERVER = "Look at what the server said; once it takes the text, `era quarantine retry`."

REASONS = {
    # a folder or file that is no book
    "no_doctrine": "The folder has no 02_doctrine.json: it is no book, or has not arrived whole yet.",
    "vanished": "The file was listed and then gone; it is looked for again at the next ingestion.",
    "not_a_file": "A pipe, a socket or a folder stands where a file should: remove it.",
    "link_leaves_root": "A link leads out of the landing folder, which nothing may: copy the book there.",
    "broken_link": "A link leads nowhere or in a circle: mend or remove it.",
    "unreadable": "The file may not be read: mend its permissions. What was loaded of it before stays.",
    "name_clash": "Two books have the same name: rename one of them.",
    # a file as a whole
    "too_large": "The file is larger than ERA_MAX_FILE_BYTES, or than the memory: split it, or raise the limit.",
    "growing": "The file changed while it was read; it is taken up once it is still.",
    "empty": "The file holds nothing; it may still be on its way.",
    "not_unicode": f"The file is no UTF-8 (nor marked UTF-16 or UTF-32): save it as UTF-8. {_MEND}",
    "not_json": f"The file is no JSON; the detail names line and column. {_MEND}",
    "truncated": "The file ends in the middle: it was cut, or is still being written. Copy it again.",
    "trailing_data": f"Something follows the end of the JSON: keep one document a file. {_MEND}",
    "too_deep": "The JSON is nested deeper than any book: it is something else.",
    "too_many_values": "The file has more lists and members than any book: split it.",
    "too_many_headings": "The text has more headings than any book: split it.",
    "wrong_top_level": "The JSON is neither a list of chapters nor an object that has one: it is something else.",
    "no_chapters": 'The object has no "chapters": it is something else.',
    "chapters_not_list": '"chapters" is no list.',
    "no_reader": "The format needs a reader that is not installed: install its package.",
    "reader_failed": "The reader raised an error: mend the file, or report the reader's bug.",
    "reader_died": "The process that read the file ended, mostly for lack of memory: split the file.",
    "reader_timeout": "Reading took too long: split the file.",
    # a part of a document, whose neighbours are loaded
    "chapter_not_object": "A chapter is not an object; it was left out.",
    "duplicate_chapter": "Two chapters have the same index; the first one counts.",
    "bad_chapter_index": "A chapter's index is no whole number from 0; the chapter was left out.",
    "chapter_without_text": "The chapter has doctrine, but no text in the file of texts. Its doctrine is loaded.",
    "chapter_without_doctrine": "The chapter has text, but no doctrine. Its text is loaded.",
    "bad_title": "A title is no text, or too long; it was left out.",
    "text_not_string": "A chapter's text is no string; it was left out.",
    "text_too_long": "A text is longer than any embedding model reads; it was left out: split it.",
    "domains_not_list": "The domains are no list of names; the chapter went to `base`.",
    "too_many_domains": "The chapter has more domains than make sense; the first ones count.",
    "domain_not_text": "A domain is no name; it was left out.",
    "domain_empty": "Nothing is left of a domain's name after folding; it was left out.",
    "domain_reserved": "The domain's name is reserved: name it otherwise, or alias it in ERA_DOMAIN_ALIASES.",
    "domain_path": "The domain is a path, not a name; it was left out.",
    "domain_too_long": "The domain is a text that lost its way; it was left out.",
    "category_not_list": "Principles, rules, claims or warnings are no list; they were left out.",
    "too_many_entries": "The list has more entries than a chapter can mean; the first ones count.",
    "unknown_item_shape": "An entry is neither a text nor an object with one under a known key; it was left out.",
    "empty_text": "Nothing is left of an entry after cleaning; it was left out.",
    "bad_weight": "A weight is no number above 0; 1 was used.",
    "duplicate_key": "An object has a key twice; the last one counts.",
    "too_many_defects": "The file has more defects than are listed: mend the first ones.",
    # a text that the embedder refuses
    "RequestRejectedError": f"The embedding server refuses this text; its book is loaded without it. {_SERVER}",
    "RequestTooLargeError": f"The embedding server finds this text too large. {_SERVER}",
    "ResponseMismatchError": f"The server answers this text with no usable vector (zero, NaN, wrong). {_SERVER}",
    "UpstreamUnavailableError": f"The server fails on this text, and on this text only. {_SERVER}",
    "UpstreamTimeoutError": f"The server gives no answer to this text in time. {_SERVER}",
}


def explain_reason(reason: str) -> str:
    """Return what a reason code means; a sentence that says so for one of another version."""
    return REASONS.get(reason, "This version does not know the reason; the detail says more.")

"""How counts, names and tables are written for people."""

TEXT_COLUMNS = 80
"""Widest line of a table: what the narrowest common terminal shows without wrapping."""


def plural(count: int, noun: str, several: str = "") -> str:
    """A count with its noun, which ends in -s unless `several` is its plural.

    >>> plural(1, "window"), plural(1200, "window"), plural(2, "query", "queries")
    ('1 window', '1,200 windows', '2 queries')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def elide(text: str, width: int) -> str:
    """Shorten a text to `width` characters, with … in the place of its middle.

    >>> elide("southport/database/6LFUSp1SOI2HpjvFMeiHj7", 24)
    'southport/da…HpjvFMeiHj7'
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"

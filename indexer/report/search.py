"""The page of a search: each query's frames above its nearest places, in one offline HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.report.html import render
from seqdata.storage.files import write_bytes_atomic


@dataclass(frozen=True)
class SearchStrip:
    """A row of pictures (data URIs, see `indexer.report.pictures`), what it is called and what is said of it."""

    title: str
    caption: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class SearchPanel:
    """A query and its nearest places, nearest first."""

    query: SearchStrip
    places: tuple[SearchStrip, ...]


def write_search(out: Path, *, title: str, note: str, panels: Sequence[SearchPanel]) -> Path:
    """Write the page and return its path. Names are escaped, nothing is loaded.

    Raises:
        OutputError: When it cannot be written.
    """
    write_bytes_atomic(out, render("search", title=title, note=note, panels=panels).encode())
    return out

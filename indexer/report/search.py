"""The page of a search: each query's frames above the places that were found, in one offline HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.report.html import environment
from seqdata.storage.files import write_bytes_atomic

TEMPLATES = Path(__file__).parent / "templates"


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
    """Write the page; returns its path. Names are escaped, nothing is loaded. Raises: OutputError."""
    page = environment(TEMPLATES).get_template("search.html.j2").render(title=title, note=note, panels=panels)
    write_bytes_atomic(out, page.encode())
    return out

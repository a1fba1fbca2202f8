"""What every page shares: the registry of pages, the base template with its style, and offline, escaped rendering.

A new page is one template in `templates/`, one entry in `PAGES`, and the module that makes its values.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """A kind of page.

    Args:
        template: File in `templates/`, which extends `base.html.j2`.
        module: The module that makes the template's values.
        shows: What a reader sees.
    """

    template: str
    module: str
    shows: str


PAGES = {
    "report": Page(
        "report.html.j2", "indexer.report.report", "recall of an index: tables, curves, maps of hits, filmstrips"
    ),
    "preview": Page(
        "preview.html.j2", "indexer.report.preview.page", "a dataset: pictures, maps, histograms, counts, quarantine"
    ),
    "search": Page("search.html.j2", "indexer.report.search", "queries above the places that were found"),
    "track": Page(
        "track.html.j2", "indexer.report.track", "a localized recording: map, timeline, frames beside their places"
    ),
    "experiment": Page(
        "experiment.html.j2", "train.experiments.table.page", "the table of an experiment, with its figure"
    ),
    "ledger": Page(
        "ledger.html.j2", "train.experiments.ledger.files", "each cell of an experiment beside the paper's value"
    ),
}
"""Pages by name, of every floor."""


@dataclass(frozen=True)
class Script:
    """A script of ours inside a page: its text, and the hash by which the page's content policy lets it alone run."""

    text: Markup
    digest: str


@cache
def read_script(name: str) -> Script:
    """Read a script of `templates/`. A name with markup could add another to the page, which the policy stops."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")  # noqa: S704 - a file of this package


@cache
def environment() -> jinja2.Environment:
    """The environment of all templates: every value is escaped, an unknown name is an error."""
    # Names of frames, drives and runs come from outside: each is escaped, and a misspelt value ends the rendering.
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["read_script"] = read_script
    return made


def render(page: str, **values: Any) -> str:
    """Render the page of a name with its template's values, as one offline HTML text."""
    return environment().get_template(PAGES[page].template).render(**values)

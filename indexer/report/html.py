"""What every page shares: the registry of pages, the base template with its style, and offline, escaped rendering.

A new page is one template in `templates/`, one entry in `PAGES`, and the module that makes its values.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

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
}
"""Pages by name, of every floor."""


@cache
def environment() -> jinja2.Environment:
    """The environment of all templates: every value is escaped, an unknown name is an error."""
    # Names of frames, drives and runs come from outside: each is escaped, and a misspelt value ends the rendering.
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(page: str, **values: Any) -> str:
    """Render the page of a name with its template's values, as one offline HTML text."""
    return environment().get_template(PAGES[page].template).render(**values)

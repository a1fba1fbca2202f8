"""The retrieval report: recall table and curve, map of hits and misses, filmstrips, provenance, in one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.evaluation.recall import Evaluation
from indexer.evaluation.text_tables import chances, group_by_protocol, remarks
from indexer.report.curve import Curve, make_curve
from indexer.report.html import render
from indexer.report.leakage import leakage_block
from indexer.report.maps import make_maps
from indexer.report.pictures import strip_uris
from indexer.report.scene import Filmstrip, ReportScene, Strip
from seqdata.errors import ContractError
from seqdata.parallel.steps import step
from seqdata.storage.files import write_bytes_atomic

WORDS = {"hit": "hit", "near": "near miss", "miss": "miss", "left-out": "no positive"}


@dataclass(frozen=True)
class _Row:
    """A strip of pictures as the template reads it."""

    title: str
    caption: str
    status: str
    pictures: list[str]


@dataclass(frozen=True)
class _Group:
    """Evaluations that may stand in one table, with their curve."""

    label: str
    conditions: str
    columns: list[int]
    evaluations: list[Evaluation]
    notes: list[str]
    chances: list[tuple[str, dict[int, float]]]
    remarks: list[str]
    curve: Curve


@step("write the page")
def write_report(out: str | Path, *, evaluations: Sequence[Evaluation], scene: ReportScene) -> Path:
    """Write the report as one offline HTML file and return its path.

    Evaluations of different protocols, or of other conditions, get tables and charts of their own. All names are
    escaped; the content policy forbids every load but the page's own pictures, and every script but its own.

    Args:
        out: The file.
        evaluations: What the tables and curves show, at least one.
        scene: What the maps and filmstrips show.

    Raises:
        ContractError: Without an evaluation.
        OutputError: If the file cannot be written.
    """
    write_bytes_atomic(out, render_report(evaluations, scene).encode())
    return Path(out)


def render_report(evaluations: Sequence[Evaluation], scene: ReportScene) -> str:
    """Render the report as HTML.

    Raises:
        ContractError: Without an evaluation.
    """
    if not evaluations:
        raise ContractError("a report needs at least one evaluation: run seqdata eval first")
    return render(
        "report",
        scene=scene,
        groups=[_group(group) for group in group_by_protocol(evaluations)],
        maps=make_maps(scene),
        cities=len({str(city) for city in scene.query_city}),
        filmstrips=[_rows(filmstrip) for filmstrip in scene.filmstrips],
        words=WORDS,
        leakage=None if scene.leakage is None else leakage_block(scene.leakage),
    )


def _group(evaluations: list[Evaluation]) -> _Group:
    # Two methods of one name share their note here; the table above gives them different names.
    methods = {evaluation.method: evaluation.interval_method for evaluation in evaluations}
    texts = list(dict.fromkeys(methods.values()))
    # One method of intervals for all is printed once, without the names.
    notes = texts if len(texts) == 1 else [f"{name}: {text}" for name, text in methods.items()]
    return _Group(
        label=evaluations[0].heading,
        conditions=evaluations[0].conditions,
        columns=sorted({n for evaluation in evaluations for n in evaluation.recall}),
        evaluations=evaluations,
        notes=notes,
        chances=chances(evaluations),
        remarks=remarks(evaluations),
        curve=make_curve(evaluations),
    )


def _rows(filmstrip: Filmstrip) -> list[_Row]:
    return [_row(strip) for strip in (filmstrip.query, *filmstrip.matches)]


def _row(strip: Strip) -> _Row:
    return _Row(strip.title, strip.caption, strip.status or "query", strip_uris(strip.frames))

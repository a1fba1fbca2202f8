"""`seqdata report`: one offline page for an index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import DatasetFlag, IndexArgument, RunFlag
from cli.output import ConfigFlag, JsonFlag, emit

if TYPE_CHECKING:
    from indexer.evaluation.recall import Evaluation


def report(
    index: IndexArgument = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another index or baseline folder whose recall stands beside; may repeat.", show_default=False
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file to write.", show_default=False)] = None,
    dataset: DatasetFlag = None,
    run: RunFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Write a self-contained HTML page about an index.

    It shows recall tables and curves, a map of hits and misses, and filmstrips of queries.
    """
    from cli.config import load
    from cli.lookup import find_dataset, find_run, open_index
    from indexer.report.report import write_report
    from train.runs.record import run_record
    from train.stages.report import index_scene

    place = load(config)
    opened = open_index(place, index)
    folder = find_run(place, run, opened)
    source = find_dataset(place, dataset, opened.manifest.inputs["dataset"], run_record(folder)["dataset_path"])
    scene, own = index_scene(source, opened, folder)
    path = out or place.out / "reports" / f"{folder.resolve().name}-{opened.id}.html"
    write_report(path, evaluations=[*own, *_compared(compare or [])], scene=scene)
    emit({"path": str(path)}, str(path), as_json=as_json)


def _compared(folders: list[Path]) -> "list[Evaluation]":
    """Evaluations of other indexes and baselines. Raises: InputError when a folder holds none."""
    import indexer
    from indexer.evaluation.scoring import read_recorded
    from seqdata.errors import InputError

    found = []
    for folder in folders:
        recorded = read_recorded(indexer.open(folder).path if (folder / "latest").is_file() else folder)
        if not recorded:
            raise InputError(f"{folder}: no evaluations there; run seqdata eval or seqdata baseline first")
        found += recorded
    return found

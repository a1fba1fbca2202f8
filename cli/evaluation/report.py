"""`seqdata report`: one offline page about an index."""

from pathlib import Path
from typing import Annotated

import typer

import indexer
from cli.config import load
from cli.flags import DatasetFlag, IndexArgument, IndexOption, RunFlag, either
from cli.lookup import find_dataset, find_protocol, find_run, open_index
from cli.output import ConfigFlag, JsonFlag, emit
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.scoring import read_recorded
from indexer.report.index_scene import index_scene
from indexer.report.report import write_report
from seqdata.errors import InputError
from train.runs.record import predictions_path, run_record


def report(
    index: IndexArgument = None,
    index_flag: IndexOption = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another index or a baseline whose recall is shown too; may repeat.", show_default=False
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
    index = either(index, index_flag, "--index")
    work = load(config)
    place_index = open_index(work, index)
    folder = find_run(work, run, place_index)
    hint = run_record(folder)["dataset_path"]
    source = find_dataset(work, dataset, place_index.manifest.inputs["dataset"], hint)
    # The protocol of the index, not of a flag: the page shows the windows that were indexed.
    protocol, run_name = find_protocol(None, place_index, source), folder.resolve().name
    answers = predictions_path(folder, place_index, protocol)
    scene, evaluations = index_scene(source, place_index, protocol, answers, run_name)
    path = out or work.out / "reports" / f"{run_name}-{place_index.id}.html"
    others = [evaluation for other in compare or [] for evaluation in _recorded(other)]
    write_report(path, evaluations=[*evaluations, *others], scene=scene)
    emit({"path": str(path)}, str(path), as_json=as_json)


def _recorded(folder: Path) -> list[Evaluation]:
    """The evaluations of another index or a baseline. Raises: InputError when the folder holds none."""
    # Evaluations of an index belong to one of its versions, here the latest; those of a baseline to its folder.
    evaluations = read_recorded(indexer.open(folder).path if (folder / "latest").is_file() else folder)
    if not evaluations:
        raise InputError(f"{folder}: no evaluations there; run seqdata eval or seqdata baseline first")
    return evaluations

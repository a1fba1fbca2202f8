"""`seqdata index append` and `merge`: new windows into an index, and the shares of array jobs into one."""

from pathlib import Path
from typing import Annotated

import typer

from cli.flags import DeviceFlag, ModelFromFlag
from cli.index.versions import IndexFlag, recall_text
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(help="Dataset folder; default: the index's own.", metavar="[DATASET]", show_default=False),
]


def append(
    dataset: DatasetArgument = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; default: the index's.", show_default=False)] = None,
    index: IndexFlag = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Add the new windows of a dataset to its index.

    The windows that seqdata append has added become a new version; nothing is fitted again.
    """
    import seqdata
    from cli.config import load
    from cli.lookup import find_run, open_index
    from indexer.builder.pipeline.append import append_index
    from indexer.versions.manifest import read_manifest, read_measured
    from train.runs.record import run_record
    from train.stages.describer import RunDescriber  # heavy

    place = load(config)
    before = open_index(place, index)
    chosen_run = find_run(place, run, before)
    opened = seqdata.open(dataset or run_record(chosen_run)["dataset_path"])
    with progress_bar("window") as bar:
        folder = append_index(opened, before, RunDescriber(chosen_run, device, model_from), bar.to)
    after = read_manifest(folder)
    measured = read_measured(folder)
    recall = dict(measured.recall or {})
    result = {"path": str(folder), "id": after.id, "parent": before.id, "rows": after.rows, "recall": recall}
    added = after.rows - len(before)
    text = f"{folder}: {after.rows} windows, {added} of them new" if added else f"{folder}: nothing is new"
    text += recall_text(measured)
    emit({**result, "added": added}, text, as_json=as_json)


def merge(
    dataset: DatasetArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Join the parts that seqdata index --shard-range i/N wrote.

    They become one version; missing parts are named.
    """
    from cli.config import load
    from cli.lookup import find_dataset
    from indexer.builder.share_plan import PARTS, parts_folder, read_plan
    from indexer.builder.shares import unfinished
    from indexer.versions.manifest import read_manifest, read_measured
    from seqdata.errors import InputError
    from indexer.builder.pipeline.shares import merge_shares

    place = load(config)
    folder = place.newest("indexes", PARTS, index, "index --shard-range 1/N")
    waiting = unfinished(folder)
    if not waiting:
        raise InputError(f"{folder}: no shares lie here; run seqdata index --shard-range i/N")
    for identifier in waiting:
        plan = read_plan(parts_folder(folder, identifier))
        opened = find_dataset(place, dataset, str(plan.inputs["dataset"]), remedy="name its folder")
        published = merge_shares(opened, folder, identifier)
        facts, measured = read_manifest(published), read_measured(published)
        recall = dict(measured.recall or {})
        emit(
            {"path": str(published), "id": facts.id, "rows": facts.rows, "size": facts.size, "recall": recall},
            f"{published}: {facts.rows} windows of {facts.size} dimensions{recall_text(measured)}",
            as_json=as_json,
        )
    if len(waiting) > 1:
        note(f"{len(waiting)} versions were merged; latest is the last of them")

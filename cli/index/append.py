"""`seqdata index append` and `merge`: new windows into an index, and the parts that array jobs wrote into one."""

from pathlib import Path
from typing import Annotated

import typer

import seqdata
from cli.config import load
from cli.flags import DeviceFlag, ModelFromFlag
from cli.index.flags import IndexFlag
from cli.index.versions import recall_text
from cli.lookup import find_dataset, find_run, is_url, open_index
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar
from indexer.builder.pipeline.append import append_index
from indexer.builder.pipeline.shares import merge_shares
from indexer.builder.share_plan import PARTS, parts_folder, read_plan
from indexer.builder.shares import unfinished
from indexer.versions.folders import is_index
from indexer.versions.manifest import read_manifest, read_measured
from seqdata.errors import InputError
from seqdata.storage.remote import without_password
from train.data.describe_settings import DescribeSettings
from train.runs.folder import weights_file
from train.runs.record import remember_run, run_record

DatasetArgument = Annotated[
    Path | None,
    typer.Argument(help="Dataset folder.", metavar="DATASET", show_default="the index's own"),
]


def append(
    dataset: DatasetArgument = None,
    run: Annotated[Path | None, typer.Option(help="Run folder.", show_default="the index's")] = None,
    index: IndexFlag = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Add the new windows of a dataset to its index.

    The windows that seqdata append has added become a new version; nothing is fitted again.
    """
    dataset, index = _by_position(dataset, index)
    work = load(config)
    before = open_index(work, index)
    run_folder = find_run(work, run, before)
    weights_file(run_folder)
    # Not looked up by id: the dataset has another id since it has grown.
    place = str(run_record(run_folder)["dataset_path"])
    if dataset is None and is_url(place):
        place = without_password(place)
        raise InputError(f"the run names {place}, not contacted unasked; to do so: seqdata index append {place}")
    source = seqdata.open(dataset or place)
    from train.stages.describer import query_describer  # heavy

    describer = query_describer(before, run_folder, DescribeSettings(device, model_from=model_from))
    with progress_bar("window") as bar:
        folder = append_index(source, before, describer, bar.update)
    remember_run(folder, run_folder)
    after, measured = read_manifest(folder), read_measured(folder)
    added = after.rows - len(before)
    result = {
        "path": str(folder),
        "id": after.id,
        "parent": before.id,
        "rows": after.rows,
        "recall": dict(measured.recall or {}),
        "added": added,
    }
    text = f"{folder}: {after.rows} windows, {added} of them new" if added else f"{folder}: nothing is new"
    emit(result, text + recall_text(measured), as_json=as_json)


def _by_position(dataset: Path | None, index: Path | None) -> tuple[Path | None, Path | None]:
    """The dataset and the index; a first word that is an index, or holds parts of one, is meant as --index."""
    if dataset is not None and index is None and (is_index(dataset) or (dataset / PARTS).is_dir()):
        return None, dataset
    return dataset, index


def merge(
    dataset: DatasetArgument = None, index: IndexFlag = None, as_json: JsonFlag = False, config: ConfigFlag = None
) -> None:
    """Join the parts that seqdata index --shard-range i/N wrote.

    They become one version; missing parts are named.
    """
    dataset, index = _by_position(dataset, index)
    work = load(config)
    folder = work.newest("indexes", PARTS, index, "index --shard-range 1/N")
    identifiers = unfinished(folder)
    if not identifiers:
        raise InputError(f"{folder}: no parts of an index here; run seqdata index --shard-range i/N")
    # Parts of several builds may lie in one folder, for example of two kinds of index; each becomes its own version.
    for identifier in identifiers:
        plan = read_plan(parts_folder(folder, identifier))
        source = find_dataset(work, dataset, str(plan.inputs["dataset"]), remedy="name its folder")
        version = merge_shares(source, folder, identifier)
        manifest, measured = read_manifest(version), read_measured(version)
        result = {
            "path": str(version),
            "id": manifest.id,
            "rows": manifest.rows,
            "size": manifest.size,
            "recall": dict(measured.recall or {}),
        }
        text = f"{version}: {manifest.rows} windows of {manifest.size} dimensions{recall_text(measured)}"
        emit(result, text, as_json=as_json)
    if len(identifiers) > 1:
        note(f"{len(identifiers)} versions were merged; latest is the last of them")

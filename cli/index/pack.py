"""`seqdata pack`: an index and its model as one folder for a robot."""

from pathlib import Path
from typing import Annotated

import typer

from cli.config import load
from cli.flags import DeviceFlag, IndexArgument, ModelFromFlag, RunFlag
from cli.lookup import find_dataset, find_run, open_index
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size
from indexer.localizer.pack import PackManifest, read_pack_manifest
from train.runs.record import run_record


def pack(
    index: IndexArgument = None,
    out: Annotated[Path, typer.Option(help="New folder of the pack.")] = Path("place.pack"),
    run: RunFlag = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset whose queries calibrate the threshold; default: the index's.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split whose queries calibrate the threshold; default: val.", show_default=False),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Share of accepted queries that must be right.", min=0.01, max=1)
    ] = 0.99,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Write an index and its model as one folder for a robot.

    The folder localizes frames without the training code: see indexer.Localizer.
    """
    from train.stages.pack import PackRequest, calibration_split, write_pack  # heavy

    work = load(config)
    place_index = open_index(work, index)
    run_folder = find_run(work, run, place_index)
    # Without a split to calibrate on, no dataset is opened: an index may be packed where its dataset is not.
    calibration = None
    if calibration_split(place_index, split):
        hint = run_record(run_folder)["dataset_path"]
        calibration = find_dataset(work, dataset, place_index.manifest.inputs["dataset"], hint)
    request = PackRequest(
        run=run_folder,
        out=out,
        dataset=calibration,
        split=split,
        precision=precision,
        device=device,
        model_from=model_from,
    )
    with progress_bar("window") as bar:
        folder = write_pack(place_index, request, bar.update)
    manifest = read_pack_manifest(folder)
    pack_bytes = sum(file.bytes for file in manifest.files.values())
    text = f"{folder}: windows of {manifest.length} frames, index {manifest.index}, {size(pack_bytes)}\n"
    result = {"path": str(folder), "bytes": pack_bytes, **manifest.model_dump(mode="json", by_alias=True)}
    emit(result, text + _threshold_text(manifest), as_json=as_json)


def _threshold_text(manifest: PackManifest) -> str:
    """The distance up to which the pack accepts a place, and how it was calibrated, in one line."""
    calibration = manifest.calibration
    if calibration is None:
        return f"no reject threshold: {manifest.calibration_note}"
    return (
        f"accepted up to a distance of {calibration.threshold:.4f}: precision {calibration.precision:.1%} (wanted "
        f"{calibration.target_precision:.1%}), recall {calibration.recall:.1%} on {calibration.queries} queries of "
        f"{calibration.protocol} {calibration.split}"
    )

"""`seqdata pack`: an index and its model as one folder for a robot."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import DeviceFlag, ModelFromFlag, RunFlag
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size

if TYPE_CHECKING:
    from cli.config import Config
    from indexer.localizer.pack import PackManifest
    from indexer.place_index import PlaceIndex
    from seqdata.dataset.dataset import Dataset


def pack(
    index: Annotated[Path | None, typer.Argument(help="Index folder; default: the newest.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="New folder of the pack.")] = Path("place.pack"),
    run: RunFlag = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset whose queries calibrate; default: the index's.", show_default=False)
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
    from cli.config import load
    from cli.lookup import find_run, open_index
    from indexer.localizer.pack import read_pack_manifest
    from train.stages.pack import PackRequest, calibration_split, write_pack

    place = load(config)
    opened = open_index(place, index)
    chosen = find_run(place, run, opened)
    request = PackRequest(
        run=chosen,
        out=out,
        dataset=_dataset(place, dataset, chosen, opened) if calibration_split(opened, split) else None,
        split=split,
        precision=precision,
        device=device,
        model_from=model_from,
    )
    with progress_bar("window") as bar:
        folder = write_pack(opened, request, bar.to)
    manifest = read_pack_manifest(folder)
    stored = sum(each.bytes for each in manifest.files.values())
    text = (
        f"{folder}: windows of {manifest.length} frames, index {manifest.index}, {size(stored)}\n{_threshold(manifest)}"
    )
    emit({"path": str(folder), "bytes": stored, **manifest.model_dump(mode="json")}, text, as_json=as_json)


def _dataset(place: "Config", flag: Path | None, run: Path, index: "PlaceIndex") -> "Dataset":
    from cli.lookup import find_dataset
    from train.runs.record import run_record

    return find_dataset(place, flag, index.manifest.inputs["dataset"], run_record(run)["dataset_path"])


def _threshold(manifest: "PackManifest") -> str:
    """What the pack accepts, in a line."""
    found = manifest.calibration
    if found is None:
        return f"no reject threshold: {manifest.calibration_note}"
    return (
        f"accepted up to a distance of {found.threshold:.4f}: precision {found.precision:.1%} (wanted "
        f"{found.wanted:.1%}), recall {found.recall:.1%} on {found.queries} queries of {found.protocol} {found.split}"
    )

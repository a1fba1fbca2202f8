"""`seqdata pack`: an index and its model as one folder for a robot."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.config import Config, load
from cli.flags import DeviceFlag, IndexArgument, IndexOption, ModelFromFlag, RunFlag, either, parse_choice
from cli.lookup import find_dataset, find_run, open_index
from cli.output import ConfigFlag, JsonFlag, emit, next_step, note, progress_bar, size
from indexer.localizer.pack import PackManifest, read_pack_manifest
from indexer.place_index import PlaceIndex
from seqdata.dataset.dataset import Dataset
from seqdata.errors import InputError
from train.runs.folder import weights_file
from train.runs.record import run_record


def pack(
    index: IndexArgument = None,
    index_flag: IndexOption = None,
    out: Annotated[Path, typer.Option(help="New folder of the pack.")] = Path("place.pack"),
    run: RunFlag = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset whose queries calibrate the threshold.", show_default="the index's"),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split whose queries calibrate the threshold.", show_default="val"),
    ] = None,
    precision: Annotated[
        float, typer.Option(help="Share of accepted queries that must be right.", metavar="0…1", min=0.01, max=1)
    ] = 0.99,
    quantise: Annotated[
        str | None,
        typer.Option(
            help="Encode frames in numbers of 8 bits; recall before and after is printed.",
            metavar="[int8]",
            show_default=False,
        ),
    ] = None,
    device: DeviceFlag = "auto",
    model_from: ModelFromFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Write an index and its model as one folder for a robot.

    The folder localizes frames without PyTorch: see seqdata localize, and indexer.Localizer in Python.
    """
    index = either(index, index_flag, "--index")
    work = load(config)
    place_index = open_index(work, index)
    run_folder = find_run(work, run, place_index)
    weights_file(run_folder)
    from train.stages.pack import KINDS, PackRequest, calibration_split, write_pack  # heavy

    calibration = _find_frames(work, place_index, run_folder, dataset, calibration_split(place_index, split))
    request = PackRequest(
        run=run_folder,
        out=out,
        dataset=calibration,
        split=split,
        precision=precision,
        device=device,
        model_from=model_from,
        quantise=None if quantise is None else parse_choice(quantise, "--quantise", KINDS),
    )
    with progress_bar("window") as bar:
        folder = write_pack(place_index, request, bar.update)
    manifest = read_pack_manifest(folder)
    pack_bytes = sum(file.bytes for file in manifest.files.values())
    text = f"{folder}: windows of {manifest.length} frames, index {manifest.index}, {size(pack_bytes)}\n"
    result = {"path": str(folder), "bytes": pack_bytes, **manifest.model_dump(mode="json", by_alias=True)}
    emit(result, text + "\n".join(_judged_lines(manifest)), as_json=as_json)
    next_step(f"seqdata localize {shlex.quote(str(folder))} RECORDING")


def _find_frames(config: Config, index: PlaceIndex, run: Path, flag: Path | None, split: str | None) -> Dataset | None:
    """The dataset of calibration, recorded frames and credits; None where there is no split and no dataset.

    Raises: InputError when a split is to be calibrated on, or a dataset is named, and there is none.
    """
    hint = run_record(run)["dataset_path"]
    try:
        return find_dataset(config, flag, index.manifest.inputs["dataset"], hint)
    except InputError as error:
        if split is not None or flag is not None:
            raise
        # An index may be packed where its dataset is not.
        note(f"the pack gets no recorded frames and no self-test: {error}")
        return None


def _judged_lines(manifest: PackManifest) -> list[str]:
    """How the pack was judged: threshold, quantisation and latency, a line each."""
    lines = [_threshold_text(manifest)]
    if manifest.quantised is not None:
        recalls = (manifest.quantised.recall_before, manifest.quantised.recall_after)
        before, after = ("not measured" if recall is None else f"{recall:.1%}" for recall in recalls)
        lines.append(f"int8, ranges from {manifest.quantised.frames} frames: R@1 before {before}, after {after}")
    latency = manifest.latency
    lines.append(f"a frame takes {latency.median_ms:.1f} ms (p95 {latency.p95_ms:.1f}) on one thread of this machine")
    return lines


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

"""`seqdata describe`: every frame of a dataset once through an encoder, stored for the training of heads."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import Config, load, open_dataset
from cli.dataset.features import print_features
from cli.flags import (
    DatasetArgument,
    DeviceFlag,
    ModelFromFlag,
    OptionFlag,
    PartsEngineFlag,
    PrecisionFlag,
    ResizeFlag,
    RuntimeFlag,
    check_model_name,
    parse_choice,
    parse_json_pairs,
    refuse_idle,
    refuse_without,
    start_weights,
)
from cli.output import ConfigFlag, JsonFlag, emit, next_step, progress_bar
from indexer.text import plural
from seqdata.dataset.frame_sizes import new_kernel
from seqdata.errors import UsageError
from seqdata.parallel import ENGINES, ShardRange
from train.data.describe_settings import DescribeSettings
from train.runs.folder import weights_file
from train.runs.record import recorded_kernel

if TYPE_CHECKING:
    from train.models.frame_model import FrameModel


def describe(
    dataset: DatasetArgument = None,
    run: Annotated[
        Path | None, typer.Option(help="Run or checkpoint whose encoder is used.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Preset whose encoder is used, instead of a run.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of backbone weights.", show_default="timm's pretrained")
    ] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Use random weights.")] = False,
    level: Annotated[
        str, typer.Option(help="One vector for each frame, or the tokens of the encoder.", metavar="[frame|token]")
    ] = "frame",
    pca: Annotated[
        int | None,
        typer.Option(
            help="Dimensions of a frame's descriptor after a whitened PCA (level frame).", min=1, show_default=False
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Numbers that are stored.", metavar="[float16|float32]")] = "float16",
    seed: Annotated[int, typer.Option(help="Seed of the PCA sample.", min=0)] = 0,
    device: DeviceFlag = "auto",
    precision: PrecisionFlag = None,
    resize: ResizeFlag = None,
    runtime: RuntimeFlag = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the features.", show_default=False)] = None,
    model_from: ModelFromFlag = None,
    options: OptionFlag = None,
    shard_range: Annotated[
        str | None,
        typer.Option(
            metavar="i/N",
            help="Describe part i of N only (1 ≤ i ≤ N); seqdata merge then seals the features.",
            show_default=False,
        ),
    ] = None,
    engine: PartsEngineFlag = "pool",
    workers: Annotated[int, typer.Option(help="Parts that are described at once.", min=1)] = 1,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Compute and store a descriptor of every frame.

    seqdata train --features then trains heads on the stored descriptors, on a CPU too.
    """
    refuse_idle("--pca", pca is not None, "seed")
    start = start_weights(weights, random_init)
    work = load(config)
    source = open_dataset(work, dataset)
    run = _run_folder(work, run, model)
    encoder = _model(run, model, start, model_from, options)
    # Frames of one size are not resized at reading, so features of such datasets keep their identity.
    own_kernel = new_kernel(source) if run is None else recorded_kernel(run)
    folder = out or work.out / "features" / f"{encoder.config['name']}-{level}"
    from train.stages.features import FeatureRequest, write_feature_share, write_features, write_features_on  # heavy

    request = FeatureRequest(
        level=parse_choice(level, "--level", ("frame", "token")),
        pca=pca,
        seed=seed,
        settings=DescribeSettings.from_flags(device, precision, runtime, model_from, resize or own_kernel),
        dtype=parse_choice(dtype, "--dtype", ("float16", "float32")),
    )
    engine_name = parse_choice(engine, "--engine", ENGINES)
    if shard_range is not None and (workers > 1 or engine_name == "ray"):
        raise UsageError("--shard-range describes one part here; leave --workers and --engine away")
    with progress_bar("frame") as bar:
        progress = bar.stage("describe")
        if shard_range is not None:
            parts = write_feature_share(encoder, source, folder, request, ShardRange.parse(shard_range), progress)
            _print_share(folder, shard_range, parts, as_json=as_json)
            return
        if workers > 1 or engine_name == "ray":
            manifest = write_features_on(engine_name, workers, encoder, source, folder, request, progress)
        else:
            manifest = write_features(encoder, source, folder, request, progress=progress)
    print_features(folder, manifest, as_json=as_json)
    next_step(f"seqdata train {shlex.quote(source.location)} --features {shlex.quote(str(folder))}")


def _run_folder(work: Config, run: Path | None, model: str | None) -> Path | None:
    """The run whose encoder is used, None with a preset. Raises: UsageError when both are named."""
    if run is not None and model is not None:
        raise UsageError("--run and --model: name one of them")
    return work.newest("runs", "run.json", run, "train") if model is None else None


def _print_share(folder: Path, shard_range: str, parts: int, *, as_json: bool) -> None:
    """Print which parts of a job were written, and what ends the work."""
    text = f"{folder}: {plural(parts, 'part')} of {shard_range}; seqdata merge seals them all"
    emit({"path": str(folder), "shard_range": shard_range, "parts": parts}, text, as_json=as_json)
    next_step(f"seqdata merge {shlex.quote(str(folder))}")


def _model(
    run: Path | None,
    model: str | None,
    weights: str | None,
    model_from: str | None,
    options: list[str] | None,
) -> "FrameModel":
    """Make the model whose encoder is used, from a run or from a preset.

    Raises: UsageError when the preset's VLAD words are not set, or the model needs whole windows.
    """
    is_preset = model is not None
    refuse_without("--model, a run has its own", is_preset, weights=weights, option=options or None)
    refuse_without("a run, whose code it names", not is_preset, model_from=model_from)
    if run is not None:
        weights_file(run)
    check_model_name(model, model_from)
    from train.models import registry  # heavy
    from train.models.frame_model import FrameModel  # heavy
    from train.runs import checkpoint  # heavy

    if model is None:
        assert run is not None  # noqa: S101  (one of the two is there)
        network = checkpoint.load_model(run, model_from)
    else:
        network = registry.create(model, weights=weights or "pretrained", **parse_json_pairs(options, "--option"))
        # Trainable centres of a new model are random until k-means sets them from frames: features would be noise.
        if network.vlad is not None and network.vlad.centres.requires_grad:
            raise UsageError(
                f"model {model}: its VLAD words come from training frames; make them with seqdata train --model "
                f"{model} --epochs 0, then name that run"
            )
    if not isinstance(network, FrameModel):
        raise UsageError(f"model {network.config['name']} has no descriptor of a single frame, so none can be stored")
    return network

"""`seqdata describe`: every frame of a dataset once through an encoder, stored for the training of heads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import Config, load, open_dataset
from cli.flags import (
    DatasetArgument,
    DeviceFlag,
    ModelFromFlag,
    OptionFlag,
    RuntimeFlag,
    check_model_name,
    parse_choice,
    parse_json_pairs,
    refuse_without,
)
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size
from seqdata.errors import UsageError

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
        str | None, typer.Option(help="File of backbone weights; default: timm's pretrained.", show_default=False)
    ] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Use random weights.")] = False,
    level: Annotated[
        str, typer.Option(help="frame: one vector for each frame; token: the tokens of the encoder.")
    ] = "frame",
    pca: Annotated[
        int | None,
        typer.Option(
            help="Dimensions of a frame's descriptor after a whitened PCA (level frame).", min=1, show_default=False
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    seed: Annotated[int, typer.Option(help="Seed of the PCA sample.", min=0)] = 0,
    device: DeviceFlag = "auto",
    runtime: RuntimeFlag = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the features.", show_default=False)] = None,
    model_from: ModelFromFlag = None,
    options: OptionFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Compute and store a descriptor of every frame.

    seqdata train --features then trains heads on the stored descriptors, on a CPU too.
    """
    from train.data.program_frames import pick_runtime  # heavy
    from train.stages.features import FeatureRequest, write_features  # heavy

    work = load(config)
    source = open_dataset(work, dataset)
    encoder = _model(work, run, model, "random" if random_init else weights, model_from, options)
    folder = out or work.out / "features" / f"{encoder.config['name']}-{level}"
    request = FeatureRequest(
        level=parse_choice(level, "--level", ("frame", "token")),
        pca=pca,
        seed=seed,
        device=device,
        runtime=pick_runtime(runtime) or "torch",
        dtype=parse_choice(dtype, "--dtype", ("float16", "float32")),
    )
    with progress_bar("frame") as bar:
        manifest = write_features(encoder, source, folder, request, progress=bar.stage("describe"))
    folder_bytes = sum(path.stat().st_size for path in folder.iterdir())
    shape = "×".join(map(str, manifest.shape))
    text = f"{folder}: {manifest.rows} frames of {shape} {manifest.dtype}, {size(folder_bytes)}, id {manifest.id[:12]}"
    emit({"path": str(folder), "id": manifest.id, **manifest.model_dump(mode="json")}, text, as_json=as_json)


def _model(
    config: Config,
    run: Path | None,
    model: str | None,
    weights: str | None,
    model_from: str | None,
    options: list[str] | None,
) -> "FrameModel":
    """Make the model whose encoder is used, from a run or from a preset.

    Raises: UsageError when both are named, the preset's VLAD words are not set, or the model needs whole windows.
    """
    from train.models import registry  # heavy
    from train.models.frame_model import FrameModel  # heavy
    from train.runs import checkpoint  # heavy

    if run is not None and model is not None:
        raise UsageError("--run and --model: name one of them")
    is_preset = model is not None
    refuse_without("--model, a run has its own", is_preset, weights=weights, option=options or None)
    refuse_without("a run, whose code it names", not is_preset, model_from=model_from)
    if model is None:
        network = checkpoint.load_model(config.newest("runs", "run.json", run, "train"), model_from)
    else:
        check_model_name(model, model_from)
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

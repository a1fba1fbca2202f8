"""`seqdata describe`: every frame once through an encoder, kept in files that heads train from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.dataset.inspect import DatasetArgument
from cli.flags import DeviceFlag, ModelFromFlag, json_pairs
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar, size

if TYPE_CHECKING:
    from cli.config import Config
    from train.models.frame_model import FrameModel

OptionFlag = Annotated[
    list[str] | None,
    typer.Option("--option", help="Any model option, as name=value; may repeat.", show_default=False),
]


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
    level: Annotated[str, typer.Option(help="frame: one vector a frame; token: the encoder's tokens.")] = "frame",
    pca: Annotated[
        int | None, typer.Option(help="Numbers a frame after a whitened PCA (level frame).", min=1, show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    seed: Annotated[int, typer.Option(help="Seed of the PCA's sample.", min=0)] = 0,
    device: DeviceFlag = "auto",
    out: Annotated[Path | None, typer.Option(help="New folder for the features.", show_default=False)] = None,
    model_from: ModelFromFlag = None,
    options: OptionFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Compute and store a descriptor of every frame.

    seqdata train --features then trains heads on the stored descriptors, on a CPU too.
    """
    import seqdata
    from cli.config import load
    from train.stages.features import FeatureRequest, write_features

    place = load(config)
    opened = seqdata.open(place.newest("datasets", "manifest.json", dataset, "build"))
    chosen = _model(place, run, model, "random" if random_init else weights, model_from, options)
    folder = out or place.out / "features" / f"{chosen.config['name']}-{level}"
    request = FeatureRequest(level=_one_of("--level", level, "frame", "token"), pca=pca, seed=seed, device=device,
                             dtype=_one_of("--dtype", dtype, "float16", "float32"))  # fmt: skip
    with progress_bar("frame") as bar:
        manifest = write_features(
            chosen, opened, folder, request, progress=lambda done, total: bar.to("describe", done, total)
        )
    stored = sum(path.stat().st_size for path in folder.iterdir())
    shape = "×".join(map(str, manifest.shape))
    text = f"{folder}: {manifest.rows} frames of {shape} {manifest.dtype}, {size(stored)}, id {manifest.id[:12]}"
    emit({"path": str(folder), "id": manifest.id, **manifest.model_dump(mode="json")}, text, as_json=as_json)


def _one_of(flag: str, value: str, *known: str) -> Any:
    """The value of a flag. Raises: ContractError when it is none of `known`."""
    from seqdata.errors import ContractError

    if value not in known:
        raise ContractError(f"{flag} {value}: expected {' or '.join(known)}")
    return value


def _model(
    place: "Config",
    run: Path | None,
    model: str | None,
    weights: str | None,
    model_from: str | None,
    options: list[str] | None,
) -> "FrameModel":
    """The encoder's model, of a run or of a preset.

    Raises: ContractError when both or a preset with unset VLAD words is named, or the model is no function of frames.
    """
    from seqdata.errors import ContractError
    from train.models import registry as models
    from train.models.frame_model import FrameModel
    from train.runs import checkpoint

    if run is not None and model is not None:
        raise ContractError("--run and --model: name one of them")
    if model is None:
        found = checkpoint.load_model(place.newest("runs", "run.json", run, "train"), model_from)
    else:
        found = models.create(model, weights=weights or "pretrained", **json_pairs(options, "--option"))
        if found.vlad is not None and found.vlad.centres.requires_grad:
            raise ContractError(
                f"model {model}: its VLAD words come from training frames; make them with seqdata train --model "
                f"{model} --epochs 0, then name that run"
            )
    if not isinstance(found, FrameModel):
        raise ContractError(f"model {found.config['name']} is no function of single frames; nothing to keep a frame")
    return found

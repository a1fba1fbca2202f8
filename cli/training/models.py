"""`seqdata models`: every model by name, and the stages, shapes and costs of one."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import Config, dataset_protocol, load, open_dataset
from cli.flags import (
    EncoderFlag,
    FusionFlag,
    OptionFlag,
    OwnModelFlag,
    PoolFlag,
    check_model_name,
    parse_json_pairs,
    refuse_idle,
    refuse_without,
    start_weights,
)
from cli.lookup import untrained_run
from cli.output import ConfigFlag, JsonFlag, emit, next_step, note
from indexer.text import elide
from seqdata.errors import UsageError
from train.models.catalogue import PRESETS, plugin_names, start_files
from train.models.encoders.public_files import PublicFile
from train.models.place_models import import_command, import_kind


def models(
    what: Annotated[str | None, typer.Argument(help="show, get, or a model's name.", show_default=False)] = None,
    name: Annotated[
        str | None, typer.Argument(help="The model to show, unless --model-from names it.", show_default=False)
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Frames of a window for which shapes and costs are given.", min=1, show_default="5"),
    ] = None,
    encoder: EncoderFlag = None,
    pool: PoolFlag = None,
    fusion: FusionFlag = None,
    model_from: OwnModelFlag = None,
    options: OptionFlag = None,
    out: Annotated[Path | None, typer.Option(help="get: run folder to write.", show_default="runs/NAME")] = None,
    dataset: Annotated[Path | None, typer.Option(help="get: dataset of the run.", show_default="the newest")] = None,
    weights: Annotated[
        str | None, typer.Option(help="get: file of backbone weights.", show_default="pretrained")
    ] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="get: random weights.")] = False,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """List the models, show what one is made of, or get one as it is.

    `show NAME` prints stages, shapes, parameters, FLOPs of a sequence and descriptor size.

    `get NAME` writes a run of a pretrained model that is not trained further, for seqdata index --run.
    """
    refuse_without(
        "models get", what == "get", out=out, dataset=dataset, weights=weights, random_init=random_init or None
    )
    refuse_idle("the name of a model to show", what not in (None, "get"), "length")
    if what not in (None, "show", "get") and name is not None:
        raise UsageError(f"models {what} {name}: expected seqdata models show NAME")
    parts = {"encoder": encoder, "pooling": pool, "fusion": fusion}
    model_options = {part: value for part, value in parts.items() if value is not None}
    model_options |= parse_json_pairs(options, "--option")
    named = name if what in ("show", "get") else what
    check_model_name(named, model_from)
    model = model_from or named or ("frames" if encoder is not None else None)
    if what == "get":
        run = _get(load(config), model, out, dataset, start_weights(weights, random_init), model_options)
        emit({"path": str(run)}, str(run), as_json=as_json)
        next_step(f"seqdata index --run {shlex.quote(str(run))}")
        return
    if model is None and (what == "show" or model_options):
        raise UsageError("models show: name a model; seqdata models lists them")
    if model is None:
        _list(as_json=as_json)
        return
    from train.models.card import card  # heavy

    content = card(model, length, **model_options)
    emit(content, "\n".join(_card_lines(content)), as_json=as_json)


def _get(
    config: Config,
    model: str | None,
    out: Path | None,
    dataset: Path | None,
    weights: str | None,
    options: dict[str, Any],
) -> Path:
    """Write the run of an untrained model. Raises: UsageError when none is named."""
    if model is None:
        raise UsageError("models get: name a model; seqdata models lists them")
    source = open_dataset(config, dataset)
    protocol = config.protocol(None) or dataset_protocol(config, None, source).name
    folder = out or config.out / "runs" / model.replace(":", "-")
    return untrained_run(source, folder, model=model, weights=weights, protocol=protocol, options=options)


def _list(*, as_json: bool) -> None:
    """Print the names of the models with their options, by family."""
    families = {family: dict(sorted(presets.items())) for family, presets in PRESETS.items()}
    presets = {name: options for family in families.values() for name, options in family.items()}
    starts = start_files()
    lines = [f"{name:<24}{elide(_short(options), 56)}" for name, options in presets.items()]
    plugins = plugin_names()
    files = {name: None if file is None else asdict(file) for name, file in starts.items()}
    released = {name: kind for name in presets if (kind := import_kind(name)) is not None}
    result = {"families": families, "start": files, "released": released, "plugins": plugins}
    emit(result, "\n".join(lines + plugins), as_json=as_json)
    note("one whole: seqdata models show NAME; the preset 'frames' takes any --encoder, --pool and --fusion that fit")
    note("some have released weights: seqdata models show NAME prints their command")


def _short(options: dict[str, Any]) -> str:
    """The parts of a preset, which tell the models of a family apart; `models show NAME` prints every option."""
    named = [f"{key}={options[key]}" for key in ("encoder", "cut", "branches") if key in options]
    return ", ".join([*named, *(options[key] for key in ("pooling", "fusion") if key in options)]) or "its own design"


def _card_lines(card: dict[str, Any]) -> list[str]:
    """The card as a table for people."""
    height, width = card["size"]
    own = ", the frames' own size (taken as an example)" if card["own_size"] else ""
    least, most = card["lengths"]["least"], card["lengths"]["most"]
    lengths = f"{least} only" if least == most else f"{least} or more"
    lines = [
        f"{card['name']}: windows of {card['length']} frames of {height}×{width}{own}",
        f"{'stage':<16}{'kind':<15}{'shape':<16}{'parameters':>12}{'trained':>12}{'GFLOP':>9}",
    ]
    lines += [
        f"{elide(stage['name'], 15):<16}{elide(stage['kind'], 14):<15}{_shape(stage['shape']):<16}"
        f"{stage['parameters']:>12,}{stage['trainable']:>12,}{stage['flops'] / 1e9:>9.2f}"
        for stage in card["stages"]
    ]
    return [
        *lines,
        f"total: {card['parameters']:,} parameters, {card['trainable_share']:.0%} trained, "
        f"{card['flops'] / 1e9:.2f} GFLOP a sequence",
        *_start_line(card["start"]),
        *_released_line(card["name"]),
        f"descriptor: {card['descriptor']:,} numbers, compared by {card['distance']}; window lengths: {lengths}",
    ]


def _start_line(start: dict[str, str] | None) -> list[str]:
    """The public weights that the model can start from, where there are any."""
    return [] if start is None else [f"start weights: {PublicFile(**start)}"]


def _released_line(name: str) -> list[str]:
    """The command that reads a released model's weights, where there are any."""
    command = import_command(name)
    return [] if command is None else [f"released weights of the whole model: {command}"]


def _shape(shape: list[int] | None) -> str:
    return "×".join(map(str, shape)) if shape else "-"

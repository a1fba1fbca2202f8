"""`seqdata train`: a dataset to a run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import ConfigFlag, JsonFlag, emit, progress_bar
from cli.pairs import json_pairs

if TYPE_CHECKING:
    from cli.config import Config
    from seqdata.dataset import Dataset
    from train.settings import TrainSettings

SetFlag = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other training setting, as name=value; may repeat.", show_default=False),
]
OptionFlag = Annotated[
    list[str] | None,
    typer.Option("--option", help="Any model option, as name=value; may repeat.", show_default=False),
]


def train(
    dataset: Annotated[
        Path | None, typer.Argument(help="Dataset folder; default: the newest.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model preset (default seqvlad-r18).", show_default=False)] = None,
    recipe: Annotated[
        str | None, typer.Option(help="p1-triplet, p2-sta, seqnet, places-finetune, …", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the dataset's.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", show_default=False)] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of backbone weights; default: timm's pretrained.", show_default=False)
    ] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Start from random weights.")] = False,
    features: Annotated[
        Path | None, typer.Option(help="Stored features (seqdata describe) to train a head on.", show_default=False)
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Any timm encoder.", show_default=False)] = None,
    pool: Annotated[str | None, typer.Option(help="Its pooling: vlad, netvlad, gem, …", show_default=False)] = None,
    fusion: Annotated[str | None, typer.Option(help="Fusion: sum, cat, mean, gem, fc, …", show_default=False)] = None,
    model_from: Annotated[
        str | None, typer.Option(help="Your own model: package.module:factory.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs; 0 writes the untrained model.", min=0, show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random (default 0).", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Steps an update of the weights.", min=1, show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    settings: SetFlag = None,
    options: OptionFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Train a sequence-descriptor model on a dataset; --resume goes on to the same losses as an unbroken run.

    Several processes: torchrun --nproc-per-node N --no-python seqdata train … --out RUN
    """
    import seqdata
    from cli.config import load

    place = load(config)
    opened = seqdata.open(place.newest("datasets", "manifest.json", dataset, "build"))
    parts = {"encoder": encoder, "pooling": pool, "fusion": fusion}
    own = {name: value for name, value in parts.items() if value is not None} | json_pairs(options, "--option")
    named = model_from or model or ("frames" if encoder is not None else None)
    flags = {"model": named, "epochs": epochs, "seed": seed, "device": device, "accumulate": accumulate}
    chosen: dict[str, Any] = {name: place.pick(value, "train", name, None) for name, value in flags.items()}
    chosen["weights"] = "random" if random_init else place.pick(weights, "train", "weights", None)
    chosen["protocol"] = _protocol(place, protocol, opened)
    chosen["options"] = own or None
    chosen["features"] = None if features is None else str(features)
    resolved = _settings(place.pick(recipe, "train", "recipe", None), {**chosen, **json_pairs(settings, "--set")})
    folder = _folder(place, out, resolved, resume=resume)
    _fit(opened, resolved, folder, resume=resume)
    if not _leads():
        return
    result = _result(folder)
    emit(result, f"{folder}: {result['epochs']} epochs, best {_recalls(result['best'])}", as_json=as_json)


def _leads() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def _protocol(place: "Config", flag: str | None, dataset: "Dataset") -> str:
    """Flag, file, or the dataset's own protocol. Raises: ContractError when there is none."""
    from seqdata.errors import ContractError

    named = place.protocol(flag)
    if named is not None:
        return named
    stored = dataset.manifest.protocol
    if stored is None:
        raise ContractError(f"{dataset.location}: built without a protocol; name one with --protocol")
    return stored.name


def _settings(recipe: str | None, values: dict[str, Any]) -> "TrainSettings":
    """Recipe and flags as checked settings; weights are pretrained unless something says otherwise."""
    from train.recipes import RECIPES
    from train.settings import TrainSettings

    if values.get("weights") is None:
        values["weights"] = RECIPES.get(recipe or "", {}).get("weights", "pretrained")
    return TrainSettings.create(recipe, **values)


def _folder(place: "Config", out: Path | None, settings: "TrainSettings", *, resume: bool) -> Path:
    """The named run folder, the newest one when resuming, else a new one below runs/ that carries the date."""
    from datetime import datetime, timezone

    from seqdata.errors import ContractError

    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ContractError("several processes train one run: name its folder with --out")
    if resume or out is not None:
        return place.newest("runs", "run.json", out, "train")
    stamp = datetime.now(tz=timezone.utc).strftime("%Y%m%d-%H%M%S")
    return place.out / "runs" / f"{settings.model.replace(':', '-')}-{stamp}"


def _fit(dataset: "Dataset", settings: "TrainSettings", folder: Path, *, resume: bool) -> None:
    """Train with a bar within each phase and one line an epoch, both on stderr."""
    from train.loop import fit

    with progress_bar("step") as bar:

        def show(phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
            if not _leads():
                return
            if phase == "epoch":
                bar.note(f"epoch {int(values.get('epoch', done))}: {_values(values)}")
            else:
                bar.to(phase, done, total)

        fit(dataset, settings, folder, progress=show, resume=resume)


def _values(values: Mapping[str, float]) -> str:
    numbers = {name: value for name, value in values.items() if name != "epoch" and isinstance(value, float)}
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()) or "no val split to measure on"


def _result(folder: Path) -> dict[str, Any]:
    """What the run came to: its record's key facts and its best epoch."""
    from seqdata.storage import read_json

    record = read_json(folder / "run.json")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines if line]
    best: dict[str, Any] = max(epochs, key=lambda row: (row.get("val") or {}).get("r5", -1.0), default={})
    kept = {name: record[name] for name in ("dataset", "protocol", "model", "descriptor_size", "settings")}
    return {"path": str(folder), "epochs": len(epochs) - 1, "best": best, **kept}


def _recalls(row: dict[str, Any]) -> str:
    found = [f"val R@{name[1:]} {share:.3f}" for name, share in (row.get("val") or {}).items()]
    return f"epoch {row.get('epoch', 0)}: {', '.join(found) or 'no val split'}"

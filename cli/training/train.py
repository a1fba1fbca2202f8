"""`seqdata train`: a dataset to a run."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.flags import json_pairs
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar

if TYPE_CHECKING:
    from cli.config import Config
    from seqdata.dataset.dataset import Dataset
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
    """Train a sequence-descriptor model on a dataset.

    An interrupted run continues with --resume, to the same losses as an unbroken one.

    Several processes: torchrun --nproc-per-node N --no-python seqdata train … --out RUN
    """
    from cli.config import load
    from train.settings import TrainSettings

    place = load(config)
    _check_processes(out)
    named = model_from or model or ("frames" if encoder is not None else None)
    before = _to_resume(place, out) if resume else None
    record = None if before is None else _record(before, named)
    opened = _dataset(place, dataset, record)
    parts = {"encoder": encoder, "pooling": pool, "fusion": fusion}
    own = {name: value for name, value in parts.items() if value is not None} | json_pairs(options, "--option")
    weights = "random" if random_init else weights
    flags = {"model": named, "recipe": recipe, "weights": weights, "epochs": epochs, "seed": seed, "device": device,
             "accumulate": accumulate}  # fmt: skip
    chosen: dict[str, Any] = dict(flags)
    if record is None or recipe is not None:  # a recipe goes over what the run knows, and the file over the recipe
        chosen = {name: place.pick(value, "train", name, None) for name, value in flags.items()}
    chosen["protocol"] = protocol if record is not None else _protocol(place, protocol, opened)
    chosen["options"] = own or None
    chosen["features"] = None if features is None else str(features)
    base = None if record is None else record["settings"]
    resolved = TrainSettings.create(chosen.pop("recipe"), base, **{**chosen, **json_pairs(settings, "--set")})
    folder = before or out or _new_folder(place, resolved)
    _fit(opened, resolved, folder, resume=resume)
    if not _leads():
        return
    result = _result(folder)
    emit(result, f"{folder}: {result['epochs']} epochs, best {_recalls(result['best'])}", as_json=as_json)


def _leads() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def _check_processes(out: Path | None) -> None:
    """Raise ContractError when several processes would each find a run folder of their own."""
    from seqdata.errors import ContractError

    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ContractError("several processes train one run: name its folder with --out")


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


def _to_resume(place: "Config", out: Path | None) -> Path:
    """The named run folder, else the newest below runs/ that has not ended. Raises: InputError when all have."""
    from seqdata.errors import InputError
    from seqdata.storage.files import read_json

    if out is not None:
        return out
    records = sorted((place.out / "runs").glob("*/run.json"), key=lambda path: (path.stat().st_mtime_ns, str(path)))
    open_ends = [path.parent for path in records if not read_json(path).get("finished")]
    if not open_ends:
        raise InputError(f"{place.out / 'runs'}: no run there is unfinished; to lengthen one, name it with --out")
    note(f"resuming {open_ends[-1]} (the newest unfinished in {place.out / 'runs'})")
    return open_ends[-1]


def _record(folder: Path, model: str | None) -> dict[str, Any] | None:
    """run.json of a run to go on with, None where it was never begun.

    Raises: ContractError when it is no such record, or its model is code that was not named again.
    """
    from seqdata.errors import ContractError
    from train.runs.folder import RunFolder

    run = RunFolder(folder)
    if not run.recorded:
        return None
    record = run.read()
    of_record = str(record["settings"].get("model"))
    if ":" in of_record and model != of_record:
        raise ContractError(
            f"{folder / 'run.json'}: its model is made by '{of_record}'; if you trust that code, add --model-from "
            f"{of_record}"
        )
    return record


def _dataset(place: "Config", flag: Path | None, record: dict[str, Any] | None) -> "Dataset":
    """The named dataset, else the one of the run to go on with, else the newest. Raises: InputError without one."""
    import seqdata
    from cli.lookup import find_dataset

    if record is not None:
        return find_dataset(place, flag, str(record.get("dataset")), str(record.get("dataset_path", "")))
    return seqdata.open(place.newest("datasets", "manifest.json", flag, "build"))


def _new_folder(place: "Config", settings: "TrainSettings") -> Path:
    """A new folder below runs/ that carries the date."""
    from datetime import datetime, timezone

    stamp = datetime.now(tz=timezone.utc).strftime("%Y%m%d-%H%M%S")
    return place.out / "runs" / f"{settings.model.replace(':', '-')}-{stamp}"


def _fit(dataset: "Dataset", settings: "TrainSettings", folder: Path, *, resume: bool) -> None:
    """Train with a bar within each phase and one line an epoch, both on stderr."""
    from train.loop.fit import fit

    with progress_bar("step") as bar:
        clock = _Clock()

        def show(phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
            if not _leads():
                return
            epoch = int(values["epoch"])
            if phase == "epoch":
                bar.note(f"epoch {epoch}: {_values(values)}")
                return
            clock.enter(epoch)
            text = f"loss {values['loss']:.4f}, epoch {clock.left(done, total)}" if phase == "train" else ""
            bar.to(f"epoch {epoch}/{int(values['epochs'])} {phase}", done, total, text)

        fit(dataset, settings, folder, progress=show, resume=resume)


class _Clock:
    """The time that an epoch still takes, by all that its steps took so far, mining among them included."""

    def __init__(self) -> None:
        self._epoch = -1
        self._began = 0.0
        self._before: int | None = None

    def enter(self, epoch: int) -> None:
        """Something of this epoch was done."""
        if epoch != self._epoch:
            self._epoch, self._began, self._before = epoch, time.monotonic(), None

    def left(self, done: int, total: int) -> str:
        """After step `done` of the `total` of the epoch; steps before the first one seen were another process's."""
        if self._before is None:
            self._before = done - 1
        seconds = (time.monotonic() - self._began) / (done - self._before) * (total - done)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _values(values: Mapping[str, float]) -> str:
    numbers = {name: value for name, value in values.items() if name != "epoch" and isinstance(value, float)}
    return ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()) or "no val split to measure on"


def _result(folder: Path) -> dict[str, Any]:
    """What the run came to: its record's key facts and its best epoch."""
    from seqdata.storage.files import read_json

    record = read_json(folder / "run.json")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines if line]
    best: dict[str, Any] = max(epochs, key=lambda row: (row.get("val") or {}).get("r5", -1.0), default={})
    kept = {name: record[name] for name in ("dataset", "protocol", "model", "descriptor_size", "settings")}
    return {"path": str(folder), "epochs": len(epochs) - 1, "best": best, **kept}


def _recalls(row: dict[str, Any]) -> str:
    found = [f"val R@{name[1:]} {share:.3f}" for name, share in (row.get("val") or {}).items()]
    return f"epoch {row.get('epoch', 0)}: {', '.join(found) or 'no val split'}"

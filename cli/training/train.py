"""`seqdata train`: a dataset to a run."""

import os
import re
import shlex
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import Config, dataset_protocol, load, open_dataset
from cli.flags import (
    DatasetArgument,
    EncoderFlag,
    FusionFlag,
    OptionFlag,
    OwnModelFlag,
    PoolFlag,
    ProtocolFlag,
    check_model_name,
    command_line,
    parse_json_pairs,
    refuse_idle,
    start_weights,
)
from cli.lookup import find_dataset
from cli.output import ConfigFlag, JsonFlag, emit, next_step, note, progress_bar
from cli.training.flags import (
    TrainAccumulateFlag,
    TrainBatchSizeFlag,
    TrainDeviceFlag,
    TrainEpochsFlag,
    TrainFeaturesFlag,
    TrainListSettingsFlag,
    TrainLossFlag,
    TrainLrFlag,
    TrainModelFlag,
    TrainNegativesFlag,
    TrainOutFlag,
    TrainPatienceFlag,
    TrainRandomInitFlag,
    TrainRecipeFlag,
    TrainResumeFlag,
    TrainSeedFlag,
    TrainStrictFlag,
    TrainWeightsFlag,
)
from cli.training.settings_list import settings_rows, settings_text
from cli.training.split_advice import check_training_split
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, UsageError
from train.runs.folder import RunFolder
from train.runs.record import newest_unfinished, run_summary
from train.settings import TrainSettings, recipe_values

SetFlag = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other training setting, as name=value; may repeat.", show_default=False),
]


def train(
    dataset: DatasetArgument = None,
    model: TrainModelFlag = None,
    recipe: TrainRecipeFlag = None,
    protocol: ProtocolFlag = None,
    out: TrainOutFlag = None,
    weights: TrainWeightsFlag = None,
    random_init: TrainRandomInitFlag = False,
    features: TrainFeaturesFlag = None,
    encoder: EncoderFlag = None,
    pool: PoolFlag = None,
    fusion: FusionFlag = None,
    model_from: OwnModelFlag = None,
    epochs: TrainEpochsFlag = None,
    seed: TrainSeedFlag = None,
    device: TrainDeviceFlag = None,
    accumulate: TrainAccumulateFlag = None,
    strict: TrainStrictFlag = False,
    resume: TrainResumeFlag = False,
    lr: TrainLrFlag = None,
    batch_size: TrainBatchSizeFlag = None,
    negatives: TrainNegativesFlag = None,
    patience: TrainPatienceFlag = None,
    loss: TrainLossFlag = None,
    settings: SetFlag = None,
    options: OptionFlag = None,
    list_settings: TrainListSettingsFlag = False,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Train a sequence-descriptor model on a dataset.

    An interrupted run continues with --resume, to the same losses as an unbroken one.

    Several processes: torchrun --nproc-per-node N --no-python seqdata train … --out RUN
    """
    if list_settings:
        _print_settings(recipe, as_json=as_json)
        return
    start = start_weights(weights, random_init)
    work = load(config)
    _check_processes(out)
    check_model_name(model, model_from)
    model_name = model_from or model or ("frames" if encoder is not None else None)
    resumed = _run_to_resume(work, out) if resume else None
    record = None if resumed is None else _record(resumed, model_name)
    source = _dataset(work, dataset, record)
    parts = {"encoder": encoder, "pooling": pool, "fusion": fusion}
    model_options = {name: value for name, value in parts.items() if value} | parse_json_pairs(options, "--option")
    flags = {
        "model": model_name,
        "recipe": recipe,
        "weights": start,
        "epochs": epochs,
        "seed": seed,
        "device": device,
        "accumulate": accumulate,
        "strict": strict or None,
    }
    fields: dict[str, Any] = dict(flags)
    # A recipe goes over the record of the run to resume, and the settings file over the recipe. Without a recipe the
    # record alone holds, because the file may have changed since the run began.
    if record is None or recipe is not None:
        fields = {name: work.pick(value, "train", name, None) for name, value in flags.items()}
    fields["protocol"] = protocol if record is not None else _protocol_name(work, protocol, source)
    fields["options"] = model_options or None
    fields["features"] = None if features is None else str(features)
    base = None if record is None else record["settings"]
    fields |= {"lr": lr, "negatives": negatives, "patience": patience, "loss": loss}
    fields |= parse_json_pairs(settings, "--set")
    recipe_name = fields.pop("recipe")
    if batch_size is not None:
        fields[_batch_field(fields, {**(base or {}), **recipe_values(recipe_name)})] = batch_size
    resolved = TrainSettings.create(recipe_name, base, **fields)
    check_model_name(resolved.model, model_from)
    _check_split(work, source, resolved)
    folder = resumed or out or _new_folder(work, resolved)
    _fit(source, resolved, folder, resume=resume)
    if _is_first_process():
        _print_run(folder, is_named=out is not None, as_json=as_json)


def _check_split(work: Config, dataset: Dataset, settings: TrainSettings) -> None:
    """Raise NotEnoughDataError where there are epochs and nothing to train on."""
    if settings.epochs:
        check_training_split(work, dataset, dataset.load_protocol(settings.protocol))


def _print_settings(recipe: str | None, *, as_json: bool) -> None:
    """Print every setting, with the values of a recipe. Raises: UsageError with an option of a training beside it."""
    others = command_line.typed.keys() - {"list_settings", "recipe", "as_json", "quiet", "verbose", "debug", "log_file"}
    refuse_idle("a training, and not with --settings", False, *sorted(others))
    next_step(None)
    rows = settings_rows(recipe_values(recipe))
    emit({"settings": rows}, settings_text(rows), as_json=as_json)


def _batch_field(fields: dict[str, Any], below: dict[str, Any]) -> str:
    """The setting that counts what a step holds, under the regime of the flags, else of the settings below them."""
    return "places" if (fields.get("regime") or below.get("regime")) == "places" else "batch"


def _print_run(folder: Path, *, is_named: bool, as_json: bool) -> None:
    """Print what a run came to, and what to type next: one below runs/ is found without being named."""
    if is_named:
        next_step(f"seqdata index --run {shlex.quote(str(folder))}")
    result = run_summary(folder)
    emit(result, f"{folder}: {result['epochs']} epochs, best {_recalls_text(result['best'])}", as_json=as_json)


def _is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def _check_processes(out: Path | None) -> None:
    """Raise ContractError when several processes would each choose a run folder of their own."""
    # torchrun sets WORLD_SIZE and RANK; a folder named by the time would differ between processes.
    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("several processes train one run: name its folder with --out")


def _protocol_name(config: Config, flag: str | None, dataset: Dataset) -> str:
    """The protocol that the run records: the name or file of flag or settings, else the name of the dataset's own."""
    return config.protocol(flag) or dataset_protocol(config, None, dataset).name


def _run_to_resume(config: Config, out: Path | None) -> Path:
    """The named run folder, else the newest unfinished one below runs/. Raises: InputError when there is none."""
    if out is not None:
        return out
    runs = config.out / "runs"
    run = newest_unfinished(runs)
    note(f"resuming {run} (the newest unfinished in {runs})")
    return run


def _record(folder: Path, model: str | None) -> dict[str, Any] | None:
    """The run.json of a run to resume, None where the run never began.

    Raises: ContractError when it is no such record, or its model is code that was not named again.
    """
    run = RunFolder(folder)
    if not run.recorded:
        return None
    record = run.read()
    # A run folder may come from elsewhere: it must not choose what code runs here.
    recorded_model = str(record["settings"].get("model"))
    if ":" in recorded_model and model != recorded_model:
        raise ContractError(
            f"{folder / 'run.json'}: its model is made by '{recorded_model}'; if you trust that code, add --model-from "
            f"{recorded_model}"
        )
    return record


def _dataset(config: Config, flag: Path | None, record: dict[str, Any] | None) -> Dataset:
    """The named dataset, else the one of the run to resume, else the newest. Raises: InputError without one."""
    if record is not None:
        return find_dataset(config, flag, str(record.get("dataset")), str(record.get("dataset_path", "")))
    return open_dataset(config, flag)


def _new_folder(config: Config, settings: TrainSettings) -> Path:
    """A new folder below runs/, named by model and time (UTC)."""
    stamp = datetime.now(tz=timezone.utc).strftime("%Y%m%d-%H%M%S")
    return config.out / "runs" / f"{settings.model.replace(':', '-')}-{stamp}"


def _fit(dataset: Dataset, settings: TrainSettings, folder: Path, *, resume: bool) -> None:
    """Train with a bar within each phase and one line an epoch, both on stderr."""
    from train.loop.fit import fit  # heavy

    with progress_bar("step") as bar:
        clock = _EpochClock()

        def report(phase: str, count: int, total: int, values: Mapping[str, float]) -> None:
            if not _is_first_process():
                return
            epoch = int(values["epoch"])
            if phase == "epoch":
                bar.note(f"epoch {epoch}: {_values_text(values)}")
                return
            clock.enter(epoch)
            text = f"loss {values['loss']:.4f}, epoch {clock.time_left(count, total)}" if phase == "train" else ""
            bar.update(f"epoch {epoch}/{int(values['epochs'])} {phase}", count, total, text)

        fit(dataset, settings, folder, progress=report, resume=resume)


class _EpochClock:
    """Estimates the time that an epoch still takes from all that its steps took, mining between them included."""

    def __init__(self) -> None:
        self._epoch = -1
        self._start = 0.0
        self._earlier_steps: int | None = None

    def enter(self, epoch: int) -> None:
        """Start the clock at the first report of an epoch."""
        if epoch != self._epoch:
            self._epoch, self._start, self._earlier_steps = epoch, time.monotonic(), None

    def time_left(self, step: int, total: int) -> str:
        """Time left (m:ss) after a step of `total`."""
        if self._earlier_steps is None:
            self._earlier_steps = step - 1  # those before the first one seen ran in another process, before a resume
        seconds = (time.monotonic() - self._start) / (step - self._earlier_steps) * (total - step)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _values_text(values: Mapping[str, float]) -> str:
    numbers = {name: value for name, value in values.items() if name != "epoch" and isinstance(value, float)}
    text = ", ".join(_value_text(name, value) for name, value in numbers.items()) or "no val split to measure on"
    replaced = int(values.get("replaced", 0))
    return f"{text}, {replaced} damaged frame{'s' if replaced > 1 else ''} replaced" if replaced else text


# Names of an epoch's values as they are stored, and what they are called.
_WORDS = {"active": "active triplets", "hardness": "loss margin", "wait": "waiting for data"}
_SHARES = ("active", "wait")


def _value_text(name: str, value: float) -> str:
    """One value of an epoch: recalls and shares in percent."""
    if re.fullmatch(r"r\d+", name):
        return f"val R@{name[1:]} {100 * value:.1f}"
    return f"{_WORDS.get(name, name)} {value:.1%}" if name in _SHARES else f"{_WORDS.get(name, name)} {value:.4f}"


def _recalls_text(row: Mapping[str, Any]) -> str:
    # JSON has them in the order of their names, in which 10 comes before 5.
    ranks = sorted((row.get("val") or {}).items(), key=lambda item: int(item[0][1:]))
    recalls = [_value_text(name, recall) for name, recall in ranks]
    return f"epoch {row.get('epoch', 0)}: {', '.join(recalls) or 'no val split'}"

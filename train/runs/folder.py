"""The run folder: what is written where, and when a run may be continued."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seqdata.contracts.version import VERSION
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.files import read_json, write_bytes_atomic, write_json_atomic
from seqdata.storage.leftovers import sweep
from train.settings import TrainSettings

PACKAGES = ("seqdata", "torch", "timm", "numpy", "polars")


class RunFolder:
    """RUN/: run.json, metrics.jsonl, checkpoints/{best,last}, mined/, tensorboard/.

    `open` starts a new folder or takes up an old one; every file is written whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[dict[str, Any]] = []

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def mined(self) -> Path:
        """Folder of the mined triplets, a file a round."""
        return self.path / "mined"

    @property
    def best(self) -> Path:
        """Stem of the best checkpoint."""
        return self.checkpoints / "best"

    @property
    def last(self) -> Path:
        """Stem of the last checkpoint."""
        return self.checkpoints / "last"

    @property
    def recorded(self) -> bool:
        """Whether this is the folder of a run, however far it came."""
        return (self.path / "run.json").is_file()

    @property
    def started(self) -> bool:
        """Whether an epoch of this run was ever finished."""
        return (self.last.parent / "last.optimizer.json").is_file()

    @property
    def steps(self) -> int:
        """Steps of all epochs whose metrics are known."""
        return sum(len(entry.get("losses", ())) for entry in self.metrics)

    def open(self, record: dict[str, Any], resume: bool) -> dict[str, Any]:
        """Write run.json of a new run, or check that `record` continues the old one.

        A resumed run keeps its first environment and its weights file's hash; other environments are added to
        `later_environments`.

        Returns:
            What was written.

        Raises:
            OutputError: If the folder holds something and `resume` is off.
            ContractError: If dataset, protocol or settings differ from those of the run to resume.
        """
        # Else the record that a killed run was about to write would count as something of somebody else.
        sweep(self.path)
        if self.recorded and resume:
            record = _continued(self._check(record), record)
        elif self.path.is_dir() and any(self.path.iterdir()):
            hint = "choose another --out, or --resume" if self.recorded else "choose another --out"
            raise OutputError(f"{self.path}: the folder is not empty; {hint}")
        self.write(record)
        return record

    def _check(self, record: dict[str, Any]) -> dict[str, Any]:
        """The old record, which `record` may continue."""
        old = self.read()
        # The fields that decide which weights come out; where a run computes or logs may change between its parts.
        for field in ("dataset", "protocol", "features", "course"):
            if old.get(field) != record[field]:
                differing = _difference(old.get(field), record[field])
                why = ": its cosine schedule ends with the last epoch" if differing.startswith("epochs:") else ""
                raise ContractError(
                    f"{self.path / 'run.json'}: cannot resume, {field} differs ({differing}{why}); "
                    "name neither recipe nor settings to go on as it began, or start a new run with --out"
                )
        return old

    def read(self) -> dict[str, Any]:
        """Read run.json, its course by today's fields.

        Raises:
            ContractError: When it is of another program.
        """
        path = self.path / "run.json"
        old: dict[str, Any] = read_json(path)
        try:
            # Computed from the stored settings, so that a run begun before a field existed compares by that field's
            # default.
            return {**old, "course": TrainSettings.model_validate(old["settings"]).same_course()}
        except (KeyError, TypeError, ValidationError) as error:
            raise ContractError(
                f"{path}: not the record of a run that can go on; start a new one with --out"
            ) from error

    def write(self, record: dict[str, Any]) -> None:
        """Replace run.json.

        Raises:
            OutputError: When it cannot be written.
        """
        write_json_atomic(self.path / "run.json", record)

    def take_up(self, epoch: int) -> None:
        """Read the metrics up to and including `epoch`; later lines belong to an epoch that is trained again."""
        self.metrics = [entry for entry in read_metrics(self.path) if entry["epoch"] <= epoch]

    def add_metrics(self, entry: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl.

        Raises:
            OutputError: When it cannot be written.
        """
        self.metrics.append(entry)
        # Rewritten whole, some kilobytes: a file that is appended to may end in half a line after a kill.
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in self.metrics)
        write_bytes_atomic(self.path / "metrics.jsonl", text.encode())


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read the epochs of a run's metrics.jsonl; none where there is no such file.

    Raises:
        ContractError: If a line is no epoch.
    """
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    try:
        epochs = [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not readable as lines of JSON ({error}); it is damaged") from error
    if not all(isinstance(entry, dict) and isinstance(entry.get("epoch"), int) and "val" in entry for entry in epochs):
        raise ContractError(f"{path}: a line is no epoch with 'epoch' and 'val'; it is damaged")
    return epochs


def checkpoint_stem(path: str | Path) -> Path:
    """Find a checkpoint by a run folder, by one of its two files, or by its stem.

    Args:
        path: A run folder (which means its `checkpoints/best`), a .safetensors or .json file, or a stem.

    Returns:
        Path without the ending, to which `.safetensors` and `.json` are added.

    Raises:
        InputError: If no checkpoint is there.
    """
    path = Path(path)
    stem = path / "checkpoints" / "best" if path.is_dir() else path
    stem = stem.with_suffix("") if stem.suffix in (".json", ".safetensors") else stem
    if not stem.parent.joinpath(f"{stem.name}.json").is_file():
        raise InputError(f"{path}: no checkpoint here; name a run folder, or a checkpoint's .safetensors or .json")
    return stem


def weights_file(run: str | Path) -> Path:
    """Find the file of a run's best weights; nothing is read.

    Args:
        run: As `checkpoint_stem` takes it.

    Raises:
        InputError: If it is gone.
    """
    stem = checkpoint_stem(run)
    path = stem.parent / f"{stem.name}.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; the run is incomplete")
    return path


def environment() -> dict[str, str]:
    """List what decides numbers: versions of Python and the packages, and CUDA and its devices where there are any."""
    import torch  # heavy

    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            versions[name] = VERSION if name == "seqdata" else version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    if torch.cuda.is_available():
        versions["cuda"] = str(torch.version.cuda)
        versions["gpu"] = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return versions


def _continued(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The record of a resumed run."""
    first, later = old.get("environment", new["environment"]), old.get("later_environments", [])
    is_recorded = new["environment"] in (first, *later)
    return {
        **new,
        "weights_hash": new["weights_hash"] or old.get("weights_hash"),
        "environment": first,
        "later_environments": later if is_recorded else [*later, new["environment"]],
    }


def _difference(old: Any, new: Any) -> str:
    """The first field that differs between two records."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = old.keys() & new.keys()
        # Fields of both first: one that only another release knows is rarely what a user changed.
        for key in (*sorted(both), *sorted((old.keys() | new.keys()) - both)):
            if old.get(key) != new.get(key):
                return f"{key}: {old.get(key)!r} then, {new.get(key)!r} now"
    return f"{old!r} then, {new!r} now"

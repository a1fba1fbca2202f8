"""`seqdata.toml`: where raw data is and outputs go, and defaults of options. Flags override the file."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import seqdata
from cli.output import note
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.toml_files import read_toml
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, UsageError
from seqdata.storage.files import folders_by_age

CONFIG_NAME = "seqdata.toml"
# The fields are listed by hand rather than taken from the settings classes: those would load pydantic, and the file
# takes only what a work folder decides once.
_TOP = {"raw": str, "out": str, "protocol": str, "build": dict, "train": dict, "index": dict}
_SECTIONS: dict[str, dict[str, type]] = {
    "build": {"workers": int, "check": str, "keep_png": bool, "shard_megabytes": int},
    "train": {
        "model": str,
        "recipe": str,
        "weights": str,
        "epochs": int,
        "seed": int,
        "device": str,
        "accumulate": int,
    },
    "index": {"pca": int},
}
Value = TypeVar("Value")

TEMPLATE = """\
# Settings of this work folder; every flag of a command overrides its line here.

# The raw dump, as it was downloaded and unpacked.
raw = "{raw}"

# Outputs go below this folder: datasets/, runs/ and indexes/.
out = "{out}"

# What numbers mean: a shipped protocol (`seqdata protocols` lists them) or a .toml file of your own.
# Without it each kind of dump takes its own: msls-seqvlad, nordland-sta, own.
# protocol = "msls-seqvlad"

[build]
# workers = 2            # processes; default: one a core
# check = "decode"       # decode every frame while building, not only its header and end marker

[train]
# model = "seqvlad-r18"  # `seqdata train --help` lists the models
# recipe = "seqvlad-triplet"  # or places-finetune
# epochs = 30
# seed = 0

[index]
# pca = 4096
"""


@dataclass(frozen=True)
class Config:
    """A work folder with its settings."""

    root: Path
    """Folder of the settings file, or the current one."""
    values: dict[str, Any] = field(default_factory=dict)
    """Content of the settings file."""

    @property
    def out(self) -> Path:
        """Folder below which datasets/, runs/ and indexes/ are."""
        return self.root / str(self.values.get("out", "."))

    def pick(self, flag: Value | None, section: str, name: str, default: Value) -> Value:
        """Choose the value of an option.

        Args:
            flag: Value on the command line, None where it was not given.
            section: Section of the settings file.
            name: Field of it.
            default: Value where neither names one.
        """
        if flag is not None:
            return flag
        value: Value = self.values.get(section, {}).get(name, default)
        return value

    def raw(self, flag: Path | None) -> Path:
        """The folder of the raw dump.

        Raises:
            UsageError: When neither flag nor file names one.
        """
        if flag is not None:
            return flag
        if "raw" not in self.values:
            raise UsageError("no raw dump named: give --raw FOLDER, or write one with seqdata init")
        return self.root / str(self.values["raw"])

    def protocol(self, flag: str | None) -> str | None:
        """The protocol that flag or file name; a .toml path in the file is relative to the file."""
        if flag is not None:
            return flag
        # Like `raw`, so that a command may be run from another folder with --config.
        name = self.values.get("protocol")
        return str(self.root / name) if name is not None and name.endswith(".toml") else name

    def newest(self, kind: str, marker: str, flag: Path | None, verb: str) -> Path:
        """The folder that a flag names, else the newest one of its kind; says on stderr which.

        Args:
            kind: Folder below `out`: "datasets", "runs" or "indexes".
            marker: File that such a folder holds (see `folders_by_age`).
            flag: Value of the flag or argument.
            verb: Command that makes such a folder, for the message.

        Raises:
            InputError: If there is none; the message names the command to run first.
            UsageError: If the named folder is of another kind; the message names the command that takes it.
        """
        if flag is not None:
            check_kind(flag, kind)
            return flag
        folders = folders_by_age(self.out / kind, marker)
        if not folders:
            raise InputError(f"{self.out / kind}: nothing there yet; run seqdata {verb} first, or name a folder")
        note(f"using {folders[-1]} (the newest in {self.out / kind})")
        return folders[-1]


# What a folder of each kind is called, and the command that shows one.
_KINDS = {
    "datasets": ("a dataset", "seqdata info {}"),
    "runs": ("a run", "seqdata index --run {}"),
    "indexes": ("an index", "seqdata index list --index {}"),
}


def kind_of_folder(path: Path) -> str | None:
    """Which of datasets, runs and indexes a folder is one of, by the files in it; None for anything else."""
    if (path / "run.json").is_file():
        return "runs"
    if (path / "latest").is_file() and (path / "versions").is_dir():
        return "indexes"
    if (path / "manifest.json").is_file() and (path / "shards").is_dir():
        return "datasets"
    return None


def check_kind(path: Path, kind: str) -> None:
    """Refuse a run, a dataset or an index where one of another kind belongs.

    Args:
        path: A folder that the user named; a URL or what is of no kind passes.
        kind: "datasets", "runs" or "indexes".

    Raises:
        UsageError: If it is of another kind; the message names the command that takes it.
    """
    actual = kind_of_folder(path)
    if actual not in (None, kind):
        name, command = _KINDS[actual or kind]
        text = command.format(shlex.quote(str(path)))
        raise UsageError(f"{path}: {name}, but {_KINDS[kind][0]} belongs here; see what it holds with {text}")


def open_dataset(config: Config, flag: Path | None) -> Dataset:
    """Open the named dataset, else the newest below datasets/.

    Raises:
        InputError: When there is none.
    """
    return seqdata.open(config.newest("datasets", "manifest.json", flag, "build"))


def dataset_protocol(config: Config, flag: str | None, dataset: Dataset) -> Protocol:
    """The protocol that flag or settings name, else the dataset's own.

    Raises:
        ContractError: When there is none.
    """
    name = config.protocol(flag)
    protocol = dataset.manifest.protocol if name is None else dataset.load_protocol(name)
    if protocol is None:
        raise ContractError(f"{dataset.location}: built without a protocol; name one with --protocol")
    return protocol


def load(path: Path | None) -> Config:
    """Read the settings at `path`, else those in ./seqdata.toml, else none.

    Raises:
        InputError: If a named file is missing or not TOML.
        ContractError: If a field is unknown or of another type.
    """
    if path is None and not Path(CONFIG_NAME).is_file():
        return Config(Path())
    path = path or Path(CONFIG_NAME)
    values = read_toml(path)
    _check(path, values, _TOP, "")
    for section, fields in _SECTIONS.items():
        _check(path, values.get(section, {}), fields, f"{section}.")
    return Config(path.parent, values)


def _check(path: Path, values: Mapping[str, Any], fields: Mapping[str, type], prefix: str) -> None:
    """Raise ContractError for an unknown field or a value of another type."""
    for name, value in values.items():
        if name not in fields:
            raise ContractError(f"{path}: unknown field '{prefix}{name}'; it takes {', '.join(fields)}")
        # isinstance would take true for a whole number, because bool is a kind of int.
        if type(value) is not fields[name]:
            raise ContractError(f"{path}: field '{prefix}{name}' must be a {fields[name].__name__}, it is {value!r}")
        if isinstance(value, str) and "\0" in value:
            raise ContractError(f"{path}: field '{prefix}{name}' holds a NUL character")
        # The file may come with somebody else's folder, and a module of that folder would be run.
        if name == "model" and isinstance(value, str) and ":" in value:
            raise ContractError(
                f"{path}: field '{prefix}{name}' names code, '{value}', which a file may not choose; if you trust it, "
                f"remove the line and add --model-from {value}"
            )

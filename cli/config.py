"""`seqdata.toml`: where raw data lies and outputs go, and defaults of options. Flags override the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cli.output import note
from seqdata.errors import ContractError, InputError

CONFIG_NAME = "seqdata.toml"
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
# recipe = "p1-triplet"  # or places-finetune
# epochs = 30
# seed = 0

[index]
# pca = 4096
"""


@dataclass(frozen=True)
class Config:
    """The resolved work folder: `root` is the folder of the file (or the current one), `values` what it says."""

    root: Path
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """Folder below which datasets/, runs/ and indexes/ stand."""
        return self.root / str(self.values.get("out", "."))

    def pick(self, flag: Value | None, section: str, name: str, default: Value) -> Value:
        """The flag if given, else the file's value, else the default."""
        if flag is not None:
            return flag
        found: Value = self.values.get(section, {}).get(name, default)
        return found

    def raw(self, flag: Path | None) -> Path:
        """The raw dump's folder. Raises: InputError when neither flag nor file names one."""
        if flag is not None:
            return flag
        if "raw" not in self.values:
            raise InputError("no raw dump named: give --raw FOLDER, or write one with seqdata init")
        return self.root / str(self.values["raw"])

    def protocol(self, flag: str | None) -> str | None:
        """The protocol that flag or file name; a .toml path in the file is relative to the file."""
        if flag is not None:
            return flag
        named = self.values.get("protocol")
        return str(self.root / named) if named is not None and named.endswith(".toml") else named

    def newest(self, kind: str, marker: str, flag: Path | None, verb: str) -> Path:
        """The flag's folder, else the newest folder below `out/<kind>` that holds `marker`; says which on stderr.

        Raises: InputError that names the verb to run first when there is none.
        """
        if flag is not None:
            return flag
        found = sorted((self.out / kind).glob(f"*/{marker}"), key=lambda path: (path.stat().st_mtime_ns, str(path)))
        if not found:
            raise InputError(f"{self.out / kind}: nothing there yet; run seqdata {verb} first, or name a folder")
        chosen = found[-1].parents[marker.count("/")]
        note(f"using {chosen} (the newest in {self.out / kind})")
        return chosen


def load(path: Path | None) -> Config:
    """The configuration at `path`, else ./seqdata.toml, else none.

    Raises: InputError when a named file is missing or not TOML, ContractError for an unknown or wrong field.
    """
    from seqdata.contracts.tables import read_toml

    chosen = path or Path(CONFIG_NAME)
    if path is None and not chosen.is_file():
        return Config(Path())
    values = read_toml(chosen)
    _check(chosen, values, _TOP, "")
    for section, fields in _SECTIONS.items():
        _check(chosen, values.get(section, {}), fields, f"{section}.")
    return Config(chosen.parent, values)


def _check(path: Path, values: Mapping[str, Any], fields: Mapping[str, type], prefix: str) -> None:
    """Raise ContractError for an unknown field or a value of another type."""
    for name, value in values.items():
        if name not in fields:
            raise ContractError(f"{path}: unknown field '{prefix}{name}'; it takes {', '.join(fields)}")
        if type(value) is not fields[name]:
            raise ContractError(f"{path}: field '{prefix}{name}' must be a {fields[name].__name__}, it is {value!r}")

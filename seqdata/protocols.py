"""Protocols: what a number means, as small versioned files with a hash.

The shipped files stand in `schemas/protocols/`; a user's own `.toml` is named by its path. Two numbers are comparable
only when their protocols' hashes are equal.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from seqdata.contracts import read_toml, schema_root
from seqdata.errors import ContractError
from seqdata.protocol_fields import (
    NAME,
    Count,
    Cut,
    Edges,
    Frozen,
    Panoramas,
    Rule,
    SpacingRule,
    Split,
    TrainRule,
    Unit,
)
from seqdata.storage import sha256_json

__all__ = [
    "Cut",
    "Frozen",
    "Protocol",
    "Rule",
    "Split",
    "TrainRule",
    "Unit",
    "agrees",
    "load",
    "names",
    "parse",
    "variant_of",
]
_VARIANT = re.compile(r"(?P<base>.+?)(-L(?P<length>\d+))?(-s(?P<stride>\d+))?(-(?P<spacing>\d+(\.\d+)?)m)?")


class Protocol(Frozen):
    """Everything that decides a recall, and nothing else.

    Convention: metres are UTM metres within one zone, a pair is positive when its distance is strictly less than
    `radius`; with unit `frames` it is positive when the difference of positions is at most `radius`. Panoramas are
    dropped before windows are cut, kept, or judged at the window's centre frame. `spacing` is in metres by
    `spacing_rule` (the dataset's rule where none is stated), `pose_gap` in seconds, `crop` as the source writes it.
    `expected_at` holds the published counts of other lengths.
    Source: the project's protocol table; P1 section IV, P2 section IV.
    """

    later = frozenset({"spacing_rule", "pose_source", "pose_mode", "pose_gap", "crop", "cut", "expected_at"})
    name: str = Field(pattern=NAME)
    version: int = 1
    title: str = ""
    source: str
    length: int = Field(default=5, ge=1)
    stride: int = Field(default=1, ge=1)
    spacing: float | None = Field(default=None, gt=0)
    max_step: float | None = Field(default=None, gt=0)
    unit: Unit = "metres"
    rule: Rule = "any"
    radius: float = Field(default=25.0, gt=0)
    heading_max: float | None = Field(default=None, gt=0, le=180)
    train: TrainRule = TrainRule()
    pool: Literal["together", "each"] = "together"
    panoramas: Panoramas = "drop"
    clean: bool = False
    edges: Edges = "drop"
    no_positive: Literal["leave-out", "miss"] = "leave-out"
    splits: dict[Annotated[str, Field(pattern=NAME)], Split] = Field(min_length=1)
    expected_counts: dict[str, dict[str, Count]] = Field(default_factory=dict)
    expected_at: dict[str, dict[str, dict[str, Count]]] = Field(default_factory=dict)
    spacing_rule: SpacingRule | None = None
    pose_source: Literal["gps", "ins", "rtk"] | None = None
    pose_mode: Literal["interpolate", "nearest"] | None = None
    pose_gap: float | None = Field(default=None, gt=0)
    crop: str | None = None
    cut: Cut | None = None

    @model_validator(mode="after")
    def _cut_is_used(self) -> "Protocol":
        sides = {name for name, split in self.splits.items() if split.side is not None}
        if bool(sides) != (self.cut is not None):
            raise ValueError("a [cut] and the splits' 'side' need each other")
        return self

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of every field that decides a number (title and counts left out)."""
        return sha256_json(self.model_dump(mode="json", exclude={"title", "expected_counts", "expected_at"}))[:12]

    @property
    def label(self) -> str:
        """`name@hash`, the form in which a protocol stands beside a number."""
        return f"{self.name}@{self.hash}"

    def split(self, name: str) -> Split:
        """The split `name`. Raises: ContractError that lists the splits there are."""
        if name not in self.splits:
            raise ContractError(f"protocol {self.name}: no split '{name}'; it has {', '.join(self.splits)}")
        return self.splits[name]

    def check_rule(self, rule: str) -> None:
        """Raise ContractError when the protocol's spacing is by another rule than `rule`, the dataset's."""
        if self.spacing is not None and self.spacing_rule not in (None, rule):
            raise ContractError(
                f"protocol {self.name}: its spacing_rule is '{self.spacing_rule}', the dataset's is '{rule}' (field "
                f"'resample_rule'); build the dataset with the rule {self.spacing_rule}, or name another protocol"
            )

    def variant(self, length: int | None = None, stride: int | None = None, spacing: float | None = None) -> "Protocol":
        """The same protocol at another length, stride (frames) or spacing (metres), under a name that says so.

        `msls-seqvlad` at length 10 is `msls-seqvlad-L10`, with a hash of its own; what stays the same is not named.
        Raises: ContractError for a value that is not positive.
        """
        asked = {"length": length, "stride": stride, "spacing": spacing}
        change = {field: value for field, value in asked.items() if value not in (None, getattr(self, field))}
        if any(not value > 0 for value in change.values()):
            raise ContractError(f"protocol {self.name}: length, stride and spacing must be positive, not {change}")
        if not change:
            return self
        marks = {"length": "-L{:g}", "stride": "-s{:g}", "spacing": "-{:g}m"}
        name = self.name + "".join(mark.format(change[field]) for field, mark in marks.items() if field in change)
        expected = self.expected_at.get(str(length), {}) if set(change) == {"length"} else {}
        return self.model_copy(update={**change, "name": name, "expected_counts": expected, "expected_at": {}})


def agrees(count: int | None, expected: Count) -> bool:
    """Whether a count is the expected one; a rounded one, such as "5.2k", holds for what rounds to it."""
    if count is None or isinstance(expected, int):
        return count == expected
    digits = expected.removesuffix("k")
    half = 500 / 10 ** len(digits.partition(".")[2])
    return bool(abs(count - 1000 * float(digits)) <= half)


def variant_of(name: str, known: "Callable[[str], Protocol | None]") -> "Protocol | None":
    """The variant that a name such as `msls-seqvlad-L10` asks for; `known` finds the protocol before the marks."""
    match = _VARIANT.fullmatch(name)
    base = known(match["base"]) if match else None
    if match is None or base is None or match["base"] == name:
        return None
    asked: dict[str, Any] = {field: match[field] and float(match[field]) for field in ("length", "stride", "spacing")}
    return base.variant(
        **{field: int(value) if value and field != "spacing" else value for field, value in asked.items()}
    )


def names() -> list[str]:
    """Names of the shipped protocols, sorted."""
    return sorted(path.stem for path in (schema_root() / "protocols").glob("*.toml"))


def load(protocol: "str | Path | Protocol") -> Protocol:
    """The protocol of a shipped name (also a variant: `msls-seqvlad-L10`) or of the user's own `.toml` file.

    Raises: InputError when the file is missing, ContractError when a field is wrong or the name is unknown.
    """
    if isinstance(protocol, Protocol):
        return protocol
    found = parse(read_toml(protocol), protocol) if Path(protocol).suffix == ".toml" else _shipped(str(protocol))
    found = found or variant_of(str(protocol), _shipped)
    if found is None:
        raise ContractError(
            f"no protocol '{protocol}'; shipped are {', '.join(names())}, or name a .toml file of your own"
        )
    return found


def _shipped(name: str) -> Protocol | None:
    """The shipped protocol of exactly this name."""
    path = schema_root() / "protocols" / f"{name}.toml"
    return parse(read_toml(path), path) if name in names() else None


def parse(data: dict[str, Any], file: str | Path) -> Protocol:
    """The protocol in `data`; `file` is named in errors. Raises: ContractError with the first wrong field."""
    try:
        return Protocol.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"{file}: {describe_first(error)}") from error


def describe_first(error: ValidationError) -> str:
    """The first fault of a pydantic error in one line: field, what is wrong, and how many more there are."""
    faults = error.errors()
    field = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"field '{field}': {faults[0]['msg']}{more}"


class _CallableModule(ModuleType):
    """Lets `seqdata.protocols()` list the names while `seqdata.protocols.load(...)` stays a module function."""

    __call__: Callable[..., list[str]] = staticmethod(names)


sys.modules[__name__].__class__ = _CallableModule

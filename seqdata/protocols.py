"""Protocols: what a number means, as small versioned files with a hash.

The shipped files stand in `schemas/protocols/`; a user's own `.toml` is named by its path. Two numbers are comparable
only when their protocols' hashes are equal.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from seqdata.contracts import read_toml, schema_root
from seqdata.errors import ContractError
from seqdata.storage import sha256_json

Rule = Literal["any", "centre", "last", "all"]
Unit = Literal["metres", "frames"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Names of protocols and splits: they become parts of file names."""


class Frozen(BaseModel):
    """Base of every stored model: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(Frozen):
    """What belongs to one split: cities, trajectories by role, and a half-open range of positions.

    An absent field admits everything. With `database` and `query` the protocol itself gives the roles (Nordland's
    seasons, RobotCar's laps); without them the frames' own roles hold. `positions` is [start, stop).
    """

    cities: tuple[str, ...] | None = None
    database: tuple[str, ...] | None = None
    query: tuple[str, ...] | None = None
    positions: tuple[int, int] | None = None

    @field_validator("positions")
    @classmethod
    def _rising(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"[start, stop) must rise from 0 or more, it is {list(value)}")
        return value


class TrainRule(Frozen):
    """Radii of training pairs: positives lie within the first, negatives beyond the second (unit of the protocol)."""

    positive_radius: float = Field(default=10.0, gt=0)
    negative_radius: float = Field(default=25.0, gt=0)
    rule: Rule = "any"


class Protocol(Frozen):
    """Everything that decides a recall, and nothing else.

    Convention: metres are UTM metres within one zone, a pair is positive when its distance is strictly less than
    `radius`; with unit `frames` it is positive when the difference of positions is at most `radius`.
    Source: the project's protocol table; P1 section IV, P2 section IV.
    """

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
    panoramas: Literal["drop", "keep"] = "drop"
    clean: bool = False
    edges: Literal["drop", "shift"] = "drop"
    no_positive: Literal["leave-out", "miss"] = "leave-out"
    splits: dict[Annotated[str, Field(pattern=NAME)], Split] = Field(min_length=1)
    expected_counts: dict[str, dict[str, int]] = Field(default_factory=dict)

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of every field that decides a number (title and counts left out)."""
        return sha256_json(self.model_dump(mode="json", exclude={"title", "expected_counts"}))[:12]

    @property
    def label(self) -> str:
        """`name@hash`, the form in which a protocol stands beside a number."""
        return f"{self.name}@{self.hash}"

    def split(self, name: str) -> Split:
        """The split `name`. Raises: ContractError that lists the splits there are."""
        if name not in self.splits:
            raise ContractError(f"protocol {self.name}: no split '{name}'; it has {', '.join(self.splits)}")
        return self.splits[name]


def names() -> list[str]:
    """Names of the shipped protocols, sorted."""
    return sorted(path.stem for path in (schema_root() / "protocols").glob("*.toml"))


def load(protocol: "str | Path | Protocol") -> Protocol:
    """The protocol of a shipped name or of the user's own `.toml` file.

    Raises: InputError when the file is missing, ContractError when a field is wrong or the name is unknown.
    """
    if isinstance(protocol, Protocol):
        return protocol
    path = Path(protocol)
    if path.suffix != ".toml":
        if str(protocol) not in names():
            raise ContractError(
                f"no protocol '{protocol}'; shipped are {', '.join(names())}, or name a .toml file of your own"
            )
        path = schema_root() / "protocols" / f"{protocol}.toml"
    return parse(read_toml(path), path)


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

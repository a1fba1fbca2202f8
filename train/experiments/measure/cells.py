"""A cell of a grid on disk: one JSON file named by the hash of everything that decides its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, InputError
from seqdata.storage.files import read_json, write_json_atomic
from seqdata.storage.hashing import sha256_json

VERSION = 1
"""Raised whenever the same inputs would give other numbers."""


class Measured(Frozen):
    """A number, and its 95 % interval where it is a recall. Convention: recalls are shares from 0 to 1."""

    value: float
    interval: tuple[float, float] | None = None


class Cell(Frozen):
    """What one row gave in one group of columns: `values` by name, or the `reason` why there are none.

    `protocol` (name@hash), `conditions`, `queries` counted, `left_out`, `database`, `interval_method`: what stands
    beside a recall. `facts`: dimension, memory in bytes, device, threads.
    """

    row: str
    key: str
    inputs: dict[str, Any]
    values: dict[str, Measured] = Field(default_factory=dict)
    reason: str | None = None
    protocol: str | None = None
    conditions: str | None = None
    queries: int | None = None
    left_out: int | None = None
    database: int | None = None
    interval_method: str | None = None
    facts: dict[str, float | int | str] = Field(default_factory=dict)
    seconds: float = 0.0
    environment: dict[str, str] = Field(default_factory=dict)


def key_of(inputs: Mapping[str, Any]) -> str:
    """Name a cell: the first 16 hex digits of the hash of its inputs."""
    # 16 digits are 64 bits: among a few thousand cells a collision is out of question, and names stay short.
    return sha256_json({"version": VERSION, **inputs})[:16]


class CellStore:
    """The cells below a folder; each is written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> Cell | None:
        """A cell, finished or failed; None where there is none or its file is damaged."""
        try:
            cell = Cell.model_validate(read_json(self._path(key)))
        except (InputError, ContractError, ValueError):
            return None  # measured again
        return cell if cell.key == key else None

    def write(self, cell: Cell) -> None:
        """Keep a cell.

        Raises:
            OutputError: When it cannot be written.
        """
        write_json_atomic(self._path(cell.key), cell.model_dump(mode="json"))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

"""The values that the papers print, by experiment, row, column and quantity; `published.toml` holds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from seqdata.contracts.records import Frozen
from seqdata.contracts.toml_files import read_toml
from seqdata.errors import ContractError

FILE = Path(__file__).parent / "published.toml"
NONE = "-"
"""What the papers print where they have no value."""
# The papers' own mark of a dimension that grows with the sequence length SL.
_A_FRAME = " · SL"


class Key(NamedTuple):
    """Where a value stands: row and group of columns of the grid ("" for what a row holds once), and what it is."""

    row: str
    column: str
    quantity: str


@dataclass(frozen=True)
class Published:
    """A value as a paper prints it.

    Attributes:
        text: The printed value, such as "16384 · SL", "733k" or "-".
        unit: Its unit; "share" is from 0 to 1.
        table: The paper's table or section.
        row: The row's name in the paper.
    """

    text: str
    unit: str
    table: str
    row: str

    def value(self, length: int) -> float | None:
        """The number at a sequence length; None where the paper has none.

        >>> Published("16384 · SL", "numbers", "Table II", "").value(5), Published("-", "%", "", "").value(5)
        (81920.0, None)
        >>> Published("13.6k", "windows", "Table I", "").value(5)
        13600.0
        """
        if self.text == NONE:
            return None
        digits = self.text.removesuffix(_A_FRAME).removesuffix("*").removeprefix("~")
        factor = length if self.text.endswith(_A_FRAME) else 1000 if digits.endswith("k") else 1
        # Rounded to what a decimal text can hold: 13.6 × 1000 is 13600.000000000002 in binary.
        return round(float(digits.removesuffix("k")) * factor, 9)


class _Column(Frozen):
    """A column of a paper's table, or, with `of`, the column of another table whose values it shows."""

    column: str = ""
    quantity: str = ""
    unit: str = ""
    of: str | None = None


class _Section(Frozen):
    """One experiment's values: of a `table` of its own, or `of` another experiment, by rows of the same name unless
    `rows` maps its rows to the other's.
    """

    table: str = ""
    of: str | None = None
    columns: tuple[_Column, ...]
    rows: tuple[tuple[str, ...], ...] | dict[str, str] = Field(default=())


@cache
def published(experiment: str) -> dict[Key, Published]:
    """Read what a paper prints for an experiment.

    Args:
        experiment: Name of the experiment.

    Returns:
        Values by their place; empty where the paper prints none.

    Raises:
        ContractError: If a row of the file has another number of values than columns.
    """
    sections = {name: _Section.model_validate(fields) for name, fields in read_toml(FILE).items()}
    section = sections.get(experiment)
    if section is None:
        return {}
    if section.of is None:
        return dict(_own(experiment, section))
    return dict(_of_another(section, published(section.of)))


def _own(experiment: str, section: _Section) -> Iterator[tuple[Key, Published]]:
    rows = section.rows if isinstance(section.rows, tuple) else ()
    for row, name, *texts in rows:
        if len(texts) != len(section.columns):
            needed = len(section.columns)
            raise ContractError(f"{FILE}: {experiment}, row {row}: {len(texts)} values for {needed} columns")
        for column, text in zip(section.columns, texts, strict=True):
            yield Key(row, column.column, column.quantity), Published(text, column.unit, section.table, name)


def _of_another(section: _Section, others: dict[Key, Published]) -> Iterator[tuple[Key, Published]]:
    rows = section.rows if isinstance(section.rows, dict) else {key.row: key.row for key in others}
    for column in section.columns:
        for row, other in rows.items():
            for key, value in others.items():
                if (key.row, key.column) == (other, column.of):
                    yield Key(row, column.column, key.quantity), value

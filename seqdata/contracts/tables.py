"""Table contracts: what columns, types and units cross a floor, read from `schemas/tables/<name>.toml`.

The contracts are data, so that a reader in any language can use them; this module only checks tables against them.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from seqdata.errors import ContractError, InputError

# Python 3.10 has no TOML parser; this goes when 3.10 does.
if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same parser under its older name
    import tomli as tomllib

TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "bool": pl.Boolean(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "binary": pl.Binary(),
}


@dataclass(frozen=True)
class Column:
    """One column of a table: its type (a key of `TYPES`), unit, whether it may be null, and what it means."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class TableContract:
    """The columns of one kind of table, in order, and the contract's version."""

    name: str
    version: int
    columns: tuple[Column, ...]

    def polars_schema(self) -> dict[str, pl.DataType]:
        """Column name → polars type, in the contract's order."""
        return {column.name: TYPES[column.type] for column in self.columns}

    def conform(self, table: pl.DataFrame) -> pl.DataFrame:
        """Cast and order `table` as the contract says, absent nullable columns filled with nulls.

        Raises: ContractError when a required column is absent or a value does not fit its type.
        """
        columns = [
            pl.col(column.name).cast(TYPES[column.type])
            if column.name in table.columns
            else pl.lit(None, dtype=TYPES[column.type]).alias(column.name)
            for column in self.columns
        ]
        try:
            conformed = table.select(columns)
        except pl.exceptions.PolarsError as error:
            raise ContractError(f"table {self.name}: {error}") from error
        self.validate(conformed, file=f"table {self.name}")
        return conformed

    def validate(self, table: pl.DataFrame, file: str | Path) -> None:
        """Check columns, types and nulls of `table`; `file` is named in the error.

        Raises: ContractError that says which file, which column, and what was expected.
        """
        for column in self.columns:
            where = f"{file}: column '{column.name}'"
            if column.name not in table.columns:
                raise ContractError(f"{where} is missing; the {self.name} table (version {self.version}) needs it")
            column_type = table.schema[column.name]
            if column_type != TYPES[column.type]:
                raise ContractError(f"{where} has type {column_type}, the {self.name} table needs {column.type}")
            nulls = table[column.name].null_count()
            if nulls and not column.nullable:
                raise ContractError(f"{where} has {nulls} empty values, the {self.name} table allows none")


def schema_root() -> Path:
    """The folder of the contracts: inside the installed package, or `schemas/` beside it in a checkout."""
    # The wheel carries the contracts inside the package; a checkout has them beside it.
    installed = Path(__file__).parents[1] / "_schemas"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "schemas"


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file. Raises: InputError when it is missing or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error


@cache
def table_contract(name: str) -> TableContract:
    """Read the contract of a table.

    A file whose `columns_of` names another one takes over that one's columns, so that a column has one description
    however many tables hold it; `order` then lists all columns.

    Args:
        name: Name of a file of `schemas/tables`, such as "frames".

    Returns:
        The columns in the order in which they are stored.

    Raises:
        InputError: If there is no such contract.

    Example:
        >>> table_contract("nearest").polars_schema()
        {'query': Int32, 'min_distance': Float64, 'centre_distance': Float64}
    """
    data = read_toml(schema_root() / "tables" / f"{name}.toml")
    # Own columns come last, so that a file may describe a column of its base anew.
    shared = table_contract(data["columns_of"]).columns if "columns_of" in data else ()
    columns = {column.name: column for column in (*shared, *(Column(**fields) for fields in data["column"]))}
    order = data.get("order", columns)
    return TableContract(name=data["name"], version=data["version"], columns=tuple(columns[key] for key in order))

"""Table contracts: what columns, types and units cross a floor, read from `schemas/tables/<name>.toml`.

The contracts are data, so that a reader in any language can use them; this module only checks tables against them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from seqdata.contracts.toml_files import read_toml, schema_root
from seqdata.errors import ContractError

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
    """One column of a table: its type (a key of `TYPES`), unit, whether it may be null, and what it means.

    Values lie from `minimum` to `maximum`, where these are given.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None

    def bounds_hold(self, values: pl.Series) -> bool:
        """Whether no value lies outside the bounds; a NaN lies above every maximum."""
        above = self.minimum is None or not (values < self.minimum).any()
        return above and (self.maximum is None or not (values > self.maximum).any())


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

        Raises:
            ContractError: When a required column is absent or a value does not fit its type.
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

    def validate(self, table: pl.DataFrame, file: str | Path, columns: Collection[str] | None = None) -> None:
        """Check columns, types, nulls and bounds of `table`.

        Args:
            table: The table, or some of its columns.
            file: Named in the error.
            columns: The columns to look for; None for all.

        Raises:
            ContractError: Which file, which column, and what was expected.
        """
        self.check_schema(table.schema, file, columns)
        for column in self.columns:
            if columns is not None and column.name not in columns:
                continue
            where, nulls = f"{file}: column '{column.name}'", table[column.name].null_count()
            if nulls and not column.nullable:
                raise ContractError(f"{where} has {nulls} empty values, the {self.name} table allows none")
            if not column.bounds_hold(table[column.name]):
                most = "" if column.maximum is None else f" to {column.maximum:g}"
                raise ContractError(f"{where} has values that are not from {column.minimum:g}{most}")

    def check_schema(
        self, schema: Mapping[str, pl.DataType], file: str | Path, columns: Collection[str] | None = None
    ) -> None:
        """Check the names and types of columns alone, as a footer gives them.

        Errors are those of `validate`.
        """
        for column in self.columns:
            if columns is not None and column.name not in columns:
                continue
            where = f"{file}: column '{column.name}'"
            if column.name not in schema:
                raise ContractError(f"{where} is missing; the {self.name} table (version {self.version}) needs it")
            column_type = schema[column.name]
            if column_type != TYPES[column.type]:
                raise ContractError(f"{where} has type {column_type}, the {self.name} table needs {column.type}")


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

"""Stored tables against their contracts: the one check that every table passes before its values are used."""

from pathlib import Path

import polars as pl

from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError
from seqdata.storage.parquet import read_parquet, read_rows, read_schema


def read_table(name: str, path: str | Path, rows: int | None = None) -> pl.DataFrame:
    """Read a whole stored table and check it.

    Args:
        name: Name of its contract.
        path: The file.
        rows: How many rows its manifest lists; None where none does.

    Raises:
        InputError: If it is absent or cannot be read.
        ContractError: If it is no Parquet, damaged, breaks its contract, or has another number of rows.
    """
    # The footer first: a foreign table of many gigabytes is refused before it is read.
    check_footer(name, path, rows)
    table = read_parquet(path)
    table_contract(name).validate(table, path)
    return table


def check_footer(name: str, path: str | Path, rows: int | None = None) -> None:
    """Check a stored table by its footer: columns, types and number of rows.

    Errors are those of `read_table`.
    """
    table_contract(name).check_schema(read_schema(path), path)
    height = read_rows(path)
    if rows is not None and height != rows:
        raise ContractError(f"{path}: holds {height} rows, its manifest says {rows}; run seqdata verify")

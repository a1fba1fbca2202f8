"""Read the CSV tables of a dump as text and parse their columns."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from seqdata.errors import ContractError, InputError

_SEPARATORS = (",", ";", "\t")

_HEADER_WITHIN = 1 << 16


def read_text_csv(path: Path) -> pl.DataFrame:
    """The CSV in the file `path`, as `parse_text_csv`. Raises: InputError when it is missing, and as there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the dump is incomplete") from error
    except OSError as error:
        raise InputError(f"{path}: the table cannot be read ({error.strerror})") from error
    return parse_text_csv(data, path)


def parse_text_csv(data: bytes, path: Path | str) -> pl.DataFrame:
    """A CSV as it is written, all text: separated by comma, semicolon or tab, spaces around column names left out.

    Where the semicolon separates, spreadsheets write the decimal comma; it is a point in the result. `path` names the
    table in messages. Raises: InputError when it is no CSV, ContractError for a column that is there twice.
    """
    header = next((line for line in data[:_HEADER_WITHIN].splitlines() if line.strip()), b"").decode(errors="replace")
    separator = max(_SEPARATORS, key=header.count)
    try:
        table = pl.read_csv(data, infer_schema=False, encoding="utf8-lossy", separator=separator)
    except pl.exceptions.PolarsError as error:
        first_line = str(error).splitlines()[0] if str(error) else "not a table"
        raise InputError(f"{path}: not readable as CSV ({first_line})") from error
    names = [name.strip() for name in table.columns]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ContractError(f"{path}: column '{repeated[0]}' is there twice")
    table.columns = names
    if separator == ";":
        return table.with_columns(pl.all().str.replace(r"^\s*([+-]?\d+),(\d+)\s*$", "$1.$2"))
    return table


def parse_columns(table: pl.DataFrame, path: Path | str, needed: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The text table of `path` with the columns `needed` cast. Raises: ContractError naming a missing column."""
    for name in needed:
        if name not in table.columns:
            raise ContractError(f"{path}: column '{name}' is missing; found {', '.join(table.columns) or 'none'}")
    return table.with_columns(_parse(name, kind) for name, kind in needed.items())


def _parse(name: str, kind: pl.DataType) -> pl.Expr:
    """Text to `kind`; booleans are written True/False by these dumps, and NaN counts as absent."""
    text = pl.col(name).str.strip_chars()
    if kind == pl.Boolean():
        return text.str.to_lowercase().is_in(["true", "1"]).alias(name)
    if kind.is_float():
        return text.cast(kind, strict=False).fill_nan(None).alias(name)
    if kind.is_integer():
        return text.cast(pl.Float64, strict=False).round().cast(kind, strict=False).alias(name)
    return text


def on_globe(latitude: str, longitude: str) -> pl.Expr:
    """Whether two columns (degrees) are a place that UTM covers, 80° S to 84° N; false where one is empty."""
    inside_utm = pl.col(latitude).is_between(-80, 84) & pl.col(longitude).is_between(-180, 180)
    return inside_utm.fill_null(value=False)

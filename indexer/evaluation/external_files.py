"""Files of other programs: lists of ids, and ranked predictions in Parquet, CSV or JSON."""

import json
from pathlib import Path

import polars as pl

from indexer.evaluation.predictions import HEADER, PredictionsInfo
from indexer.evaluation.scoring import make_info
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, SeqdataError
from seqdata.storage.parquet import read_metadata

COLUMNS = ("query", "database", "rank", "distance")
DEEPEST = 32_767


def is_own(path: Path) -> bool:
    """Whether a file is one of the product's own predictions files, which know what they answer."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return HEADER in read_metadata(path)
    except (SeqdataError, OSError, ValueError, pl.exceptions.PolarsError):
        return False


def read_ids(path: Path) -> pl.Series:
    """Ids, one a row, as text: a text file with one a line, or the column `key` (or the only one) of CSV or Parquet.

    Raises: InputError when there is no such file, ContractError when it holds no such column.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        return pl.Series("key", _text(path).split())
    table = _table(path)
    name = "key" if "key" in table.columns else table.columns[0]
    if "key" not in table.columns and table.width != 1:
        raise ContractError(f"{path}: no column 'key' among {', '.join(table.columns)}")
    return table[name].cast(pl.String).alias("key")


def read_predictions(
    dataset: Dataset, protocol: Protocol, split: str, path: Path, name: str | None = None
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Ranked database windows of each query from a file of any other model, as the product's own predictions.

    Parquet or CSV with columns `query` and `database`, one row a pair, and `rank` (from the nearest on) or `distance`
    or both; without either the order of the rows is the rank. JSON: an object of each query's ranked list,
    `{"query": ["database", …]}`, or a list of objects with these columns.

    Convention: ids are keys of the windows' centre frames, or, as integers, rows of the protocol's window tables.
    Predictions without distances get NaN: precision-recall is not told for them. A query without predictions is a miss.
    Raises: InputError, ContractError naming the file and the first id, rank or column that does not fit.
    """
    queries, database = (dataset.sequences(protocol, split, role) for role in ("query", "database"))
    found = _load(path)
    sides = {"query": queries, "database": database}
    rows = {side: _rows(found[side], dataset, table, path) for side, table in sides.items()}
    table = _rank(found.with_columns(**rows), path)
    table = table_contract("predictions").conform(table.sort("query", "rank"))
    return table, make_info(dataset, protocol, split, queries, database, method=name or path.stem)


def _load(path: Path) -> pl.DataFrame:
    """The pairs of a file with the columns it has of `COLUMNS`."""
    table = _json(path) if path.suffix.lower() == ".json" else _table(path)
    missing = [name for name in ("query", "database") if name not in table.columns]
    if missing or not table.height:
        fault = f"no column '{missing[0]}'" if missing else "no predictions in it"
        raise ContractError(f"{path}: {fault}; columns query and database are needed, rank and distance may be there")
    try:
        numbers = {"rank": pl.Int64, "distance": pl.Float32}
        table = table.select(name for name in COLUMNS if name in table.columns)
        table = table.with_columns(pl.col(name).cast(kind) for name, kind in numbers.items() if name in table.columns)
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{path}: columns rank and distance must hold numbers ({error})") from error
    for side in ("query", "database"):
        if not (table.schema[side].is_integer() or table.schema[side] == pl.String):
            raise ContractError(f"{path}: column '{side}' holds {table.schema[side]}; ids are text or integers")
    empty = [name for name in table.columns if table[name].null_count()]
    if empty:
        raise ContractError(f"{path}: column '{empty[0]}' has empty cells")
    return table


def _rows(ids: pl.Series, dataset: Dataset, table: pl.DataFrame, path: Path) -> pl.Series:
    """Rows of a window table that ids name: keys of centre frames, or row numbers."""
    keys = dataset.places(table)["key"]
    if ids.dtype.is_integer():
        rows = ids.cast(pl.Int64)
        wrong = ids.filter(~rows.is_between(0, table.height - 1))
    else:
        names = ids.cast(pl.String)
        numbers = names.cast(pl.Int64, strict=False)
        if not names.is_in(keys.implode()).any() and not numbers.null_count():
            return _rows(numbers.alias(ids.name), dataset, table, path)
        first = pl.DataFrame({"key": keys, "row": range(len(keys))}).unique("key", keep="first")
        rows = names.to_frame("key").join(first, on="key", how="left", maintain_order="left")["row"]
        wrong = names.filter(rows.is_null())
    if len(wrong):
        raise ContractError(
            f"{path}: column '{ids.name}' names '{wrong[0]}', which is no {ids.name} window of this protocol and split "
            f"({len(wrong)} of {len(ids)} rows; ids are keys of centre frames, or row numbers below {table.height})"
        )
    return rows.cast(pl.Int32)


def _rank(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Predictions with ranks from 1 without gaps, and distances."""
    if table.select("query", "database").is_duplicated().any():
        raise ContractError(f"{path}: a query names the same database window twice")
    if "rank" in table.columns:
        if table.select("query", "rank").is_duplicated().any():
            raise ContractError(f"{path}: column 'rank' holds a rank twice for one query")
        ordered = table.sort("query", "rank")
    elif "distance" in table.columns:
        ordered = table.sort("query", "distance", maintain_order=True)
    else:
        ordered = table.sort("query", maintain_order=True)
    ranked = ordered.with_columns(pl.int_range(1, pl.len() + 1).over("query").alias("rank"))
    if int(ranked["rank"].max() or 0) > DEEPEST:  # type: ignore[arg-type]
        raise ContractError(f"{path}: more than {DEEPEST} predictions for a query; keep the first hundred")
    if "distance" not in ranked.columns:
        ranked = ranked.with_columns(pl.lit(float("nan"), pl.Float32).alias("distance"))
    return ranked.select("query", pl.col("rank").cast(pl.Int16), "database", pl.col("distance").cast(pl.Float32))


def _table(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema_length=0)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not readable as {path.suffix.lower() or 'CSV'} ({error})") from error


def _json(path: Path) -> pl.DataFrame:
    try:
        data = json.loads(_text(path))
        if isinstance(data, dict):
            pairs = [(query, one) for query, ranked in data.items() for one in ranked]
            return pl.DataFrame(pairs, schema=["query", "database"], orient="row", strict=True)
        if not isinstance(data, list):
            raise TypeError("neither an object nor a list")
        return pl.DataFrame(data, strict=True)
    except (ValueError, TypeError, RecursionError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not JSON of the form {{query: [database, ...]}} ({error})") from error


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: not readable as text ({error})") from error

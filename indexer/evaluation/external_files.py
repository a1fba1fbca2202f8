"""Files of other programs: lists of ids, and ranked predictions in Parquet, CSV or JSON.

A file has one meaning: its ids are all keys of frames or all row numbers, in both columns and in every kind of file,
and one column (or the order of its rows) gives the ranks. Where two meanings would fit, it is refused.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from indexer.evaluation.predictions import HEADER, PredictionsInfo
from indexer.evaluation.scoring import make_info
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.tables import table_contract
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, SeqdataError
from seqdata.storage.parquet import read_metadata, read_parquet

SIDES = ("query", "database")
SIMILARITIES = ("score", "similarity")
NUMBERS: dict[str, type[pl.DataType]] = {
    "rank": pl.Int64,
    "distance": pl.Float64,
    "score": pl.Float64,
    "similarity": pl.Float64,
}
DEEPEST = 32_767
"""Greatest rank of a predictions table, whose ranks are int16."""
REVERSED_STEPS = 10
"""Falling steps from row to row, none rising, before an order is called reversed: chance in one of a thousand files."""

IdKind = Literal["auto", "keys", "rows"]


def is_own(path: Path) -> bool:
    """Say whether a file is one of the product's own predictions files, which know what they answer."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return HEADER in read_metadata(path)
    except (SeqdataError, OSError, ValueError, pl.exceptions.PolarsError):
        return False


def read_ids(path: Path) -> pl.Series:
    """Read ids, one a row, as text.

    Args:
        path: A text file with one id a line, or CSV or Parquet with a column `key` (or one column only).

    Raises:
        InputError: If there is no such file.
        ContractError: If it holds no such column.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        lines = (line.strip() for line in _read_text(path).splitlines())
        return pl.Series("key", [line for line in lines if line], pl.String)
    table = _read_table(path)
    if "key" not in table.columns and table.width != 1:
        raise ContractError(f"{path}: no column 'key' among {', '.join(table.columns) or 'none'}")
    return _as_text(table["key" if "key" in table.columns else table.columns[0]], path).alias("key")


def _as_text(ids: pl.Series, path: Path) -> pl.Series:
    """Ids as text. Raises: ContractError for a type that has none, such as lists."""
    try:
        return ids.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise ContractError(f"{path}: column '{ids.name}' holds {ids.dtype}, not ids") from error


def read_predictions(
    dataset: Dataset,
    protocol: Protocol,
    split: str,
    path: Path,
    name: str | None = None,
    ids: IdKind = "auto",
) -> tuple[pl.DataFrame, PredictionsInfo]:
    """Read the ranked database windows of each query from a file of any other model.

    Parquet or CSV with columns `query` and `database`, one row a pair, and what ranks them: `rank` (from the nearest
    on), `distance` (least first), `score` or `similarity` (greatest first); without any of them the order of the rows
    is the rank. JSON: an object of each query's ranked list, `{"query": ["database", …]}`, or a list of objects with
    these columns. A query without predictions is a miss.

    Convention: ids are keys of the windows' centre frames, or rows of the protocol's window tables counted from 0;
    which of the two is decided once for a file. A similarity is stored as the distance `-similarity`, so that
    precision-recall is known; without distances or similarities it is NaN and precision-recall is not.

    Args:
        dataset: The dataset whose windows are named.
        protocol: The protocol that cuts them.
        split: Split of the protocol.
        path: The file.
        name: What a table of results calls the model; default: the file's name.
        ids: What ids are, where a file fits both ways.

    Returns:
        Table contract `predictions`, and what it answers; `ranked_by` of it names what gave the ranks.

    Raises:
        InputError: If there is no such file.
        ContractError: If something in it does not fit: the first id, rank or column is named.
    """
    queries, database = (dataset.sequences(protocol, split, role) for role in SIDES)
    table = _read_pairs(path)
    keys = {"query": dataset.places(queries)["key"], "database": dataset.places(database)["key"]}
    table, ranked_by = _rank(table.with_columns(**_window_rows(table, keys, ids, path)), path)
    table = table_contract("predictions").conform(table.sort("query", "rank"))
    info = make_info(dataset, protocol, split, queries, database, method=name or path.stem)
    return table, info.model_copy(update={"ranked_by": ranked_by})


def _read_pairs(path: Path) -> pl.DataFrame:
    """The pairs of a file with those of its columns that have a meaning; ids are text."""
    table = _read_json(path) if path.suffix.lower() == ".json" else _read_table(path)
    # Other programs write Query, DATABASE or ' score'; only the spelling of known columns is evened out.
    names = {column: column.strip().lower() for column in table.columns}
    names = {column: name for column, name in names.items() if name in SIDES or name in NUMBERS}
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None:
        raise ContractError(f"{path}: several columns are called '{twice}'; keep one")
    table = table.rename(names)
    missing = [name for name in SIDES if name not in table.columns]
    if missing or not table.height:
        fault = f"no column '{missing[0]}'" if missing else "no predictions in it"
        raise ContractError(
            f"{path}: {fault}; columns query and database are needed, rank, distance or score may be there"
        )
    numbers = [name for name in NUMBERS if name in table.columns]
    if not numbers:
        _refuse_unknown_order(table, path)
    table = table.select(*SIDES, *numbers)
    for side in SIDES:
        kind = table.schema[side]
        if not (kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum)):
            raise ContractError(f"{path}: column '{side}' holds {kind}; ids are text or integers")
    table = table.with_columns(
        *(pl.col(side).cast(pl.String) for side in SIDES), *(_as_numbers(table[name], path) for name in numbers)
    )
    empty = [name for name in table.columns if table[name].null_count()]
    if empty:
        raise ContractError(f"{path}: column '{empty[0]}' has empty cells")
    return table


def _as_numbers(column: pl.Series, path: Path) -> pl.Series:
    """A column as the type of its name, nulls kept. Raises: ContractError for the first cell that is no such number."""
    kind = NUMBERS[column.name]
    # Spreadsheets and pandas write whole numbers as 3.0 once a column had an empty cell.
    values = column.cast(pl.Float64, strict=False)
    wrong = values.is_null() & column.is_not_null()
    if kind.is_integer():
        wrong |= (values != values.round()).fill_null(value=False) | values.is_infinite().fill_null(value=False)
    if wrong.any():
        row, what = wrong.arg_true()[0], "whole number" if kind.is_integer() else "number"
        raise ContractError(f"{path}: column '{column.name}' has {str(column[row])[:40]!r} in row {row + 1}, no {what}")
    return values.cast(kind)


def _refuse_unknown_order(table: pl.DataFrame, path: Path) -> None:
    """Raise ContractError for a column of numbers that may be what ranks the rows, but is called otherwise."""
    for name in table.columns:
        is_text_or_number = table.schema[name].is_numeric() or table.schema[name] == pl.String
        if name not in SIDES and is_text_or_number and not table[name].cast(pl.Float64, strict=False).null_count():
            raise ContractError(
                f"{path}: column '{name}' holds numbers, but it is not known whether they rank the rows; call it "
                "'distance' (least first), 'score' (greatest first) or 'rank', or leave it out"
            )


def _window_rows(table: pl.DataFrame, keys: dict[str, pl.Series], ids: IdKind, path: Path) -> dict[str, pl.Series]:
    """Rows of the two window tables that a file's ids name, all of them keys or all of them row numbers."""
    readings: dict[str, dict[str, pl.Series]] = {
        "keys": {side: _rows_of_keys(table[side], keys[side]) for side in SIDES},
        "rows": {side: _rows_of_numbers(table[side], len(keys[side])) for side in SIDES},
    }
    fitting = [kind for kind, rows in readings.items() if not any(rows[side].null_count() for side in SIDES)]
    if ids == "auto" and len(fitting) == 2:
        if any((readings["keys"][side] != readings["rows"][side]).any() for side in SIDES):
            raise ContractError(
                f"{path}: its ids fit as keys of centre frames and as row numbers, which are other windows; say which "
                "they are with --ids keys or --ids rows"
            )
        return readings["keys"]
    kind = ids if ids != "auto" else fitting[0] if fitting else _likelier_kind(readings)
    rows = readings[kind]
    for side in SIDES:
        wrong = table[side].filter(rows[side].is_null())
        if len(wrong):
            raise ContractError(
                f"{path}: column '{side}' names '{wrong[0]}', which is no {side} window of this protocol and split "
                f"({len(wrong)} of {table.height} rows; ids are keys of centre frames, or row numbers below "
                f"{len(keys[side])}, in both columns alike)"
            )
    return rows


def _likelier_kind(readings: dict[str, dict[str, pl.Series]]) -> str:
    """Which of two readings that both fail leaves fewer ids unexplained: its first wrong id is then named."""
    return min(readings, key=lambda kind: sum(rows.null_count() for rows in readings[kind].values()))


def _rows_of_keys(ids: pl.Series, keys: pl.Series) -> pl.Series:
    """Rows of the windows whose centre frames have these keys, null where there is none."""
    if not ids.is_in(keys.implode()).all():
        # A spreadsheet turns the key 0007 into 7: where the keys differ as numbers too, that one is meant.
        id_numbers, numbers = (texts.cast(pl.Int64, strict=False) for texts in (ids, keys))
        if not id_numbers.null_count() + numbers.null_count() and numbers.n_unique() == keys.n_unique():
            ids, keys = id_numbers, numbers
    by_key = pl.DataFrame({"id": keys, "row": range(len(keys))}).unique("id", keep="first")
    return ids.to_frame("id").join(by_key, on="id", how="left", maintain_order="left")["row"].cast(pl.Int32)


def _rows_of_numbers(ids: pl.Series, count: int) -> pl.Series:
    """Ids as row numbers below `count`, null where they are none; 007 is a key and no number."""
    numbers = ids.cast(pl.Int64, strict=False)
    # Written back and compared: 007, +7 and 7.0 are no row numbers.
    is_row = numbers.is_between(0, count - 1) & (numbers.cast(pl.String) == ids)
    return pl.select(pl.when(is_row).then(numbers).cast(pl.Int32)).to_series()


def _rank(table: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, str]:
    """Predictions with ranks from 1 without gaps and with distances, and what gave the ranks, in words."""
    if table.select(SIDES).is_duplicated().any():
        raise ContractError(f"{path}: a query names the same database window twice")
    table, measure = _with_distances(table, path)
    # An explicit rank outranks every measure: a re-ranked list keeps the distances of its first search.
    if "rank" in table.columns:
        if table.select("query", "rank").is_duplicated().any():
            raise ContractError(f"{path}: column 'rank' holds a rank twice for one query")
        ordered, ranked_by = table.sort("query", "rank"), "column 'rank'"
        _refuse_reversed(ordered, measure, "'rank' rises", path)
    elif measure is not None:
        if measure == "distance":
            _refuse_reversed(table.sort("query", maintain_order=True), measure, "the file goes on", path)
        ordered = table.sort("query", "distance", maintain_order=True)
        ranked_by = f"column '{measure}', {'least' if measure == 'distance' else 'greatest'} first"
    else:
        ordered, ranked_by = table.sort("query", maintain_order=True), "the order of its rows"
    ranked = ordered.with_columns(pl.int_range(1, pl.len() + 1).over("query").alias("rank"))
    if int(ranked["rank"].max() or 0) > DEEPEST:  # type: ignore[arg-type]
        raise ContractError(f"{path}: more than {DEEPEST} predictions for a query; keep the first hundred")
    # Sorted as float64, stored as float32: similarities that agree in seven digits keep their order.
    columns = ("query", pl.col("rank").cast(pl.Int16), "database", pl.col("distance").cast(pl.Float32))
    return ranked.select(columns), ranked_by


def _with_distances(table: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, str | None]:
    """The table with a column `distance`, from the column that measures, whose name is returned; NaN without one."""
    measures = [name for name in ("distance", *SIMILARITIES) if name in table.columns]
    for name in measures:
        rows = np.flatnonzero(table[name].is_nan().to_numpy())
        if len(rows):
            raise ContractError(
                f"{path}: column '{name}' is NaN in {len(rows)} rows, first in row {rows[0] + 1} "
                f"(query {table['query'][int(rows[0])]}); such a pair has no rank, leave it out"
            )
    if not measures:
        return table.with_columns(pl.lit(float("nan"), pl.Float64).alias("distance")), None
    if "distance" in measures and float(table["distance"].min() or 0) < 0:  # type: ignore[arg-type]
        raise ContractError(
            f"{path}: column 'distance' holds negative numbers, which no distance is; call it 'similarity' if the "
            "greatest is the nearest"
        )
    lengths = [table[name] if name == "distance" else -table[name] for name in measures]
    # Two measures that agree are one; two that do not leave open which of them was meant.
    for name, other in zip(measures[1:], lengths[1:], strict=True):
        ordered = table.select("query", first=lengths[0], other=other).sort("query", "first", "other")
        if (ordered["other"].diff() < 0).filter(ordered["query"].diff() == 0).any():
            raise ContractError(f"{path}: columns '{measures[0]}' and '{name}' rank differently; keep one of them")
    return table.with_columns(lengths[0].alias("distance")), measures[0]


def _refuse_reversed(ordered: pl.DataFrame, measure: str | None, where: str, path: Path) -> None:
    """Raise ContractError where every query's distances fall from row to row: they are similarities."""
    steps = ordered["distance"].diff().filter(ordered["query"].diff() == 0)
    if measure is None or not (steps <= 0).all() or (steps < 0).sum() < REVERSED_STEPS:
        return
    if measure != "distance":
        raise ContractError(f"{path}: rank 1 has the lowest '{measure}' of every query; it must be the nearest")
    raise ContractError(
        f"{path}: column 'distance' falls within every query as {where}; call it 'similarity' if the greatest is "
        "the nearest"
    )


def _read_table(path: Path) -> pl.DataFrame:
    """A Parquet file, or CSV with every cell as text."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        raise ContractError(f"{path}: an array; ids and predictions are read from Parquet, CSV or JSON")
    # Cells stay text: a column of keys such as 0007 or 1e5 must not become numbers by guessing.
    if suffix == ".parquet":
        return read_parquet(path)
    try:
        return pl.read_csv(path, infer_schema_length=0)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not readable as {suffix or 'CSV'} ({error})") from error


def _read_json(path: Path) -> pl.DataFrame:
    """A JSON object of ranked lists, or a list of objects with one pair each."""
    try:
        data = json.loads(_read_text(path))
        if isinstance(data, dict):
            if not all(isinstance(ranked, list) for ranked in data.values()):
                raise TypeError("a query's value is no list")
            pairs = [(query, str(one)) for query, ranked in data.items() for one in ranked if _is_id(one)]
            return pl.DataFrame(pairs, schema={"query": pl.String, "database": pl.String}, orient="row")
        if not isinstance(data, list):
            raise TypeError("neither an object nor a list")
        return pl.DataFrame(data)
    except (ValueError, TypeError, RecursionError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"{path}: not JSON of the form {{query: [database, ...]}} ({error})") from error


def _is_id(value: object) -> bool:
    """Whether a JSON value is an id. Raises: TypeError when it is something else, such as a pair with a score."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"an id is text or a whole number, not {value!r:.40}")
    return True


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        # Spreadsheets begin their files with a byte order mark, which utf-8-sig takes away.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: not readable as text ({error})") from error

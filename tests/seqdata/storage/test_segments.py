"""Tables in several files with rows left out, against the plain table that they stand for."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqdata.storage import parquet
from seqdata.storage.parquet import parquet_writer
from seqdata.storage.segments import SegmentedTable

COLUMNS = ("number", "text", "flag")


def write(path: Path, table: pl.DataFrame, rows: int) -> None:
    """A Parquet file of row groups of `rows` rows, its columns in another order, and one column more."""
    wider = table.select(*reversed(table.columns), pl.lit(0).alias("more"))
    with parquet_writer(path, wider.schema, one_group=True) as put:
        for part in wider.iter_slices(rows):
            put(part)


@pytest.fixture(params=[0, 1, 2])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SegmentedTable, pl.DataFrame]:
    """A segmented table and what it stands for, by filter and join."""
    rng = np.random.default_rng(request.param)
    sizes = rng.integers(1, 40, 3)
    every = pl.DataFrame(
        {
            "number": np.arange(sizes.sum()),
            "text": [f"t{n % 5}" for n in range(sizes.sum())],
            "flag": rng.random(sizes.sum()) < 0.5,
        }
    )
    paths, first = [], 0
    for index, size in enumerate(sizes.tolist()):
        paths.append(tmp_path / f"{index}.parquet")
        write(paths[-1], every[first : first + size], 7)
        first += size
    shuffled = rng.permutation(every.height)
    # Whole row groups go too: the first seven rows.
    removed = np.union1d(shuffled[: every.height // 3], np.arange(7))
    changed = np.setdiff1d(shuffled[-every.height // 3 :], removed)
    flags = pl.DataFrame({"flag": ~every["flag"].to_numpy()[changed]})
    table = SegmentedTable(tuple(paths), COLUMNS, removed, changed, flags)
    new = every["flag"].to_numpy().copy()
    new[changed] = ~new[changed]
    plain = every.with_columns(pl.Series("flag", new)).filter(~pl.Series(np.isin(np.arange(every.height), removed)))
    return table, plain


def test_one_table_is_read(both: tuple[SegmentedTable, pl.DataFrame]) -> None:
    table, plain = both
    assert table.height == plain.height
    assert_frame_equal(table.scan().collect(), plain)
    assert_frame_equal(pl.concat(table.blocks()), plain)
    assert_frame_equal(table.scan().select("flag", "number").collect(), plain.select("flag", "number"))
    assert_frame_equal(table.scan().head(9).collect(), plain.head(9))
    assert_frame_equal(table.scan().slice(5, 4).collect(), plain.slice(5, 4))
    assert table.scan().select(pl.len()).collect().item() == plain.height
    condition = (pl.col("text") == "t3") & pl.col("flag")
    assert_frame_equal(
        table.scan().filter(condition).select("number").collect(), plain.filter(condition).select("number")
    )
    assert_frame_equal(
        table.scan().with_row_index("row").filter(condition).collect(), plain.with_row_index("row").filter(condition)
    )
    grouped = [
        either.lazy().group_by("text").agg(pl.col("number").sum()).sort("text") for either in (table.scan(), plain)
    ]
    assert_frame_equal(grouped[0].collect(engine="streaming"), grouped[1].collect())


def test_rows_are_found_both_ways(both: tuple[SegmentedTable, pl.DataFrame]) -> None:
    table, plain = both
    rows = np.arange(plain.height)
    np.testing.assert_array_equal(table.stored_rows(rows), plain["number"].to_numpy())
    np.testing.assert_array_equal(table.rows_of(plain["number"].to_numpy()), rows)


def test_a_whole_file_is_scanned_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pl.DataFrame({"number": range(20), "text": ["t"] * 20, "flag": [True] * 20})
    write(tmp_path / "one.parquet", table, 7)
    scanned = []
    monkeypatch.setattr(
        "seqdata.storage.segments.scan_parquet", lambda path: scanned.append(path) or parquet.scan_parquet(path)
    )
    assert_frame_equal(SegmentedTable((tmp_path / "one.parquet",), COLUMNS).scan().select(COLUMNS).collect(), table)
    assert scanned == [tmp_path / "one.parquet"]

"""Predictions on disk: round trip and refusals."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from indexer.evaluation import predictions
from seqdata import protocols
from seqdata.errors import ContractError, InputError

INFO = predictions.PredictionsInfo(
    dataset="d" * 64, protocol="demo", protocol_hash="0123456789ab", split="test", query_table="q", database_table="d",
    method="ours", index="a" * 16, queries=3, database=9,
)  # fmt: skip


def some() -> pl.DataFrame:
    return predictions.table([[0.5, 0.75], [0.25, 0.5]], [[3, 4], [8, 0]], [2, 0])


def test_table() -> None:
    assert some().rows() == [(2, 1, 3, 0.5), (2, 2, 4, 0.75), (0, 1, 8, 0.25), (0, 2, 0, 0.5)]
    with pytest.raises(ContractError):
        predictions.table(np.zeros((2, 3)), np.zeros((2, 4)))


def test_round_trip(tmp_path: Path) -> None:
    predictions.write(tmp_path / "p.parquet", some(), INFO)
    table, info = predictions.read(tmp_path / "p.parquet")
    assert table.equals(some())
    assert info == INFO
    assert predictions.read_info(tmp_path / "p.parquet") == INFO


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    for read in (predictions.read, predictions.read_info):
        path.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"p\.parquet"):
            read(path)
        for data in (b"", b"PAR1 something else"):
            path.write_bytes(data)
            with pytest.raises(ContractError, match=r"p\.parquet"):
                read(path)
        some().write_parquet(path)
        with pytest.raises(ContractError, match="not a predictions file"):
            read(path)
    wrong = {"outside": some().with_columns(pl.lit(9, pl.Int32).alias("database")),
             "from zero": some().with_columns(pl.col("rank") - 1),
             "twice": pl.concat([some(), some()]),
             "type": some().with_columns(pl.col("rank").cast(pl.Int64))}  # fmt: skip
    for table in wrong.values():
        with pytest.raises(ContractError, match=r"p\.parquet"):
            predictions.write(path, table, INFO)


def test_under_another_protocol_only_the_protocol_differs() -> None:
    other = protocols.load("own")
    moved = INFO.under(other)
    assert (moved.protocol, moved.protocol_hash) == (other.name, other.hash)
    assert moved.model_copy(update={"protocol": INFO.protocol, "protocol_hash": INFO.protocol_hash}) == INFO

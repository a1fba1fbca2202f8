"""The validator: when a split can be measured, which frames it reads, and that each city is searched alone."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer.evaluation import predictions
from seqdata import protocols
from seqdata.geometry import Float32Array
from tests.support.fake_dataset import Drive, FakeDataset, write_protocol
from tests.support.rank_threads import together
from train.loop.validation import Validator

MAP, NEAR, FAR = (
    Drive("map", "database", 0.0, 9, "val"),
    Drive("query", "query", 1.0, 6, "val"),
    Drive("query", "query", 900.0, 6, "val"),
)


@pytest.mark.parametrize(
    ("drives", "usable"),
    [((MAP, NEAR), True), ((MAP, FAR), False), ((MAP,), False), ((NEAR,), False), ((), False)],
)
def test_a_split_without_a_query_that_has_a_positive_is_not_used(
    drives: tuple[Drive, ...], usable: bool, tmp_path: Path
) -> None:
    dataset = FakeDataset(drives=(*drives, Drive("train", "database", 0.0, 5)))
    validator = Validator(dataset, protocols.load(write_protocol(tmp_path)))
    assert validator.usable is usable
    assert len(validator.frame_rows()) == ((9 - 2) + (6 - 2) if usable else 0)


def test_a_protocol_without_the_split_is_not_used(tmp_path: Path) -> None:
    validator = Validator(FakeDataset(), protocols.load(write_protocol(tmp_path)), "test")
    assert not validator.usable
    assert validator.frame_rows().shape == (0, 0)


@pytest.mark.parametrize(("pool", "r1"), [("together", 0.0), ("each", 1.0)])
def test_cities_are_searched_alone_where_the_protocol_says_so(pool: str, r1: float, tmp_path: Path) -> None:
    """A window of another city equals each query, the right one is a little off."""
    there = Drive("map-there", "database", 5000.0, 9, "val", "there")
    validator = Validator(FakeDataset(drives=(MAP, NEAR, there)), protocols.load(write_protocol(tmp_path, pool=pool)))
    places = np.concatenate([np.arange(4) + 0.5, np.arange(7), np.arange(7) + 0.5]).astype(np.float32)
    recalls = validator(lambda table: places[:, None])
    assert recalls["r1"] == r1
    assert recalls["r10"] == 1.0


@pytest.mark.parametrize("pool", ["together", "each"])
@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("size", [2, 3, 20])
def test_processes_that_search_a_share_each_find_what_one_does(
    pool: str, frames: int | None, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the database, more processes than windows too; many descriptors are equal."""
    there = Drive("map-there", "database", 5000.0, 9, "val", "there")
    dataset = FakeDataset(drives=(MAP, NEAR, there))
    validator = Validator(dataset, protocols.load(write_protocol(tmp_path, pool=pool)))
    vectors = np.random.default_rng(4).integers(0, 3, (dataset.frame_count, 4)).astype(np.float32)
    tables: list[Any] = []
    described: list[int] = []

    def describe(table: pl.DataFrame) -> Float32Array:
        described.append(len(table))
        return vectors[table["centre"].to_numpy()]

    plain = predictions.table
    monkeypatch.setattr(predictions, "table", lambda *parts: tables.append(parts) or plain(*parts))
    expected = validator(describe, frames)
    assert together(size, lambda ranks: validator(describe, frames, ranks)) == [expected] * size
    (distances, rows), *others = tables
    for other_distances, other_rows in others:
        np.testing.assert_array_equal(other_rows, rows)
        np.testing.assert_array_equal(other_distances, distances)
    assert sum(described[1:]) == described[0] and max(described[1:]) <= -(-described[0] // size) + 1

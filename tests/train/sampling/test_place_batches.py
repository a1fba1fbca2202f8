"""Place batches: who may stand together, and what an epoch is a function of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train
from seqdata.errors import NotEnoughDataError
from tests.support.fake_dataset import Drive, FakeDataset, write_protocol
from train.sampling.pairs import Radii
from train.sampling.place_batches import PlaceSampler
from train.settings import TrainSettings


def sampler(data: Any, radii: Any = Radii(2.5, 6.0), length: Any = 1, **options: Any) -> Any:  # noqa: B008
    queries, database = (data.sequences(split="train", role=role, length=length) for role in ("query", "database"))
    return PlaceSampler(data, queries, database, radii, **options)


def distances(data: Any, made: Any, rows: Any) -> Any:
    import polars as pl

    table = pl.concat([made.queries, made.database])[rows]
    return data.distances(table, table).min((2, 3))


def test_no_two_places_are_near_unless_positive(data: FakeDataset) -> None:
    made = sampler(data, places=3, windows=3)
    for batch in made.epoch(1, 6):
        least = distances(data, made, batch.windows)
        queries = [i for i, row in enumerate(batch.windows) if row < len(made.queries)]
        assert len(queries) == 3
        assert all(least[a, b] >= 6.0 for a in queries for b in queries if a != b)
        assert batch.positive.any(1).sum() >= 6


def test_any_two_windows_of_a_batch_are_positive_or_far(data: FakeDataset) -> None:
    """Every pair, not only queries: positives on opposite sides of a query are strangers to each other."""
    made = sampler(data, Radii(3.5, 6.0), places=3, windows=6)
    sizes = set()
    for batch in made.epoch(1, 8):
        least, off = distances(data, made, batch.windows), ~np.eye(len(batch.windows), dtype=bool)
        assert ((least < 3.5) | (least >= 6.0)).all()
        assert np.array_equal(batch.positive, (least < 3.5) & off)
        sizes |= {int(row.sum()) + 1 for row in batch.positive}
    assert len(sizes) > 1 and max(sizes) > 3


@pytest.mark.parametrize("windows", [2, 3, 6])
def test_members_are_the_nearest_that_agree(data: FakeDataset, windows: Any) -> None:
    """Against a literal loop over the distances."""
    made = sampler(data, Radii(3.5, 6.0), places=3, windows=windows)
    made._find_members(np.arange(len(made.queries)))
    count = len(made.queries)
    least = distances(data, made, np.arange(count + len(made.database)))
    fewer = 0
    for query in range(count):
        near = [row for row in range(count, len(least)) if least[query, row] < 3.5]
        chosen = []
        for row in sorted(near, key=lambda row: (least[query, row], row)):
            if len(chosen) < windows - 1 and all(least[row, other] < 3.5 for other in chosen):
                chosen.append(row)
        found = made._members[query]
        assert (found[found >= 0] + count).tolist() == chosen
        fewer += 0 < len(chosen) < min(len(near), windows - 1)
    assert fewer > 0 or windows < 6


@pytest.mark.parametrize("run", [1, 4])
def test_masks_are_geometry(data: FakeDataset, run: Any) -> None:
    made = sampler(data, places=8, windows=2, run=run)
    for batch in made.epoch(0, 3):
        least, off = distances(data, made, batch.windows), ~np.eye(len(batch.windows), dtype=bool)
        assert np.array_equal(batch.positive, (least < 2.5) & off)
        assert np.array_equal(batch.negative, (least >= 6.0) & off)


def test_runs_are_neighbours_of_one_drive(data: FakeDataset) -> None:
    made = sampler(data, Radii(2.5, 2.5), length=3, places=4, windows=2, run=4)
    for batch in made.epoch(2, 5):
        queries = batch.windows[batch.windows < len(made.queries)]
        assert np.array_equal(queries, np.arange(queries[0], queries[0] + 4))
        assert made.queries[queries]["trajectory"].n_unique() == 1


def test_crossing_pairs_only(data: FakeDataset) -> None:
    plain, crossing = (sampler(data, places=8, windows=2, run=4, cross=cross) for cross in (False, True))
    for one, other in zip(plain.epoch(0, 2), crossing.epoch(0, 2), strict=True):
        query = one.windows < len(plain.queries)
        differ = query[:, None] != query[None, :]
        assert np.array_equal(one.windows, other.windows)
        assert np.array_equal(other.positive, one.positive & differ) and other.positive.any()
        assert np.array_equal(other.negative, one.negative & differ) and not other.negative[~differ].any()


def test_pure_function_of_seed_and_epoch(data: FakeDataset) -> None:
    one = [batch.windows.tolist() for batch in sampler(data, places=3, seed=1).epoch(4, 5)]
    same = [batch.windows.tolist() for batch in sampler(data, places=3, seed=1).epoch(4, 5)]
    epoch = [batch.windows.tolist() for batch in sampler(data, places=3, seed=1).epoch(5, 5)]
    seed = [batch.windows.tolist() for batch in sampler(data, places=3, seed=2).epoch(4, 5)]
    assert one == same and one != epoch and one != seed and len(one) == 5


def test_wrong_numbers_and_empty_truth(data: FakeDataset) -> None:
    with pytest.raises(ValueError, match="places >= run"):
        sampler(data, places=2, run=3)
    with pytest.raises(NotEnoughDataError, match="raise the positive radius"):
        next(iter(sampler(data, Radii(1e-6, 1e-6)).epoch(0, 1)))
    with pytest.raises(NotEnoughDataError, match="lower the run"):
        next(iter(sampler(data, places=64, run=40).epoch(0, 1)))


@pytest.mark.parametrize("loss", ["multi-similarity", "contrastive"])
def test_a_route_within_the_negative_radius_is_refused_before_the_first_step(tmp_path: Path, loss: str) -> None:
    """Every window lies near every other: no pair of any batch is a negative, and no weight would ever move."""
    short = FakeDataset(drives=(Drive("map", "database", 0.0, 9), Drive("query", "query", 0.5, 9)))
    protocol = write_protocol(tmp_path, negative=400.0)
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4}
    chosen = TrainSettings.create(
        protocol=protocol, model="seqvlad-small", options=options, weights="random", regime="places", loss=loss,
        places=4, steps=3, epochs=1, device="cpu", kmeans_frames=0,
    )  # fmt: skip
    with pytest.raises(NotEnoughDataError, match="within 400 metres of each other; lower the negative radius"):
        train.fit(short, chosen, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0]


def test_batches_of_one_place_have_no_negative(data: FakeDataset) -> None:
    with pytest.raises(NotEnoughDataError, match="no place batch has a negative"):
        next(sampler(data, places=1).epoch(1, 4))

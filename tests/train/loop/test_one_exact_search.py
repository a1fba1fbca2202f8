"""One exact search behind every door: on real frames, an index, `eval --descriptors` and validation agree exactly.

Descriptors are windows' small grey pictures, taken as they are, about a common offset, and as near-equal unit vectors.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import indexer
import seqdata
from indexer.evaluation.external_descriptors import search_descriptors
from indexer.evaluation.recall import recall_at
from indexer.evaluation.scoring import score
from indexer.evaluation.truth import load_truth
from seqdata.build.builder import BuildRequest, build
from seqdata.geometry import Float32Array, Float64Array
from tests.support.indexes import make_places
from train.loop.validation import Validator

DEPTH = 20
Change = Callable[[Float64Array], Float64Array]
CHANGES: dict[str, Change] = {
    "as they are": lambda x: x,
    "offset 8000": lambda x: x + 8000,
    "unit vectors, spread 3e-4": lambda x: _unit(1 + 3e-4 * _unit(x)),
}


def _unit(x: Float64Array) -> Float64Array:
    rows: Float64Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return rows


def pictures(dataset: seqdata.Dataset, table: pl.DataFrame) -> Float64Array:
    """Windows (n, D) as the grey values of their frames, an 8 x 8 grid a frame, side by side."""
    rows = dataset.frame_rows(table)
    frames, places = np.unique(rows, return_inverse=True)
    grey = np.concatenate([dataset.read_frames(part).mean(1) for part in np.array_split(frames, len(frames) // 50 + 1)])
    count, height, width = grey.shape
    cells = grey[:, : height // 8 * 8, : width // 8 * 8].reshape(count, 8, height // 8, 8, width // 8)
    return cells.mean((2, 4)).reshape(count, -1)[places].reshape(len(rows), -1)


@pytest.fixture(scope="module", params=["corridor", "nordland-tenth"])
def drive(request: pytest.FixtureRequest, real: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A dataset, its protocol, and the pictures of query and database windows."""
    out = tmp_path_factory.mktemp(request.param) / "dataset"
    if request.param == "corridor":
        build(BuildRequest("folder", real / "corridor", out, protocol=seqdata.protocols.load("own")))
        protocol = seqdata.protocols.load("own")
    else:
        protocol = seqdata.protocols.load("nordland-tenth")
        build(BuildRequest("nordland", real / "nordland", out, protocol=protocol))
    dataset = seqdata.open(out)
    tables = [dataset.sequences(protocol, "test", role) for role in ("query", "database")]
    return dataset, protocol, *(pictures(dataset, table) for table in tables)


def literal(queries: Float32Array, database: Float32Array) -> list[list[int]]:
    """Rows by distance in float64, equal ones by row."""
    nearest = []
    for query in queries.astype(np.float64):
        distances = np.linalg.norm(database.astype(np.float64) - query, axis=1).astype(np.float32)
        nearest.append(np.lexsort((np.arange(len(database)), distances))[:DEPTH].tolist())
    return nearest


@pytest.mark.real
@pytest.mark.parametrize("change", CHANGES)
def test_every_door_gives_the_same_neighbours_and_recall(drive: tuple, change: str, tmp_path: Path) -> None:
    dataset, protocol, *parts = drive
    queries, database = (CHANGES[change](part).astype(np.float32) for part in parts)
    expected = literal(queries, database)

    np.save(tmp_path / "query.npy", queries)
    np.save(tmp_path / "database.npy", database)
    answers, info = search_descriptors(dataset, protocol, "test", tmp_path / "query.npy", tmp_path / "database.npy")
    by_descriptors = answers.sort("query", "rank")["database"].to_numpy().reshape(len(queries), -1)[:, :DEPTH]
    evaluation = score(dataset, protocol, answers, info)

    places = make_places(len(database))
    version = indexer.build(tmp_path / "index", blocks=iter([database]), places=places, transform=None, inputs={})
    distances, by_index = indexer.open(version).search(queries, DEPTH)

    validation = Validator(dataset, protocol, "test")(lambda table: np.concatenate([queries, database]))

    assert by_descriptors.tolist() == by_index.tolist() == expected
    recalls = recall_at(indexer.evaluation.predictions.table(distances, by_index), load_truth(dataset, protocol, info))
    for rank in (1, 5, 10):
        assert evaluation.recall[rank] == recalls[rank] == validation[f"r{rank}"]

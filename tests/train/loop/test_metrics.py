"""What a run says of itself, positives that must face the same way, and what mining costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from seqdata import protocols
from seqdata.errors import ContractError, NotEnoughDataError
from tests.support.fake_dataset import DRIVES, Drive, FakeDataset
from tests.train.loop.test_fit import settings
from train.data.describe import describe
from train.loop import fit as fit_module
from train.losses.multi_similarity import pair_statistics
from train.losses.triplet import TripletLoss
from train.models.registry import create
from train.runs import checkpoint
from train.sampling.mining import RoundSizes, Triplets, draw, mine
from train.sampling.pairs import PairGraph, Radii
from train.sampling.place_batches import PlaceSampler
from train.sampling.windows import TrainData

TURNED = (
    Drive("map-a", "database", 0.0, 20, heading=10.0),
    Drive("map-b", "database", 0.5, 20, heading=190.0),
    Drive("map-c", "database", 1.0, 20, heading=None),
    Drive("map-d", "database", 100.0, 20, heading=10.0),
    Drive("query", "query", 1.0, 18, heading=350.0),
)
FACING, ANY = Radii(2.5, 6.0, heading_max=30.0), Radii(2.5, 6.0)


def test_metrics_and_board(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    seen = []
    chosen = settings(protocol_file, lr_groups={"pooling": 1e-2})
    run = train.fit(data, chosen, tmp_path / "run", progress=lambda *event: seen.append(event))
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for entry in entries[1:]:
        assert entry["rates"] == {"base": 1e-3, "pooling": 1e-2} and 0 <= entry["active"] <= 1
        assert 0 <= entry["wait"] <= 1 and entry["seconds"] > 0 and np.isfinite(entry["hardness"])
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    for name, values in entries[0]["val"].items():
        events = board.Scalars(f"val/{name}")
        assert [event.step for event in events] == [0, 1, 2] and events[0].value == pytest.approx(values)
    expected = {"loss", "learning_rate/base", "learning_rate/pooling", "active", "hardness", "wait", "val/r5"}
    assert expected <= set(board.Tags()["scalars"])
    losses = [loss for entry in entries[1:] for loss in entry["losses"]]
    assert [event.step for event in board.Scalars("loss")] == list(range(len(losses)))
    np.testing.assert_allclose([event.value for event in board.Scalars("loss")], losses, rtol=1e-6)
    steps = [(done, total, values) for phase, done, total, values in seen if phase == "train"]
    assert [done for done, _, _ in steps] == [1, 2, 3, 4] * 2 and {total for _, total, _ in steps} == {4}
    assert all({"epoch", "epochs", "loss"} <= values.keys() for _, _, values in steps)
    told = [values for phase, _, _, values in seen if phase == "epoch"]
    assert all({"loss", "active", "hardness", "wait", "r5"} <= values.keys() for values in told[1:])


def test_a_resumed_run_keeps_its_board(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    run = train.fit(data, settings(protocol_file, epochs=1), tmp_path / "run")
    train.fit(data, settings(protocol_file, epochs=2), run, resume=True)
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == list(range(8))


def uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 2 steps in odd epochs, of 1 in even ones."""

    def fewer(*arguments: Any, key: Any, **options: Any) -> Any:
        found = mine(*arguments, key=key, **options)
        keep = 6 if key[1] % 2 else 3
        return Triplets(found.query[:keep], found.positive[:keep], found.negatives[:keep])

    monkeypatch.setattr("train.sampling.regimes.mine", fewer)


@pytest.mark.parametrize("broken", ["add_metrics", "log_epoch", "save_model"])
def test_curves_go_on_step_by_step_whatever_an_epoch_holds(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    """Epochs of 4, 2 and 4 steps; dead in epoch 2 after it was kept, before or after it was told to the board."""
    uneven(monkeypatch)
    chosen, calls = settings(protocol_file, epochs=3), []

    def die(*arguments: Any) -> Any:
        calls.append(arguments)
        epochs = [a.get("epoch") for a in arguments if isinstance(a, dict)]
        if 2 in epochs and (broken != "save_model" or arguments[0].name in ("best", "last")):
            raise KeyboardInterrupt
        return real(*arguments)

    places = {"add_metrics": (fit_module.RunFolder, "add_metrics"), "log_epoch": (fit_module, "log_epoch"),
              "save_model": (checkpoint, "save_model")}  # fmt: skip
    real = getattr(*places[broken])
    with monkeypatch.context() as patched:
        patched.setattr(*places[broken], die if broken != "add_metrics" else lambda self, entry: die(self, entry))
        with pytest.raises(KeyboardInterrupt):
            train.fit(data, chosen, tmp_path / "run")
    run = train.fit(data, chosen, tmp_path / "run", resume=True)
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [loss for entry in entries for loss in entry.get("losses", [])]
    assert [entry["steps"] for entry in entries] == [0, 4, 2, 4] and calls
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    told = dict.fromkeys((event.step, event.value) for event in board.Scalars("loss"))  # an epoch may be told twice
    assert [step for step, _ in told] == list(range(10))
    np.testing.assert_allclose([value for _, value in told], losses, rtol=1e-6)
    assert {event.step for event in board.Scalars("val/r5")} == {0, 1, 2, 3}


def test_an_epoch_is_on_disk_when_it_is_told(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    seen = []

    def look(phase: Any, done: Any, total: Any, values: Any) -> None:
        if phase == "epoch":
            board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
            seen.append([event.step for event in board.Scalars("val/r5")])

    train.fit(data, settings(protocol_file), tmp_path / "run", progress=look)
    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_notes_of_triplets_equal_loops() -> None:
    query, positive, negatives = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 5, 6)
    active, gaps = 0, []
    for b in range(4):
        near = float((query[b] - positive[b]).norm())
        far = [float((query[b] - negatives[b, n]).norm()) for n in range(5)]
        active += sum(near - d + 0.3 > 0 for d in far)
        gaps.append(min(far) - near)
    found = TripletLoss(0.3).statistics(query, positive, negatives)
    assert found.tolist() == pytest.approx([active / 20, np.mean(gaps)], abs=1e-5)


def test_notes_of_pairs_equal_loops() -> None:
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(2))
    unit = F.normalize(vectors, dim=-1)
    positive, negative = torch.zeros(7, 7, dtype=torch.bool), torch.zeros(7, 7, dtype=torch.bool)
    for i, j in [(0, 1), (1, 0), (2, 3), (5, 6)]:
        positive[i, j] = True
    negative[:5, :] = ~positive[:5] & ~torch.eye(7, dtype=torch.bool)[:5]
    gaps = []
    for i, j in [(0, 1), (1, 0), (2, 3)]:  # window 5 has no negative
        far = min(float((unit[i] - unit[n]).norm()) for n in range(7) if negative[i, n])
        gaps.append(far - float((unit[i] - unit[j]).norm()))
    found = pair_statistics(vectors, positive, negative).tolist()
    assert found == pytest.approx([np.mean([gap < 0 for gap in gaps]), np.mean(gaps)], abs=1e-5)
    assert pair_statistics(vectors, torch.zeros(7, 7, dtype=torch.bool), negative).tolist() == [0, 0]


def test_a_mining_round_reads_each_distinct_frame_of_a_block_once(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    """Counted at the dataset; windows overlap by two frames of three, and batches of 7 frames cut them anywhere.

    A block is what is described at once: queries and candidates, then positives that are not among the candidates.
    """
    chosen = settings(protocol_file, epochs=1, cache_bytes=0, round_queries=20, frame_batch=7)
    run = train.fit(FakeDataset(), chosen, tmp_path / "run")
    mined = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["mined_frames"]
    windows = TrainData.from_split(data, protocols.load(protocol_file))
    model = create("mean-small", encoder="resnet10t", cut="layer1", size=None)
    total = asked = 0
    for number in range(chosen.rounds):
        blocks: list[int] = []
        asked_rows: list[int] = []

        def described(rows: Any) -> Any:
            data.read_rows.clear()
            descriptors = describe(model, data, windows.pixel_windows(rows), device="cpu", batch_size=7)
            assert len(data.read_rows) == len(set(data.read_rows))
            blocks.append(len(data.read_rows))  # noqa: B023
            asked_rows.append(len(rows))  # noqa: B023
            return descriptors

        key = (chosen.seed, 1, number)
        mine(
            data,
            windows.queries,
            windows.database,
            ANY,
            described,
            RoundSizes(queries=20, negatives=2, positives=10),
            key=key,
        )
        total, asked = total + sum(blocks), asked + 3 * sum(asked_rows)
    assert total == mined and asked > 1.5 * total


def turned() -> Any:
    data = FakeDataset(drives=TURNED)
    make = lambda role: data.sequences(role=role, length=3)  # noqa: E731
    return data, make("query"), make("database")


def headings(data: Any, table: Any) -> Any:
    return data.table["heading"].to_numpy()[table["centre"].to_numpy()]


def test_positives_face_the_same_way_and_others_are_no_negatives() -> None:
    data, queries, database = turned()
    near = data.distances(queries, database).min((2, 3))
    north = headings(data, database) == 10.0
    drawn = draw(data, queries, database, FACING, RoundSizes(queries=16, positives=100))
    for query, found in zip(drawn.query, drawn.positives, strict=True):
        assert found.tolist() == np.flatnonzero((near[query] < 2.5) & north).tolist()
    both = draw(data, queries, database, ANY, RoundSizes(queries=16, positives=100))
    assert sum(map(len, both.positives)) > 2 * sum(map(len, drawn.positives))
    vectors = np.random.default_rng(0).normal(size=(len(queries) + len(database), 4)).astype(np.float32)
    found = mine(data, queries, database, FACING, lambda rows: vectors[rows], RoundSizes(queries=16, negatives=3))
    assert north[found.positive].all()
    assert all(near[q, n] >= 6.0 for q, row in zip(found.query, found.negatives, strict=True) for n in row)


def test_place_batches_and_pair_graphs_know_headings() -> None:
    import polars as pl

    data, queries, database = turned()
    both = pl.concat([queries, database])
    way = headings(data, both)
    turn = np.abs((way[:, None] - way[None] + 180) % 360 - 180)
    least = data.distances(both, both).min((2, 3))
    rows = np.arange(len(both))
    positive, negative = PairGraph.from_windows(data, both, FACING).masks(rows)
    off = ~np.eye(len(rows), dtype=bool)
    assert np.array_equal(positive, (least < 2.5) & (turn <= 30) & off)
    assert np.array_equal(negative, (least >= 6.0) & off)
    for batch in PlaceSampler(data, queries, database, FACING, places=2, windows=2).epoch(1, 4):
        assert set(way[batch.windows]) <= {350.0, 10.0}


def test_unknown_headings_are_no_positives(protocol_file: Path, tmp_path: Path) -> None:
    drives = tuple(Drive(d.name, d.role, d.start, d.count, d.split, heading=None) for d in DRIVES)
    unknown = FakeDataset(drives=drives)
    with pytest.raises(NotEnoughDataError, match="has a positive"):
        train.fit(unknown, settings(protocol_file, heading_max=30.0), tmp_path / "run")
    with pytest.raises(ContractError, match="heading_max"):
        settings(protocol_file, heading_max=0.0)


def test_mining_equals_brute_force_with_runs_of_several_trajectories_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six drives of unequal length, cut and shuffled: rows of one table are never taken for rows of another."""
    monkeypatch.setattr("train.losses.distances.QUERIES_AT_ONCE", 5)
    rng = np.random.default_rng(5)
    drives = [
        Drive(f"{role}-{i}", role, float(rng.uniform(0, 60)), int(rng.integers(4, 15)))
        for role in ("database", "query")
        for i in range(6)
    ]
    data = FakeDataset(drives=tuple(drives[i] for i in rng.permutation(len(drives))))
    tables = {role: data.sequences(role=role, length=3) for role in ("query", "database")}
    queries, database = (table[rng.permutation(len(table))] for table in tables.values())
    vectors = rng.normal(size=(len(queries) + len(database), 4)).astype(np.float32)
    found = mine(
        data,
        queries,
        database,
        ANY,
        lambda rows: vectors[rows],
        RoundSizes(queries=30, negatives=4, positives=99),
        key=(1,),
    )
    drawn = draw(data, queries, database, ANY, RoundSizes(queries=30, positives=99), key=(1,))
    x = data.table["easting"].to_numpy()
    frames = data.frame_rows(queries), data.frame_rows(database)
    checked = 0
    for query, positive, negatives in zip(found.query, found.positive, found.negatives, strict=True):
        least = [min(abs(x[a] - x[b]) for a in frames[0][query] for b in row) for row in frames[1]]
        gap = np.linalg.norm(vectors[query] - vectors[len(queries) :], axis=1)
        assert positive == min((d for d in range(len(database)) if least[d] < 2.5), key=lambda d: gap[d])
        far = sorted((d for d in drawn.candidates if least[d] >= 6.0), key=lambda d: gap[d])
        assert negatives.tolist() == far[:4]
        checked += 1
    assert checked >= 20

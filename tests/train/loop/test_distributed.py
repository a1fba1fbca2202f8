"""Two processes over gloo against one: the same losses, the same weights, whatever the batch divides into."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import train
from seqdata import protocols
from seqdata.errors import ContractError, OutputError
from tests.support.fake_dataset import FakeDataset, write_protocol
from tests.train.loop.test_fit import settings
from train.devices.ranks import Ranks
from train.loop.context import RunContext
from train.loop.setup import assemble
from train.loop.signals import Stop
from train.runs import checkpoint
from train.runs.folder import RunFolder
from train.sampling.regimes import Step

ROOT = Path(__file__).resolve().parents[3]
# 10 rounds of 2 steps, of 4 and of 3 triplets; 20 place batches: neither divides by two now and then. SGD feels the
# gradient's size, which Adam forgets.
CASES: dict[str, dict[str, Any]] = {
    "triplet": {
        "rounds": 10, "round_queries": 7, "batch": 4, "negatives": 3, "mirror": True, "erase": 0.3,
        "optimizer": "sgd", "lr": 2e-3,
    },
    "places": {"regime": "places", "places": 5, "windows": 2, "steps": 20, "mirror": True, "erase": 0.3},
    "accumulated": {"rounds": 1, "round_queries": 10, "batch": 2, "accumulate": 2, "optimizer": "sgd", "lr": 2e-3},
    # 5 classed frames behind 6 windows; the classes' own rate is high.
    "joint": {
        "model": "mean-small", "options": {"encoder": "resnet10t", "cut": "layer1"}, "regime": "joint", "rounds": 4,
        "round_queries": 4, "batch": 2, "negatives": 1, "optimizer": "sgd", "lr": 2e-3, "class_batch": 5,
        "class_cell": 4.0, "class_spacing": 2, "class_frames": 2, "class_weight": 0.5, "kmeans_frames": 0,
    },
    "stopped": {"regime": "places", "places": 3, "steps": 6, "loss": "contrastive", "optimizer": "sgd", "lr": 2e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(alone, together): folders of the cases' runs by one process and by two."""
    folder = tmp_path_factory.mktemp("ranks")
    protocol = write_protocol(folder)
    together, alone = folder / "together", folder / "alone"
    together.mkdir()
    chosen = {name: settings(protocol, **{"epochs": 1, "lr": 1e-5, **fields}) for name, fields in CASES.items()}
    for name, one in chosen.items():
        (together / f"{name}.json").write_text(one.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, "tests.support.rank_process", str(together)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    for name, one in chosen.items():
        train.fit(FakeDataset(), one, alone / name)
    train.fit(FakeDataset(), settings(protocol, epochs=0), alone / "start")
    return alone, together


def entry(run: Any) -> Any:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[1])


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(runs: Any, name: str) -> None:
    alone, together = (folder / name for folder in runs)
    one, two = entry(alone), entry(together)
    assert len(one["losses"]) == {"triplet": 20, "places": 20}.get(name, len(two["losses"]))
    for values in ("losses", "active", "hardness"):
        np.testing.assert_allclose(two[values], one[values], rtol=1e-5, atol=1e-7)
    assert two["val"] == one["val"]
    # Frames that the stretches of both ranks show, two at a border of windows of three, are described by both: of
    # queries, of candidates, and of other positives.
    assert 0 <= two["mined_frames"] - one["mined_frames"] <= 3 * 2 * CASES[name].get("rounds", 0)
    weights = [checkpoint.read_tensors(run / "checkpoints" / "last.safetensors") for run in (alone, together)]
    start = checkpoint.read_tensors(alone.parent / "start" / "checkpoints" / "last.safetensors")
    if name == "joint":  # its classes, which every rank trains whole, beside a model that starts elsewhere
        heads = [checkpoint.read_tensors(run / "checkpoints" / "last.head.safetensors") for run in (alone, together)]
        for key, value in heads[0].items():
            torch.testing.assert_close(heads[1][key], value, rtol=1e-4, atol=1e-6)
        start = {key: value for key, value in start.items() if key.startswith("encoder.")}
    moved = max(float((weights[0][key] - start[key]).abs().max()) for key in start)
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=0.02 * moved, msg=key)


@pytest.mark.parametrize("name", ["triplet", "accumulated"])
def test_two_ranks_mine_the_triplets_of_one(runs: Any, name: str) -> None:
    alone, together = (sorted((folder / name).rglob("epoch-*-round-*.parquet")) for folder in runs)
    assert len(alone) == len(together) == CASES[name]["rounds"]
    for one, two in zip(alone, together, strict=True):
        assert pl.read_parquet(one).equals(pl.read_parquet(two))


def test_ranks_share_the_reading_and_only_the_first_one_writes(runs: Any) -> None:
    alone, together = runs
    for name in CASES:
        first, second = (json.loads((together / f"{name}.rank{rank}").read_text()) for rank in (0, 1))
        assert first["events"] > 0 and second["events"] == 0 and second["read"] > 0
        assert first["stopped"] == second["stopped"] == (143 if name == "stopped" else None)
        files = sorted(path.relative_to(together / name) for path in (together / name).rglob("*.safetensors"))
        assert files == sorted(path.relative_to(alone / name) for path in (alone / name).rglob("*.safetensors"))
    assert json.loads((together / "triplet" / "run.json").read_text())["environment"]["processes"] == "2"


def test_shares_are_whole_and_even() -> None:
    for count in range(9):
        for size in (1, 2, 3, 5):
            shares = [np.arange(count)[Ranks(rank, size).share(count)] for rank in range(size)]
            assert np.concatenate(shares).tolist() == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert max(map(len, shares)) == -(-count // size)


def test_shares_are_described_as_the_whole_is_even_empty_ones(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    """3 windows over 1, 2 and 4 ranks: the same frames, changed by the same draws, in the same order."""
    chosen = settings(protocol_file, batch=1, negatives=1, mirror=True, erase=0.9)
    found = {}
    for size in (1, 2, 4):
        parts = []
        for rank in range(size):
            context = RunContext(
                data, protocols.load(protocol_file), chosen, RunFolder(tmp_path), print, Ranks(rank, size),
                torch.device("cpu"), Stop(),
            )  # fmt: skip
            trainer = assemble(context, np.zeros((0, 0), np.int64))
            step = Step(np.array([3, 40, 60]), torch.sum, torch.sum)
            loaded = trainer._load(step)
            parts.append(trainer._describe_batch(loaded, 1, 5).detach())
        assert [len(part) for part in parts] == {1: [3], 2: [1, 2], 4: [0, 1, 1, 1]}[size]
        found[size] = torch.cat(parts)
    for size in (2, 4):
        torch.testing.assert_close(found[size], found[1], rtol=1e-4, atol=1e-5)


def test_alone_everything_is_free() -> None:
    ranks, tensor = Ranks(), torch.ones(3, requires_grad=True)
    assert ranks.gather(tensor, 3) is tensor and ranks.first and ranks.any(True) and not ranks.any(False)
    ranks.agree(7, "nothing")

    def fail() -> None:
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        ranks.lead(fail)


def test_batch_norm_over_its_batch_is_refused_where_batches_are_cut(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    options = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4, "bn": "train"}
    with pytest.raises(ContractError, match="checkpointing cuts a batch"):
        train.fit(data, settings(protocol_file, options=options, checkpointing=4), tmp_path / "run")

"""Joint training of frames and sequences: classes by cell and heading, CosFace, steps of both, and resuming."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import train
from seqdata.errors import ContractError, NotEnoughDataError, UsageError
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import losses
from train.losses.cosface import CosFaceLoss
from train.runs import checkpoint
from train.sampling.frame_classes import ClassGrid, FrameClasses
from train.settings import TrainSettings

OPTIONS = {"encoder": "resnet10t", "cut": "layer1", "size": None, "trainable": "all", "projection": 6}


def settings(protocol: Any, **fields: Any) -> TrainSettings:
    base = {
        **{"model": "jist-r18", "options": OPTIONS, "weights": "random", "protocol": protocol, "device": "cpu"},
        **{"regime": "joint", "lr": 1e-3, "round_queries": 6, "rounds": 2, "negatives": 2, "batch": 3, "epochs": 2},
        **{"class_batch": 5, "class_cell": 4.0, "class_spacing": 2, "class_frames": 2, "class_groups": 2},
    }
    return TrainSettings.create(None, {**base, **fields})


@torch.no_grad()
def test_cosface_against_its_formula() -> None:
    loss = CosFaceLoss([3, 4], 5).double()
    vectors = torch.randn(2, 5, dtype=torch.float64)
    labels, total = [3, 0], 0.0
    for vector, label in zip(vectors, labels, strict=True):
        cosines = [float(vector @ w / vector.norm() / w.norm()) for w in loss.classes[1]]
        powers = [math.exp(30 * (cosine - 0.4 * (k == label))) for k, cosine in enumerate(cosines)]
        total -= math.log(powers[label] / sum(powers)) / 2
    assert float(loss(vectors, torch.tensor(labels), group=1)) == pytest.approx(total, rel=1e-10)


def test_classes_are_cells_and_headings_and_groups_are_far_apart(data: FakeDataset) -> None:
    grid = ClassGrid(cell=4.0, spacing=3, heading_spacing=2, frames=2, groups=9)
    rows = np.arange(40)
    classes = FrameClasses(data, rows, grid)
    x = data.table["easting"].to_numpy()
    assert sum(map(len, (frames for group in classes.members for frames in group))) <= len(rows)
    for group in classes.members:
        cells = [{math.floor(x[row] / 4.0) for row in frames} for frames in group]
        assert all(len(cell) == 1 for cell in cells) and all(len(frames) >= 2 for frames in group)
        east = sorted(next(iter(cell)) for cell in cells)
        assert len(set(east)) == len(east) > 1 and all((b - a) % 3 == 0 for a, b in pairwise(east))
    assert classes.sizes == sorted(classes.sizes, reverse=True)


def test_a_batch_is_a_function_of_epoch_and_step_and_takes_each_class_in_turn(data: FakeDataset) -> None:
    classes = FrameClasses(data, np.arange(40), ClassGrid(cell=4.0, spacing=2, frames=2))
    count = classes.sizes[classes.group(1)]
    batches = [classes.batch(1, step, 3) for step in range(2 * count)]
    again = FrameClasses(data, np.arange(40), ClassGrid(cell=4.0, spacing=2, frames=2)).batch(1, 4, 3)
    np.testing.assert_array_equal(again[0], batches[4][0])
    labels = np.concatenate([labels for _, labels in batches])
    # Six rounds over all classes: each as often as any other.
    np.testing.assert_array_equal(np.bincount(labels), [6] * count)
    assert all(sorted(labels[i * count : (i + 1) * count]) == list(range(count)) for i in range(6))
    frames = classes.members[classes.group(1)]
    assert all(row in frames[label] for rows, batch in batches for row, label in zip(rows, batch, strict=True))
    assert len(classes.sizes) > 1 and classes.group(1) != classes.group(2)


def test_frames_without_heading_and_classes_that_are_alone_are_refused(data: FakeDataset) -> None:
    with pytest.raises(NotEnoughDataError, match="lower class_frames or class_spacing"):
        FrameClasses(data, np.arange(40), ClassGrid(frames=100))
    data.table = data.table.with_columns(heading=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(ContractError, match="heading of every training frame"):
        FrameClasses(data, np.arange(40), ClassGrid())


def test_a_step_adds_the_loss_of_frames_to_that_of_triplets(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are classed by their own vectors, before fusion, by the model as it is in training."""
    seen: list[tuple[Tensor, Tensor]] = []
    forward = CosFaceLoss.forward

    def spy(self: CosFaceLoss, vectors: Tensor, labels: Tensor, group: int) -> Tensor:
        seen.append((vectors.detach().clone(), labels))
        return forward(self, vectors, labels, group)

    monkeypatch.setattr(CosFaceLoss, "forward", spy)
    joint = settings(protocol_file, epochs=1, rounds=1, lr=1e-9, class_weight=0.5)
    run = train.fit(data, joint, tmp_path / "run")
    model = train.load_model(run)
    classes = FrameClasses(data, np.arange(76), ClassGrid(cell=4.0, spacing=2, frames=2, groups=2))
    assert len(seen) == 2
    for step, (vectors, labels) in enumerate(seen):
        rows, expected_labels = classes.batch(1, step, 5)
        np.testing.assert_array_equal(labels, expected_labels)
        with torch.no_grad():
            expected = model.encode_frames(torch.from_numpy(data.pixels[rows]))
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    triplets = train.fit(
        data, settings(protocol_file, regime="triplet", epochs=1, rounds=1, lr=1e-9), tmp_path / "plain"
    )
    head = CosFaceLoss(classes.sizes, 6)
    head.load_state_dict(checkpoint.read_tensors(run / "checkpoints" / "last.head.safetensors"))
    of_frames = forward(head, seen[0][0], seen[0][1], 0)
    both, alone = losses(run)[1][0], losses(triplets)[1][0]
    # The classes' vectors have moved by one rate of .01 an update since.
    assert both - alone == pytest.approx(0.5 * float(of_frames.detach()), rel=0.2)


def test_resume_equals_an_unbroken_run_with_its_classes(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    joint = settings(protocol_file)

    def kill(phase: Any, done: Any, total: Any, values: Any) -> None:
        if phase == "train" and values["epoch"] == 2 and done == 2:
            raise KeyboardInterrupt

    whole = train.fit(data, joint, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.fit(data, joint, tmp_path / "broken", progress=kill)
    broken = train.fit(data, joint, tmp_path / "broken", resume=True)
    assert losses(whole) == losses(broken)
    for name in ("last.safetensors", "last.head.safetensors", "last.optimizer.safetensors"):
        assert (whole / "checkpoints" / name).read_bytes() == (broken / "checkpoints" / name).read_bytes(), name


def test_a_model_whose_frames_have_no_vector_of_their_own_is_refused(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    for options in ({"fusion": "cat"}, {"pooling": "vlad", "fusion": "sum", "projection": None, "normalize": None}):
        with pytest.raises(ContractError, match="regime=joint needs frames whose vectors"):
            train.fit(data, settings(protocol_file, options={**OPTIONS, **options}), tmp_path / "run")


def test_settings_of_classes_belong_to_the_joint_regime(protocol_file: Path) -> None:
    with pytest.raises(UsageError, match=r"'class_lr' is read by regime=joint only.*--set regime=joint"):
        TrainSettings.create(protocol=protocol_file, class_lr=0.1)
    joint = TrainSettings.create("jist", protocol=protocol_file, batch=2)
    assert (joint.regime, joint.model, joint.rounds, joint.batch) == ("joint", "jist-r18", 10, 2)

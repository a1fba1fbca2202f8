"""The small parts: the batch axis, augmentation, prefetch, schedule, devices, frame cache, light import."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from seqdata.errors import ContractError
from seqdata.frames.prefetch import prefetch
from tests.support.fake_dataset import FakeDataset
from train.data.augment import Augment
from train.data.frames import FrameSource
from train.loop.optimizers import rate
from train.models.base import join, split


def test_join_and_split_are_inverse() -> None:
    windows = torch.arange(24).view(2, 3, 4)
    assert torch.equal(split(join(windows), 3), windows)
    assert torch.equal(join(windows)[1 * 3 + 2], windows[1, 2])
    with pytest.raises(ValueError, match="do not divide"):
        split(torch.zeros(7, 2), 3)


def test_augmentation_is_one_for_a_group_and_none_when_off() -> None:
    frames = torch.randint(0, 256, (1, 3, 16, 24), dtype=torch.uint8).repeat(6, 1, 1, 1)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    make = lambda augment, seed=0: augment(frames, groups, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(make(Augment()), frames.float())
    out = make(Augment(shift=0.2, light=0.3, mirror=True))
    assert torch.equal(out[0], out[2]) and torch.equal(out[3], out[5]) and not torch.equal(out[0], out[3])
    assert torch.equal(out, make(Augment(shift=0.2, light=0.3, mirror=True)))
    erased = make(Augment(erase=1.0))
    assert all((erased[i] != frames[i]).any() for i in range(6)) and not torch.equal(erased[0], erased[1])


def test_prefetch_keeps_order_and_raises() -> None:
    assert list(prefetch(range(5), lambda i: i * i)) == [0, 1, 4, 9, 16]

    def items() -> Iterator[Any]:
        yield 1
        raise ContractError("broken")

    found = prefetch(items(), lambda i: i)
    assert next(found) == 1
    with pytest.raises(ContractError, match="broken"):
        next(found)


def test_rate() -> None:
    assert rate(1.0, "none", 0.9, 100, 0) == 1.0
    assert rate(1.0, "cosine", 0.5, 100, 0) == pytest.approx(0.5)
    assert rate(1.0, "cosine", 0.0, 4, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("budget", [0, 2 * 3 * 16 * 24, 1 << 30])
def test_frame_cache_gives_the_same_frames_within_its_budget(data: FakeDataset, budget: Any) -> None:
    source = FrameSource(data, cache_bytes=budget)
    for rows in ([3, 1, 3], [1, 2, 9], [9, 3, 1]):
        assert np.array_equal(source.read(np.array(rows)), data.pixels[rows])
    assert source.cache._bytes <= budget
    if budget == 1 << 30:
        assert sorted(data.read_rows) == [1, 2, 3, 9]


def test_importing_train_is_light() -> None:
    code = "import sys, train; assert 'torch' not in sys.modules and 'fit' in dir(train)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

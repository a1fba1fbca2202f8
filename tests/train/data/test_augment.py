"""Changes of training frames against a literal loop over pixels."""

import numpy as np
import pytest
import torch

from train.data.augment import Augment


@pytest.mark.parametrize("channels_last", [False, True])
def test_shift_and_light_equal_a_loop_over_groups(channels_last: bool) -> None:
    """Rows and columns outside repeat the edge; contrast and brightness are one for a group."""
    augment = Augment(shift=0.3, light=0.25)
    frames = torch.randint(0, 256, (6, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    if channels_last:
        frames = frames.contiguous(memory_format=torch.channels_last)
    groups = torch.tensor([0, 2, 1, 1, 0, 2])
    changes = augment.draw(groups, torch.Generator().manual_seed(3))
    expected = np.zeros((6, 3, 8, 10), np.float32)
    for number, group in enumerate(groups.tolist()):
        down, right, contrast, brightness = changes.groups[group].tolist()
        by_rows, by_columns = round(down * 1), round(right * 3)  # 0.3 of 10 columns, half of that of 8 rows
        for row in range(8):
            for column in range(10):
                source = min(max(row + by_rows, 0), 7), min(max(column + by_columns, 0), 9)
                for channel in range(3):
                    value = float(frames[number, channel, source[0], source[1]])
                    expected[number, channel, row, column] = value * (1 + 0.25 * contrast) + 0.25 * 64 * brightness
    changed = augment.apply(frames, groups, changes)
    assert changed.dtype == torch.float32
    np.testing.assert_allclose(changed.numpy(), expected, rtol=1e-5, atol=1e-4)


def test_a_changed_batch_stays_channels_last() -> None:
    frames = torch.zeros(2, 3, 8, 10, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    changed = Augment(shift=0.1, light=0.1)(frames, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert changed.is_contiguous(memory_format=torch.channels_last)

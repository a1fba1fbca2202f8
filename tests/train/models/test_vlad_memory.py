"""VLAD never holds an N×K×C×T tensor: what autograd keeps for the backward pass stays small."""

from typing import Any

import torch

from train.models.fusion.basic import VLADSum
from train.models.pooling.vlad import SeqVLAD

FRAMES, TOKENS, CHANNELS, CLUSTERS = 10, 144, 96, 64


def kept_bytes(run: Any) -> Any:
    """Bytes of distinct memory that autograd saves for the backward pass."""
    held = {}

    def pack(tensor: Any) -> Any:
        held[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(size for size, _ in held.values())


def test_saved_memory_is_a_few_times_the_tokens() -> None:
    layer = SeqVLAD(CLUSTERS, CHANNELS)
    tokens = torch.randn(FRAMES, TOKENS, CHANNELS, requires_grad=True)
    literal = FRAMES * TOKENS * CHANNELS * CLUSTERS * 4
    kept = kept_bytes(lambda: layer.frame_sums(tokens))
    assert kept < 6 * tokens.nbytes < literal / 8


def test_summing_windows_keeps_no_copy_a_window() -> None:
    sums = torch.randn(40, CLUSTERS, 8, requires_grad=True)
    rows = torch.arange(26)[:, None] + torch.arange(15)
    kept = kept_bytes(lambda: VLADSum().gather(sums, rows))
    gathered = rows.numel() * sums[0].nbytes
    assert kept < gathered / 2


def test_window_sums_and_their_gradient_are_the_plain_ones() -> None:
    sums = torch.randn(9, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([[0, 1, 2], [2, 2, 8], [7, 3, 1]])
    plain = SeqVLAD.finish(sums[rows].sum(1))
    torch.testing.assert_close(VLADSum().gather(sums, rows), plain)
    assert torch.autograd.gradcheck(lambda given: VLADSum().gather(given, rows), (sums,))

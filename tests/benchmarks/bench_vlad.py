"""VLAD forward and backward at the shape of CCT384 (576 tokens of 384 channels a frame), against a loop over clusters.

python tests/benchmarks/bench_vlad.py [windows]

Memory is what the process's peak (VmHWM) grew by over the whole forward and backward pass, each side in a process of
its own; inputs, parameters and their gradients count for neither side's baseline alike. Time is the best of the passes.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.results import record, scaled
from train.models.base import join, split
from train.models.fusion.basic import VLADSum
from train.models.pooling.vlad import SeqVLAD

LENGTH, TOKENS, CHANNELS, CLUSTERS = 5, 24 * 24, 384, 64
ROUNDS = 4


def ours(layer: SeqVLAD, tokens: Tensor) -> Tensor:
    """Tokens `(B, L, T, C)` → descriptors `(B, K·C)`."""
    return VLADSum()(split(layer.frame_sums(join(tokens)), tokens.shape[1]))


def loop(layer: SeqVLAD, tokens: Tensor) -> Tensor:
    """The equation cluster by cluster: residuals of all tokens, weighted, summed."""
    unit = F.normalize(tokens.flatten(1, 2), dim=-1)
    share = (unit @ layer.assignment.T).softmax(-1)
    sums = torch.stack(
        [(share[..., k, None] * (unit - layer.centres[k])).sum(1) for k in range(len(layer.centres))], dim=1
    )
    return F.normalize(F.normalize(sums, dim=-1).flatten(1), dim=-1)


SIDES = {"ours": ours, "loop": loop}


def peak_bytes() -> int:
    """The process's highest resident memory so far."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10


def a_pass(side: str, windows: int) -> tuple[float, dict[str, Tensor]]:
    """Seconds of one forward and backward pass, and what came out of it."""
    generator = torch.Generator().manual_seed(0)
    layer = SeqVLAD(CLUSTERS, CHANNELS)
    tokens = torch.randn(windows, LENGTH, TOKENS, CHANNELS, generator=generator, requires_grad=True)
    weight = torch.randn(windows, CLUSTERS * CHANNELS, generator=generator)
    started = time.perf_counter()
    out = SIDES[side](layer, tokens)
    (out * weight).sum().backward()
    seconds = time.perf_counter() - started
    grads = {"tokens": tokens.grad, "assignment": layer.assignment.grad, "centres": layer.centres.grad}
    return seconds, {"out": out.detach(), **{key: value for key, value in grads.items() if value is not None}}


def measure(side: str, windows: int) -> None:
    """One side in this process: prints the bytes that its peak grew by, and the seconds of its best pass."""
    torch.set_num_threads(1)
    a_pass(side, 1) if side == "ours" else a_pass("ours", 1)  # libraries and thread pools are loaded
    held = torch.ones(windows, LENGTH, TOKENS, CHANNELS)  # the inputs' own size, so that the baseline contains it
    before = peak_bytes()
    del held
    seconds = [a_pass(side, windows)[0]]
    grown = peak_bytes() - before
    seconds += [a_pass(side, windows)[0] for _ in range(ROUNDS - 1)]
    print(grown, min(seconds))


def main() -> None:
    """Both sides, one after the other, and how far apart their results and gradients are."""
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(4, 1)
    found = {}
    for side in SIDES:
        command = [sys.executable, __file__, "--side", side, str(windows)]
        grown, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        found[side] = (int(grown), float(seconds))
        print(f"{side:<5} {float(seconds):7.3f} s, peak memory grew by {int(grown) / 2**20:7.0f} MiB")
    torch.set_num_threads(1)
    left, right = (a_pass(side, 1)[1] for side in SIDES)
    for key, value in left.items():
        apart, size = float((value - right[key]).abs().max()), float(right[key].abs().max())
        print(f"largest difference of {key:<10} {apart:.1e} (largest value {size:.1e})")
    faster, lighter = found["loop"][1] / found["ours"][1], found["ours"][0] / found["loop"][0]
    record("time against a loop over clusters", faster, "x", "higher")
    record("memory against a loop over clusters", lighter, "x")
    print(f"{windows} windows: {faster:.1f} times faster (wanted 10), {lighter:.3f} of the memory (wanted 0.25)")


if __name__ == "__main__":
    if "--side" in sys.argv:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()

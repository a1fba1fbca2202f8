"""Cost of a model: memory of one pass, time to extract one sequence."""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from train.devices import pick_device
from train.models.base import SequenceModel, join
from train.models.card import OWN_SIZE

# The first passes allocate and choose kernels; after two, times repeat.
WARM = 2
ALLOCATION = "[memory]"


@dataclass(frozen=True)
class Extraction:
    """Cost of one sequence of `frames` frames at batch size 1.

    `p50`, `p95`, `fusion`: seconds; fusion is the median's part after the frames are encoded. `memory`: bytes that
    torch holds at the most, weights included. `weights`: bytes of them. `device`, `threads`: where it was measured.
    """

    frames: int
    size: tuple[int, int]
    descriptor: int
    p50: float
    p95: float
    fusion: float
    memory: int
    weights: int
    device: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "size": list(self.size)}


@torch.no_grad()
def extraction(
    model: SequenceModel,
    length: int = 5,
    *,
    device: str = "auto",
    repeats: int = 10,
    size: tuple[int, int] | None = None,
) -> Extraction:
    """Measure the extraction of one sequence of noise.

    Args:
        model: The model.
        length: Frames in the sequence.
        device: "auto", "cpu", "cuda" or "cuda:N".
        repeats: Timed passes, after two that warm up.
        size: (height, width) of the frames for models that keep the frames' own.

    Returns:
        Times, memory and where they were measured.

    Raises:
        ContractError: If the model cannot take that length, or the device is not there.

    Source: Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022: Fig. 5
    (extraction time), Table II and Fig. 4 (memory at inference).
    """
    where = pick_device(device)
    model = model.to(where).eval()
    windows = noise(model, length, size, where)
    features = model.encode_frames(join(windows))
    rows = torch.arange(length, device=where).view(1, length)
    whole = _times(lambda: model(windows), where, repeats)
    fusion = _times(lambda: model.fuse_rows(features, rows), where, repeats)
    return Extraction(
        frames=length,
        size=(int(windows.shape[-2]), int(windows.shape[-1])),
        descriptor=model.descriptor_size(length),
        p50=statistics.median(whole),
        # The nearest-rank percentile: ceil(0.95·n), without a library for one number.
        p95=sorted(whole)[max(0, -(-95 * len(whole) // 100) - 1)],
        fusion=statistics.median(fusion),
        memory=peak_memory(model, windows),
        weights=weight_bytes(model),
        device=device_name(where),
        threads=torch.get_num_threads(),
    )


def noise(model: SequenceModel, length: int, size: tuple[int, int] | None, device: torch.device) -> Tensor:
    """One window of random pixels `(1, L, 3, H, W)` uint8: the model's own size, else `size`, else 240×320."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, length, 3, *(model.size or size or OWN_SIZE))
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


def _times(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls after a warm-up."""
    seconds = []
    for number in range(WARM + repeats):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        if number >= WARM:
            seconds.append(time.perf_counter() - start)
    return seconds


def _wait(device: torch.device) -> None:
    """Wait for a GPU: its kernels run behind the Python code that starts them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def peak_memory(model: SequenceModel, windows: Tensor) -> int:
    """Bytes that torch holds at the most during one pass: weights, the window and everything in between.

    On a GPU as its allocator counts them; on a CPU the sum of allocations and releases that the profiler saw. The
    process itself, the CUDA context and scratch of compiled kernels stand in neither.
    """
    if windows.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(windows.device)
        model(windows)
        _wait(windows.device)
        return int(torch.cuda.max_memory_allocated(windows.device))
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would tell the terminal that there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        model(windows)
    return weight_bytes(model) + windows.numel() + _highest(trace)


def _highest(trace: "profile") -> int:
    """The highest running sum of allocated bytes in a profile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    steps = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == ALLOCATION)
    allocated = highest = 0
    for _, change in steps:
        allocated += change
        highest = max(highest, allocated)
    return highest


def weight_bytes(model: SequenceModel) -> int:
    """Bytes of parameters and buffers."""
    return sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])


def device_name(device: torch.device) -> str:
    """The processor's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()

"""Times on a device, and what the device can do at best: the ceilings that figures stand beside."""

import os
import subprocess
import time
from collections.abc import Callable
from datetime import date
from functools import cache

import torch


def finish(device: torch.device) -> None:
    """Wait until all that is queued on the device has run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(action: Callable[[], object], device: torch.device, repeats: int = 5, warm: int = 2) -> float:
    """Median seconds of an action, after `warm` runs that are not counted (compilation, allocation, cuDNN's choice)."""
    for _ in range(warm):
        action()
    times = []
    for _ in range(repeats):
        finish(device)
        started = time.perf_counter()
        action()
        finish(device)
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


@cache
def copy_rate(device: torch.device) -> float:
    """Bytes a second that are read and written by a copy within the device."""
    values = torch.zeros((1 << 28) if device.type == "cuda" else (1 << 22), device=device)
    other = torch.empty_like(values)
    return 2 * values.numel() * 4 / seconds(lambda: other.copy_(values), device)


@cache
def host_copy_rate(device: torch.device) -> float:
    """Bytes a second from pinned memory of the host to the device."""
    is_cuda = device.type == "cuda"
    values = torch.zeros((1 << 28) if is_cuda else (1 << 22), dtype=torch.uint8, pin_memory=is_cuda)
    target = torch.empty_like(values, device=device)
    return values.numel() / seconds(lambda: target.copy_(values, non_blocking=True), device)


@cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second of a large square product."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right, device)


def peak_memory(action: Callable[[], object], device: torch.device) -> float:
    """Greatest bytes that PyTorch held on the card during an action; 0 on a CPU, where they are not counted."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    action()
    finish(device)
    return float(torch.cuda.max_memory_allocated(device))


def card(device: torch.device) -> dict[str, str]:
    """Name the card, its driver, the versions that computed, and the day."""
    names = {"device": "CPU (a rehearsal)", "torch": torch.__version__, "date": date.today().isoformat()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        names |= {"device": properties.name, "memory": f"{properties.total_memory / 2**30:.0f} GiB"}
        names |= {"cuda": str(torch.version.cuda), "driver": _driver(), "cores": str(os.cpu_count())}
    return names


def _driver() -> str:
    """Version of the card's driver, "unknown" where its own tool is not there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"

"""`seqdata doctor`: what a bug report needs to know of this machine, in one page."""

import os
import platform
import resource
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import seqdata
from cli.config import load
from cli.output import ConfigFlag, JsonFlag, emit, size
from seqdata.errors import SeqdataError
from seqdata.frames.decode import decode_image
from seqdata.frames.images import encode
from seqdata.storage.files import folders_by_age
from seqdata.storage.hashing import xxh3_file

PACKAGES = (
    "torch", "torchvision", "timm", "faiss-cpu", "faiss-gpu", "numpy", "polars", "pyarrow", "pillow", "simplejpeg",
    "torchcodec", "av", "webdataset", "s3fs", "ray",
)  # fmt: skip
SAMPLE_SHARDS = 3
DECODES = 50
# Files that a shuffled stream over many shards holds open at once; below it long trainings have failed.
FEW_FILES = 1024


def doctor(as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """Check this machine and work folder, for a bug report.

    Python, packages, CUDA, decoder with its rate, disk, file limits, caches, and a sample of the newest dataset's
    checksums.
    """
    work = load(config)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    disk = shutil.disk_usage(work.out if work.out.is_dir() else Path())
    caches = {name: os.environ.get(name, "") for name in ("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")}
    report = {
        "seqdata": seqdata.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": _cuda(),
        "decoder": {"name": "simplejpeg", "frames_a_second": _decoding_rate(), "frame": "640×480 JPEG, one thread"},
        "disk": {"free": size(disk.free), "total": size(disk.total)},
        "open_files": {"limit": soft, "greatest": hard, "is_low": soft < FEW_FILES},
        "caches": {name: value for name, value in caches.items() if value},
        "dataset": _dataset(work.out / "datasets"),
    }
    emit(report, "\n".join(_lines(report)), as_json=as_json)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cuda() -> dict[str, Any]:
    """CUDA as torch sees it."""
    try:
        import torch  # heavy
    except ImportError as error:
        return {"available": False, "reason": f"torch does not load: {error}"}
    if not torch.cuda.is_available():
        return {"available": False, "reason": "torch sees no device"}
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"available": True, "version": str(torch.version.cuda), "devices": names}


def _decoding_rate() -> int:
    """Frames that one thread decodes a second."""
    random = np.random.default_rng(0)
    # Noise of eight-pixel blocks packs about as well as a street does.
    blocks = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encode(blocks.repeat(8, axis=0).repeat(8, axis=1), 90)
    began = time.perf_counter()
    for _ in range(DECODES):
        decode_image(data)
    return round(DECODES / (time.perf_counter() - began))


def _dataset(folder: Path) -> dict[str, Any]:
    """The newest dataset, and whether its first shards have the hashes that its manifest states."""
    folders = folders_by_age(folder, "manifest.json")
    if not folders:
        return {"path": None}
    try:
        dataset = seqdata.open(folders[-1])
        shards = dataset.manifest.shards[:SAMPLE_SHARDS]
        wrong = [shard.name for shard in shards if xxh3_file(folders[-1] / "shards" / shard.name) != shard.hash]
    except (SeqdataError, OSError) as error:
        return {"path": str(folders[-1]), "fault": str(error)}
    return {"path": str(folders[-1]), "id": dataset.id[:12], "shards_checked": len(shards), "damaged": wrong}


def _lines(report: dict[str, Any]) -> list[str]:
    """The report as `name: value` lines, nested ones joined by commas."""
    lines = []
    for name, value in report.items():
        if isinstance(value, dict):
            parts = [f"{key} {inner if inner is not None else 'absent'}" for key, inner in value.items()]
            lines += [f"{name}:", *(f"  {part}" for part in parts)] if parts else []
        else:
            lines.append(f"{name}: {value}")
    return lines

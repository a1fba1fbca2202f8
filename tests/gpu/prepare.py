"""What `make gpu` computes on where a machine has a card and little else: a dataset in NumPy form, and stand-ins.

PyTorch and NumPy do the measurements. polars, pyarrow and FAISS are needed by the tests and by shards alone; without
them the program's own modules are imported over stand-ins, and frames are JPEGs in memory.

python -m tests.gpu.prepare FOLDER [--tiny]
"""

import argparse
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

OPTIONAL = ("polars", "pyarrow", "faiss")
LENGTH = 5
FRAMES, WINDOWS = "frames.npy", "windows.npy"


class _Anything(type):
    """Classes that have every attribute and item, and can be joined by `|`, as annotations do."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: object) -> type:
        return cls

    def __or__(cls, other: object) -> type:
        return cls

    __ror__ = __or__


class _Thing(metaclass=_Anything):
    """What a library that is absent seems to hold."""

    def __init__(self, *values: object, **named: object) -> None:
        pass


class _Absent(ModuleType):
    """A library that is absent: its names can stand in annotations and constants; nothing computes with them."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Thing


class StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for the libraries of `names` and all modules below them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        is_absent = fullname.partition(".")[0] in self.names
        return ModuleSpec(fullname, self, is_package=True) if is_absent else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def stand_in() -> list[str]:
    """Put stand-ins where optional libraries are missing; returns the names of all that have one."""
    missing = [name for name in OPTIONAL if not _is_installed(name)]
    if missing:
        sys.meta_path.insert(0, StandIns(missing))
    return [name for name in OPTIONAL if name in absent()]


def absent() -> frozenset[str]:
    """Names of the libraries that stand-ins are in the place of."""
    return frozenset(name for finder in sys.meta_path if isinstance(finder, StandIns) for name in finder.names)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


def write(folder: Path, tiny: bool) -> None:
    """Write decoded frames (n, H, W, 3) uint8 of a drive that repeats, and windows (m, 2): first frame and length."""
    count, drive, (height, width) = (12, 40, (48, 64)) if tiny else (128, 2000, (480, 640))
    rng = np.random.default_rng(0)
    # Coarse blocks and a little noise: as hard for a JPEG decoder as streets are, which plain noise is not.
    blocks = rng.integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8)
    frames = blocks.repeat(16, axis=1).repeat(16, axis=2) // 2 + rng.integers(
        0, 24, (count, height, width, 3), np.uint8
    )
    first = np.arange(drive - LENGTH + 1)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / FRAMES, frames.astype(np.uint8))
    np.save(folder / WINDOWS, np.column_stack([first, np.full_like(first, LENGTH)]))


class WindowTable:
    """Windows (m, 2) with what is asked of a table of them when they are described."""

    def __init__(self, windows: np.ndarray) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, name: str) -> "WindowTable":
        assert name == "length"
        return self

    def n_unique(self) -> int:
        return len(np.unique(self.windows[:, 1]))

    def slice(self, start: int, count: int) -> "WindowTable":
        return WindowTable(self.windows[start : start + count])


@dataclass
class _Jpegs:
    """A reader of frames whose JPEGs lie in memory."""

    encoded: list[bytes]

    def cache(self, cache_bytes: int) -> Any:
        from seqdata.frames.cache import DecodeCache  # after the stand-ins

        return DecodeCache(self.fetch, self.decode, cache_bytes)

    def fetch(self, rows: list[int]) -> dict[int, bytes]:
        return {row: self.encoded[row % len(self.encoded)] for row in rows}

    def decode(self, row: int, data: bytes | None) -> Any:
        from seqdata.frames.decode import decode_image  # after the stand-ins

        assert data is not None
        return decode_image(data)


class Miniature:
    """A dataset in NumPy form, as `write` leaves it: a drive whose frames repeat."""

    def __init__(self, folder: Path) -> None:
        self.frames = np.load(folder / FRAMES)
        self.table = WindowTable(np.load(folder / WINDOWS))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.frames.shape[1], self.frames.shape[2]

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Frames (n, 3, H, W) uint8 of rows of the drive (n,), channels last in memory."""
        return np.moveaxis(self.frames[rows % len(self.frames)], -1, 1)

    def frame_rows(self, table: WindowTable) -> np.ndarray:
        """Frame rows (m, L) of windows."""
        return table.windows[:, :1] + np.arange(LENGTH)

    def frame_reader(self, size: tuple[int, int] | None = None, device: str = "cpu", kernel: str = "") -> _Jpegs:
        """A reader of the frames as JPEGs."""
        assert size is None and device == "cpu"
        encoded = []
        for frame in self.frames:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=90)
            encoded.append(file.getvalue())
        return _Jpegs(encoded)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    write(options.folder, options.tiny)

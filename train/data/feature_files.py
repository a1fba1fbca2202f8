"""Feature datasets on disk: one row of numbers a frame, in plain `.npy` parts beside a manifest and the encoder.

    FEATURES/
      manifest.json          level, dataset, shape of a row, parts with their hashes; written last
      ids.parquet            frame row and key of each feature row
      part-00000.npy …       float16 or float32, rows in the order of ids.parquet
      encoder.safetensors/.json   the model that made them (see train.runs.checkpoint)

Rows are read with `pread`, run by run, so that training touches only the bytes that a step needs and none stay mapped.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError

from indexer.describer import Precision
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError, InputError
from seqdata.frames.resize import Kernel
from seqdata.storage.files import read_json
from seqdata.storage.hashing import sha256_json, xxh3_file
from seqdata.storage.names import FlatName, refuse_links
from seqdata.storage.parquet import WHOLE_BYTES, read_parquet

MANIFEST, IDS, ENCODER = "manifest.json", "ids.parquet", "encoder"
OPEN_PARTS = 64
"""Parts that are open at a time: the usual limit of a process is 1,024 files, of macOS 256."""
Level = Literal["frame", "token"]
Features = NDArray[np.floating[Any]]


class FeaturePart(Frozen):
    """One file: its name, rows, bytes before the first row, and XXH3-128."""

    name: FlatName
    rows: int
    start: int
    hash: str


class FeatureManifest(Frozen):
    """What a feature dataset holds.

    Attributes:
        level: "frame" (what fusion needs of each frame) or "token" (the encoder's tokens, before pooling).
        dataset: Id of the dataset.
        encoder: SHA-256 over the weights that made the features.
        shape: Of a row.
        dtype: Of a row.
        rows: Number of rows.
        parts: The files, in the order of rows.
        ids_hash: XXH3-128 of the table of ids; no part of the identity, "" in features of the first release.
        runtime: What encoded the frames.
        precision: How a CUDA device multiplied (see `indexer.describer.Precision`).
        resize: How frames of several sizes were resized.
    """

    # Left out at their defaults, so that older feature datasets keep their ids.
    later = frozenset({"runtime", "ids_hash", "precision", "resize"})
    schema_version: Literal[1] = 1
    kind: Literal["features"] = "features"
    level: Level
    dataset: str
    encoder: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32"]
    rows: int
    parts: tuple[FeaturePart, ...]
    runtime: Literal["torch", "onnx"] = "torch"
    precision: Precision = "fp32"
    resize: Kernel = "pillow"
    ids_hash: str = ""

    @property
    def id(self) -> str:
        """SHA-256 of the manifest's content."""
        return sha256_json(self.model_dump(mode="json", exclude={"ids_hash"}))


def read_manifest(folder: Path) -> FeatureManifest:
    """Read a manifest.

    Raises:
        InputError: When there is none.
        ContractError: When it is broken.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no feature dataset here (no {MANIFEST}); write one with seqdata describe")
    try:
        return FeatureManifest.model_validate(read_json(path))
    except ValidationError as error:
        raise ContractError(f"{path}: {describe_first(error)}") from error


class _OpenFile:
    """A file that is closed when nobody holds it: a thread may still read it when the cache has let it go."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        """Close it."""
        if hasattr(self, "number"):
            os.close(self.number)


class FeatureFiles:
    """Rows of a feature dataset by frame row. Raises on opening: InputError, ContractError naming the damaged file."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        refuse_links(self.folder, [IDS, *(part.name for part in self.manifest.parts)], self.folder / MANIFEST)
        ids = self._read_ids()
        self._frames = ids["frame"].to_numpy().astype(np.int64)
        self._row_bytes = int(np.prod(self.manifest.shape)) * np.dtype(self.manifest.dtype).itemsize
        self._ends = np.cumsum([part.rows for part in self.manifest.parts])
        if ids.height != self.manifest.rows or self._ends[-1] != self.manifest.rows:
            raise ContractError(f"{self.folder / IDS}: {ids.height} rows, the manifest says {self.manifest.rows}")
        for part in self.manifest.parts:
            self._check(part)
        self._open = lru_cache(OPEN_PARTS)(lambda number: _OpenFile(self.folder / self.manifest.parts[number].name))

    def _read_ids(self) -> pl.DataFrame:
        """The table of feature rows. Raises: InputError, ContractError when it is damaged or another's."""
        path = self.folder / IDS
        ids = read_parquet(path)
        if self.manifest.ids_hash and xxh3_file(path) != self.manifest.ids_hash:
            raise ContractError(f"{path}: not the bytes that were written; write the features again")
        if ids.schema != ids_table(np.empty(0, np.int64), pl.Series([], dtype=pl.String)).schema:
            raise ContractError(f"{path}: no table of frame rows and keys; write the features again")
        # Rows are looked up by bisection, which a flipped bit would lead astray without a word.
        if ids["frame"].null_count() or (ids["frame"].diff().drop_nulls() <= 0).any() or (ids["frame"] < 0).any():
            raise ContractError(f"{path}: its frame rows do not rise; write the features again")
        return ids

    def _check(self, part: FeaturePart) -> None:
        path = self.folder / part.name
        size = part.start + part.rows * self._row_bytes
        if not path.is_file() or path.stat().st_size != size:
            raise ContractError(f"{path}: missing or not of {size} bytes; write the features again")
        # Larger parts are hashed whole by `check_hashes` alone: at each opening it would cost more than reading.
        if size <= WHOLE_BYTES and xxh3_file(path) != part.hash:
            raise ContractError(f"{path}: not the bytes that were written; write the features again")

    def close(self) -> None:
        """Close the files."""
        self._open.cache_clear()

    def feature_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the feature row of each frame row (n,).

        Raises:
            ContractError: For a frame that was not described.
        """
        rows = np.searchsorted(self._frames, frames)
        is_described = self._frames[np.minimum(rows, len(self._frames) - 1)] == frames
        if not is_described.all():
            raise ContractError(
                f"{self.folder}: {int((~is_described).sum())} of the frames wanted are not in it, such as frame "
                f"{int(frames[~is_described][0])}; describe the whole dataset"
            )
        return rows

    def read(self, frames: NDArray[np.int64]) -> Features:
        """Read the features of frame rows (n,), in this order: (n, *shape); neighbouring rows are one read."""
        rows = self.feature_rows(np.asarray(frames, np.int64))
        # Runs of neighbouring rows within one part are one read each; a break is a gap or the end of a part.
        distinct, back = np.unique(rows, return_inverse=True)
        out = np.empty((len(distinct), *self.manifest.shape), self.manifest.dtype)
        flat = out.reshape(len(distinct), -1)
        part = np.searchsorted(self._ends, distinct, side="right")
        breaks = np.flatnonzero((np.diff(distinct) != 1) | (np.diff(part) != 0)) + 1
        for run in np.split(np.arange(len(distinct)), breaks) if len(distinct) else []:
            self._read_run(int(part[run[0]]), int(distinct[run[0]]), flat[run[0] : run[-1] + 1])
        return out[back]

    def _read_run(self, part: int, first: int, into: Features) -> None:
        info = self.manifest.parts[part]
        offset = info.start + (first - int(self._ends[part]) + info.rows) * self._row_bytes
        view = memoryview(into.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        file = self._open(part)
        while len(view):  # one call reads two gigabytes at most, and may read less
            count = os.preadv(file.number, [view], offset)
            if count == 0:
                raise InputError(f"{self.folder / info.name}: ends too early; write the features again")
            view, offset = view[count:], offset + count


def check_hashes(folder: str | Path) -> None:
    """Hash every part and compare with the manifest.

    Raises:
        ContractError: Naming the first that differs.
    """
    for part in read_manifest(Path(folder)).parts:
        path = Path(folder) / part.name
        if xxh3_file(path) != part.hash:
            raise ContractError(f"{path}: not the bytes that were written; write the features again")


def ids_table(frames: NDArray[np.int64], keys: pl.Series) -> pl.DataFrame:
    """Make the table of `ids.parquet`: frame row (int32, rising) and key of each feature row."""
    return pl.DataFrame({"frame": pl.Series(frames, dtype=pl.Int32), "key": keys})

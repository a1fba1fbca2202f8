"""An opened dataset: its tables, and pixels on demand."""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from seqdata.contracts.manifest import MANIFEST_NAME, read_manifest
from seqdata.contracts.version import VERSION
from seqdata.dataset.tables import DatasetTables
from seqdata.frames.images import Pixels
from seqdata.frames.locations import FrameLocations, LazyLocations
from seqdata.frames.reader import DamagedFrameError, FrameReader
from seqdata.frames.resize import Kernel
from seqdata.storage.names import refuse_links
from seqdata.storage.parquet import translated
from seqdata.storage.store import Store
from seqdata.storage.table_cache import SHARED_ROWS, shared_array
from seqdata.streaming.batches import CACHE_BYTES, StreamSettings
from seqdata.streaming.shuffle import Shuffle
from seqdata.streaming.stream import Stream


def open(path: str | Path | Store, version: int | None = None) -> "Dataset":
    """Open a sealed dataset; nothing but its manifest is read yet.

    Tables of a remote dataset are copied to the local cache when they are first used (see
    `seqdata.storage.table_cache`), its shards are read by ranges.

    Args:
        path: Folder, fsspec URL, or a `Store`, which sets how long a remote store is waited for.
        version: Number of an older version (see `seqdata.dataset.versions`); default: the latest.

    Raises:
        InputError: If there is no dataset, the build is unfinished, or the store does not answer.
        ContractError: If the manifest is broken, or lists a link.
        MissingDependencyError: If the URL needs a package that is not installed.
    """
    store = path if isinstance(path, Store) else Store(path)
    manifest = read_manifest(store, version)
    if store.is_local:
        refuse_links(store.path(""), manifest.files(), store.path(MANIFEST_NAME))
    return Dataset(store, manifest)


class Dataset(DatasetTables):
    r"""A sealed dataset; make it with `seqdata.open(path)`.

    Convention: a *frame row* is a row number of the frames table; window tables follow the contract `sequences`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from seqdata.build import BuildRequest, build
        >>> raw, out = Path(tempfile.mkdtemp()), tempfile.mkdtemp()
        >>> for number in range(7):
        ...     Image.new("RGB", (32, 24), (0, 0, 30 * number)).save(raw / f"{number}.jpg")
        >>> rows = [f"{number}.jpg,500000,{2 * number},32N" for number in range(7)]
        >>> _ = (raw / "positions.csv").write_text("\n".join(["image,easting,northing,zone", *rows]))
        >>> manifest = build(BuildRequest("folder", raw, out))
        >>> dataset = open(out)
        >>> windows = dataset.sequences(length=5)
        >>> dataset.frame_rows(windows)[0].tolist()
        [0, 1, 2, 3, 4]
        >>> dataset.read(windows, [0, 2]).shape
        (2, 5, 3, 24, 32)
        >>> dataset.positives(windows, windows, radius=1.0).height
        9
    """

    def read(
        self,
        table: pl.DataFrame,
        rows: npt.ArrayLike,
        size: tuple[int, int] | None = None,
        resize: Kernel = "pillow",
    ) -> Pixels:
        """Read the pixels of windows, with one ranged read a shard; each distinct frame is read and decoded once.

        Args:
            table: Window table (contract `sequences`).
            rows: Rows of it, (n,).
            size: Height and width to resize to; None leaves the stored size.
            resize: How (see `seqdata.frames.resize.Kernel`).

        Returns:
            RGB, uint8 (n, L, 3, H, W).

        Raises:
            InputError: If a shard is absent or short.
            ContractError: If a frame is damaged, or sizes differ.
        """
        frame_rows = self.frame_rows(table[np.atleast_1d(np.asarray(rows, dtype=np.int64))])
        pixels = self.read_frames(frame_rows.ravel(), size, resize)
        return pixels.reshape(*frame_rows.shape, *pixels.shape[1:])

    def read_frames(
        self, frame_rows: npt.ArrayLike, size: tuple[int, int] | None = None, resize: Kernel = "pillow"
    ) -> Pixels:
        """Read the pixels of frames.

        Args:
            frame_rows: Rows of the frames table, (n,), in any order.
            size: Height and width to resize to; None leaves the stored size.
            resize: How (see `seqdata.frames.resize.Kernel`).

        Returns:
            RGB, uint8 (n, 3, H, W), in the order of the rows.

        Raises:
            InputError, ContractError: As `read`.
        """
        rows = np.asarray(frame_rows, dtype=np.int64)
        try:
            # Only the row groups that hold these frames are read: a random read of a large dataset loads no whole
            # table.
            return FrameReader(self.store, self._locations.covering(rows), size, kernel=resize).read(rows)
        except DamagedFrameError as error:
            # The reader has no keys, so that a loader worker need not hold them: the key of the one damaged frame is
            # looked up here.
            raise DamagedFrameError(error.row, error.fault, self.frame_key(error.row)) from error

    def frame_reader(
        self, size: tuple[int, int] | None = None, device: str = "cpu", resize: Kernel = "pillow"
    ) -> FrameReader:
        """Make a reader of frames by row for loader workers: it holds locations and hashes, no table.

        Args:
            size: Height and width to resize to; None leaves the stored size.
            device: Where JPEGs are decoded, "cpu" or "cuda".
            resize: How frames are resized (see `seqdata.frames.resize.Kernel`).

        Raises:
            ContractError: If the device is unknown.
            MissingDependencyError: If CUDA cannot decode.
        """
        return FrameReader(self.store, self._shared_locations, size, device, resize)

    def frame_key(self, row: int) -> str:
        """Look up the key of one frame, without loading the keys of all."""
        with translated(f"{self.location}/frames.parquet"):
            return str(self._tables.frames.scan().slice(row, 1).select("key").collect().item())

    def stream(
        self,
        table: pl.DataFrame,
        seed: int = 0,
        epoch: int = 0,
        size: tuple[int, int] | None = None,
        shuffle: Shuffle | bool = "blocks",
        cache_bytes: int = CACHE_BYTES,
        device: str = "cpu",
        resize: Kernel = "pillow",
    ) -> Stream:
        """Order the windows of a table for training, map-style for any DataLoader; see `Stream`.

        Args:
            table: Window table (contract `sequences`).
            seed: Seed of the order.
            epoch: Number of the epoch; with the seed it decides the order.
            size: Height and width to resize to.
            shuffle: "blocks" keeps windows that share frames near, "global" (or True) does not, "none" (or False) keeps
                the table's order.
            cache_bytes: Bytes of decoded frames that are cached.
            device: Where JPEGs are decoded, "cpu" or "cuda".
            resize: How frames are resized (see `seqdata.frames.resize.Kernel`).

        Raises:
            ContractError: If the order, the device or the kernel is unknown.
            MissingDependencyError: If CUDA cannot decode, or the kernel's package is absent.
        """
        word: Shuffle = ("global" if shuffle else "none") if isinstance(shuffle, bool) else shuffle
        settings = StreamSettings(seed, epoch, word, size, cache_bytes, device)
        frames = self.frame_columns("key", "trajectory", "position", "easting", "northing")
        reader = self.frame_reader(size, device, resize)
        return Stream(table, self.frame_rows(table), frames, reader, dataset=self.id, settings=settings)

    @cached_property
    def _shared_locations(self) -> FrameLocations:
        """Where every frame lies, in memory that is shared where tables are."""
        frames = self.frame_count
        if not self.is_shared or frames < SHARED_ROWS:
            return self._locations.all()
        key = f"locations {self.id} {VERSION}"
        # Made anew for the file alone, and not kept beside it.
        numbers = shared_array(f"{key} numbers", frames, lambda: LazyLocations(self._tables.frames).all().numbers())
        hashes = shared_array(f"{key} hashes", frames, lambda: LazyLocations(self._tables.frames).all().hash)
        return FrameLocations(numbers[0], numbers[1], numbers[2], hashes)

    @cached_property
    def _locations(self) -> LazyLocations:
        return LazyLocations(self._tables.frames)

"""Generated vectors in a mapped file, so that a matching study needs no memory for them."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.arrays import StoredVectors, map_blocks
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.storage.files import explain_write_failure

CENTRES = 1000
MOVED = 0.5
BLOCK_VALUES = 1 << 24  # float32 values made at once: 64 MiB
MEMINFO = Path("/proc/meminfo")


def vector_blocks(rows: int, dimensions: int, seed: int) -> Iterator[Float32Array]:
    """Unit vectors around 1,000 centres (noise of norm 1): blocks `(b, d)` float32, `rows` in all."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((CENTRES, dimensions), dtype=np.float32))
    step = max(1, BLOCK_VALUES // dimensions)
    for start in range(0, rows, step):
        noise = _unit(rng.standard_normal((min(step, rows - start), dimensions), dtype=np.float32))
        noise += centres[rng.integers(0, CENTRES, len(noise))]
        yield _unit(noise)


def draw_queries(vectors: StoredVectors, queries: int, length: int, seed: int) -> Float32Array:
    """`length` rows running from a random one, each moved by noise of norm 0.5: `(queries, length, d)` float32."""
    # A second stream: the queries' noise is not that of the vectors.
    rng = np.random.default_rng([seed, 1])
    first = rng.integers(0, len(vectors) - length + 1, queries)
    base = vectors[first[:, None] + np.arange(length)]
    return _unit(base + MOVED * _unit(rng.standard_normal(base.shape, dtype=np.float32)))


def spooled(
    blocks: Iterable[Float32Array], shape: tuple[int, int], kind: npt.DTypeLike, folder: Path | None
) -> StoredVectors:
    """Map the blocks' vectors `shape` in a file without a name (see `indexer.arrays.map_blocks`).

    Raises:
        ContractError: Where it does not fit on the disk.
        OutputError: Where that refuses.
    """
    place = Path(folder or tempfile.gettempdir())
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        explain_write_failure(place, error)
    _check_disk(place, shape[0] * shape[1] * np.dtype(kind).itemsize)
    return map_blocks(place, blocks, shape, kind)


def _check_disk(folder: Path, needed: int) -> None:
    """Raise ContractError when a file of so many bytes does not fit."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ContractError(
            f"{folder}: the vectors need {needed / 1e9:.1f} GB on the disk, {free / 1e9:.1f} GB are free"
        )


def free_memory() -> int:
    """Bytes that programs can still take; on Linux the page cache counts as free."""
    lines = MEMINFO.read_text(encoding="ascii").splitlines() if MEMINFO.is_file() else []
    fields = dict(line.partition(":")[::2] for line in lines)
    if "MemAvailable" in fields:
        return 1024 * int(fields["MemAvailable"].split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _unit(vectors: Float32Array) -> Float32Array:
    """Vectors (…, d) scaled to unit length."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Float32Array = vectors / lengths
    return unit

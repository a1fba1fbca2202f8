"""Bytes of FAISS index files that are read and written here: heads of exact indexes and of inverted lists.

FAISS's own readers and writers serve everywhere else. At these two places they give the same files for much more time
or memory, measured with FAISS 1.15 on 200,000 vectors of 256 values (205 MB):

* Writing an exact index: FAISS holds all vectors in memory, 1.65 s and 275 MB; a head and a stream of blocks take
  0.58 s and 20 MB. Reading: FAISS maps the vectors where its head ends, 45 bytes into the file, and NumPy copies what
  is not aligned before every product, 0.98 s for 50 queries; here the head is padded, 0.39 s.
* Joining 8 parts of an IVF512: `merge_from` holds the whole index in memory, 0.75 s and 292 MB; `merge_ondisk` takes
  0.28 s and 396 MB, and its second file with an absolute path inside cannot be a version of one immutable file; lists
  copied one by one take 0.31 s and 203 MB, all of it mapped pages.

Empty indexes are written by FAISS itself, so only counts are put into a head that FAISS made, and the end of that head
is compared with what is known here.
"""

import struct
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from seqdata.errors import ContractError, MissingDependencyError, OutputError
from seqdata.geometry import IntArray
from seqdata.storage.files import explain_write_failure

if TYPE_CHECKING:
    import faiss

# Exact files and joined lists had the same bytes under FAISS 1.9, 1.11, 1.13 and 1.15, and each opened them.
FIRST, BELOW = (1, 9), (1, 16)

Exact = Literal["flat", "fp16"]

FACTORY: dict[str, str] = {"flat": "Flat", "fp16": "SQfp16"}
TYPES: dict[str, Any] = {"flat": np.float32, "fp16": np.float16}
# All little-endian. Code, d, ntotal, two unused, is_trained, metric (1 is L2).
_INDEX = struct.Struct("<4siqqq?i")
# SQfp16 goes on with its type (4 is fp16), range statistic and its argument, d, bytes a vector, trained values.
_QUANTISER = struct.Struct("<iifQQQ")
_COUNT = struct.Struct("<Q")
# "ilar", lists, bytes a code, form of the lengths, their number.
_LISTS = struct.Struct("<4sQQ4sQ")
_FULL, _SPARSE = b"full", b"sprs"
_ALIGNMENT = 4


def check_release(package: str, number: str) -> None:
    """Raise MissingDependencyError for a release of FAISS whose files are not known here.

    >>> check_release("faiss-cpu", "1.15.1")
    """
    parts = tuple(int(part) for part in number.split(".")[:2] if part.isdigit())
    if not FIRST <= parts < BELOW:
        bounds = ".".join(map(str, FIRST)), ".".join(map(str, BELOW))
        raise MissingDependencyError(
            f"{package} {number}: index files are known as FAISS {bounds[0]} up to {bounds[1]} (without it) lays them "
            f"out; pip install '{package}>={bounds[0]},<{bounds[1]}'"
        )


def _check_installed() -> None:
    """Look up the installed release without importing FAISS, which is heavy; a build under another name passes."""
    for package in ("faiss-cpu", "faiss-gpu"):
        try:
            check_release(package, version(package))
        except PackageNotFoundError:
            continue


_check_installed()


def faiss_reason(error: BaseException) -> str:
    """The last line of a FAISS error: what was wrong, without the place in its source."""
    return str(error).strip().splitlines()[-1].rpartition("failed: ")[2]


def write(index: "faiss.Index", path: Path) -> None:
    """Write the index to `path` with FAISS.

    Raises:
        OutputError: When the file system refuses.
    """
    import faiss  # heavy

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OutputError(f"{path}: cannot be written, most likely no space is left ({faiss_reason(error)})") from error


def write_exact_head(path: Path, index: "faiss.Index", inner: "faiss.Index", rows: int, kind: Exact) -> None:
    """Write all bytes of an exact index file before the vectors, as FAISS writes them.

    Args:
        path: The file to write; its length is then a multiple of 4.
        index: The empty index with its transforms.
        inner: The exact index in it.
        rows: Vectors that will follow.
        kind: `flat` or `fp16`.

    Raises:
        OutputError: If the file system refuses.
    """
    import faiss  # heavy

    # To a file, not to memory: a transform may take gigabytes.
    write(index, path)
    length = path.stat().st_size
    starts = {0, length - faiss.serialize_index(inner).size}
    # NumPy copies what is not aligned before every product: wrappers without transforms, of 41 bytes, move the rest.
    padding = -length % _ALIGNMENT
    if padding:
        # FAISS keeps a pointer to what a wrapper wraps: the list keeps the Python objects alive until all is written.
        outer = [index]
        for _ in range(padding):
            outer.append(faiss.IndexPreTransform(outer[-1]))
        write(outer[-1], path)
        wrapper = (path.stat().st_size - length) // padding
        starts = {wrapper * depth for depth in range(padding)} | {start + wrapper * padding for start in starts}
    try:
        with path.open("r+b") as file:
            for start in starts:
                # Every layer writes its number of vectors 8 bytes after its start.
                file.seek(start + 8)
                file.write(struct.pack("<q", rows))
            file.seek(-_COUNT.size, 2)
            # FAISS counts float32 values of flat vectors, and bytes of codes.
            file.write(_COUNT.pack(rows * inner.d * (1 if kind == "flat" else 2)))
    except OSError as error:
        explain_write_failure(path, error)


def outer_sizes(head: bytes) -> tuple[int, int]:
    """Read from the first bytes of an index file the values of a vector before the transform, and the vectors."""
    _, size, rows, *_ = _INDEX.unpack_from(head)
    return size, rows


def check_header(path: Path, rows: int, input_size: int) -> None:
    """Compare the first bytes of an index file with the manifest, before FAISS takes them for sizes of arrays.

    Args:
        path: The file.
        rows: Vectors that it must hold.
        input_size: Values of a vector before the transform.

    Raises:
        ContractError: If it is too short for a header, or its header has other sizes or another metric than L2.
    """
    with path.open("rb") as file:
        head = file.read(_INDEX.size)
    if len(head) < _INDEX.size:
        raise ContractError(f"{path}: {len(head)} bytes are no FAISS index")
    _, values, vectors, _, _, trained, metric = _INDEX.unpack(head)
    if (values, vectors, bool(trained), metric) != (input_size, rows, True, 1):
        raise ContractError(
            f"{path}: its header names {vectors} vectors of {values} values and metric {metric}, not {rows} of "
            f"{input_size} and L2 (1)"
        )


def exact_tail_size(kind: Exact) -> int:
    """Count the bytes between the start of an exact index and its vectors, which `is_exact_tail` takes."""
    return _INDEX.size + (_QUANTISER.size if kind == "fp16" else 0) + _COUNT.size


def is_exact_tail(tail: bytes, rows: int, size: int, kind: Exact) -> bool:
    """Whether the bytes before the vectors say that an exact L2 index of these vectors follows."""
    code, d, count, _, _, trained, metric = _INDEX.unpack_from(tail)
    (values,) = _COUNT.unpack_from(tail, len(tail) - _COUNT.size)
    if (d, count, bool(trained), metric) != (size, rows, True, 1):
        return False
    if kind == "flat":
        return bool(code == b"IxF2" and values == rows * size)
    quantiser = _QUANTISER.unpack_from(tail, _INDEX.size)
    is_half = quantiser[0] == 4 and quantiser[3:5] == (size, size * 2)
    return bool(code == b"IxSQ" and values == rows * size * 2 and is_half)


def lists_head(empty: "faiss.Index", code_size: int, sizes: IntArray) -> bytes:
    """Make all bytes of an index file before its first inverted list.

    Args:
        empty: The index with its number of vectors, but with empty lists.
        code_size: Bytes of a code.
        sizes: Vectors of each list (l,).

    Returns:
        The bytes.

    Raises:
        ContractError: If the installed FAISS writes lists in another form.
    """
    import faiss  # heavy

    head: bytes = faiss.serialize_index(empty).tobytes()
    block = _LISTS.pack(b"ilar", len(sizes), code_size, _SPARSE, 0)
    if not head.endswith(block):
        raise ContractError(
            f"FAISS {faiss.__version__} writes inverted lists in a form that cannot be merged on disk; install "
            "faiss-cpu 1.15, or build the index without shares"
        )
    filled = np.flatnonzero(sizes)
    # FAISS lists all lengths where more than half of the lists are filled, otherwise (list, length) pairs.
    form, table = _FULL, sizes
    if len(filled) <= len(sizes) // 2:
        form, table = _SPARSE, np.stack([filled, sizes[filled]], axis=1).ravel()
    lengths = np.ascontiguousarray(table, dtype="<u8")
    return head[: -len(block)] + _LISTS.pack(b"ilar", len(sizes), code_size, form, lengths.size) + lengths.tobytes()

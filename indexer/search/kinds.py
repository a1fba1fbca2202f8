"""Kinds of index: each is one FAISS factory string and the rule of its parameters, for n vectors of k values.

All searches are by L2 distance. What is refused: factories whose index has another metric or no vectors of its own
(`IDMap`, binary), and a `PCA` in the factory: the toolkit's PCA comes first, so that a refinement stage keeps vectors
after it.
"""

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.search.faiss_layers import faiss_threads, layers
from indexer.search.file_layout import FACTORY, faiss_reason
from indexer.search.gpu_training import train_index
from indexer.search.pools import threads
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import IntArray

if TYPE_CHECKING:
    import faiss

LEAST_A_CELL = 39  # FAISS's own floor of training vectors a k-means centre
# A guess between the floor above and the 256 of which FAISS itself takes no more.
SAMPLE_A_CELL = 64
# FAISS's own default.
LINKS = 32
ONE_THREAD = 1 << 30  # products of a k-means round: up to here it takes one thread less than a second
CODEBOOK = 256
ZERO = re.compile(r"(?<!\d)0+(?!\d)")
MOST_NUMBER = 1 << 20
"""Greatest number in a factory string: FAISS's own guide goes to IVF1048576 for a billion vectors."""
MOST_BITS = 11
"""Greatest number of bits of a code, and of half a multi-index: its lists are made at once, 4 million at 2 x 11."""
LONGEST_FACTORY = 100
# The working folder comes first in the path of `python -c`: a stranger's folder may hold a numpy.py.
TRIAL = """
import sys
sys.path[:] = [place for place in sys.path if place]
import faiss, numpy
index = faiss.index_factory(int(sys.argv[1]), sys.argv[2], faiss.METRIC_L2)
if index.is_trained:
    index.add(numpy.zeros((9, index.d), numpy.float32))
"""


@dataclass(frozen=True)
class IndexKind:
    """One kind of index, by the name that --kind takes.

    What its FAISS classes need and offer (memory, search parameters, whole vectors) stands by class in
    `indexer.search.faiss_layers.LAYERS`; a kind of known classes is one entry in `KINDS`.

    Attributes:
        factory: The FAISS factory string for n vectors of k values; None where it is chosen by measurement.
        is_exact: Whether vectors lie whole in the file and are searched by `ExactVectors`.
        is_mergeable: Whether parts of it can be encoded apart and joined on disk.
    """

    factory: Callable[[int, int], str] | None
    is_exact: bool = False
    is_mergeable: bool = False


def cells(rows: int) -> int:
    """Count inverted lists for n vectors: the power of two nearest 2·√n that leaves 39 vectors a list, at least 1."""
    most = max(1, rows // LEAST_A_CELL)
    return int(2 ** min(round(math.log2(2 * math.sqrt(max(rows, 1)))), int(math.log2(most))))


def subspaces(size: int) -> int:
    """Count the bytes of a PQ code: the greatest divisor of `size` that is at most a quarter of it, at least 1."""
    return max(m for m in range(1, max(1, size // 4) + 1) if size % m == 0)


def multi_index(rows: int, size: int) -> str:
    """Name two codebooks whose pairs are about 4·√n cells.

    Raises:
        ContractError: Where vectors cannot be halved.
    """
    if size % 2:
        raise ContractError(f"--kind imi: {size} values cannot be halved; use an even --pca, or --kind ivf")
    return f"IMI2x{max(1, round(math.log2(4 * math.sqrt(max(rows, 1))) / 2))},Flat"


KINDS: dict[str, IndexKind] = {
    "flat": IndexKind(lambda rows, size: FACTORY["flat"], is_exact=True, is_mergeable=True),
    "fp16": IndexKind(lambda rows, size: FACTORY["fp16"], is_exact=True, is_mergeable=True),
    "ivf": IndexKind(lambda rows, size: f"IVF{cells(rows)},Flat", is_mergeable=True),
    "hnsw": IndexKind(lambda rows, size: f"HNSW{LINKS}"),
    "pq": IndexKind(lambda rows, size: f"PQ{subspaces(size)}x8"),
    "imi": IndexKind(multi_index, is_mergeable=True),
    "auto": IndexKind(None),
}
EXACT = tuple(name for name, kind in KINDS.items() if kind.is_exact)
MERGEABLE = tuple(name for name, kind in KINDS.items() if kind.is_mergeable)


@dataclass(frozen=True)
class KindSpec:
    """Which index to build: a kind, or a FAISS factory string (which wins over the kind).

    `recall_target` is the share of the exact 10 nearest that search parameters are chosen for; `memory` limits what
    `auto` may choose, in bytes; `seed` draws training and held-out vectors.
    """

    kind: str = "flat"
    factory: str | None = None
    recall_target: float = 0.99
    memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: ContractError on an unknown kind, a target that is no share, or a memory without `auto`."""
        if self.kind not in KINDS:
            raise ContractError(f"--kind {self.kind}: unknown; use one of {', '.join(KINDS)}, or --factory")
        if not 0 < self.recall_target <= 1:
            raise ContractError(f"--recall-target {self.recall_target}: a share above 0 and up to 1 is needed")
        if self.memory is not None and self.memory < 1:
            raise ContractError(f"--memory {self.memory}: a number of bytes above 0 is needed")
        if self.memory is not None and self.name != "auto":
            raise ContractError(f"--memory limits what --kind auto may choose: leave it out with {self.name}")
        if self.factory is not None and not self.factory.strip():
            raise ContractError("--factory: a FAISS factory string is needed, such as IVF1024,Flat")
        if self.factory is not None and "PCA" in self.factory:
            raise ContractError(f"--factory {self.factory}: use --pca: a refinement then keeps the vectors after it")

    @property
    def name(self) -> str:
        """The kind, `factory` where a factory string was given."""
        return self.kind if self.factory is None else "factory"

    def settings(self) -> dict[str, Any]:
        """What the identity of a version depends on; empty for the exact float32 index."""
        if self.name in EXACT:
            return {} if self.name == "flat" else {"kind": self.name}
        settings = {"kind": self.name, "recall_target": self.recall_target, "seed": self.seed}
        if self.factory is not None:
            settings["factory"] = self.factory
        if self.memory is not None:
            settings["memory"] = self.memory
        return settings


def as_spec(kind: "KindSpec | str") -> KindSpec:
    """A kind's name as its spec.

    Raises:
        ContractError: On an unknown kind.
    """
    return kind if isinstance(kind, KindSpec) else KindSpec(kind)


def factory_string(kind: str, rows: int, size: int) -> str:
    """Name the FAISS index of a kind.

    ivf: 2·√n cells, a power of two, at least 39 vectors a cell. imi: two codebooks whose pairs are about 4·√n cells.
    hnsw: 32 links. pq: one byte for about four values.

    Args:
        kind: A name of `KINDS` but `auto`.
        rows: Vectors.
        size: Values a vector.

    Returns:
        The factory string.

    Raises:
        ContractError: If the kind needs another size, or is chosen by measurement.

    Example:
        >>> factory_string("ivf", rows=100_000, size=256)
        'IVF512,Flat'
    """
    make = KINDS[kind].factory
    if make is None:
        raise ContractError(f"--kind {kind}: which index it is depends on what is measured; name another kind")
    return make(rows, size)


def create(factory: str, size: int, check: bool = False) -> "faiss.Index":
    """Create an empty, untrained FAISS index (L2).

    Args:
        factory: FAISS's factory string.
        size: Values of a vector.
        check: Whether to try the string in a process of its own first: some senseless ones end the process in FAISS.

    Returns:
        The index.

    Raises:
        ContractError: If FAISS refuses the string.
    """
    import faiss  # heavy

    check_bounds(factory)
    if check:
        _try_apart(factory, size)
    try:
        index = faiss.index_factory(size, factory, faiss.METRIC_L2)
    except (RuntimeError, AssertionError) as error:
        raise ContractError(f"--factory {factory}: FAISS refuses it ({faiss_reason(error)})") from error
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2) or index.metric_type != faiss.METRIC_L2:
        raise ContractError(f"--factory {factory}: rows must be numbered by their order and compared by L2")
    return index


def check_bounds(factory: str) -> None:
    """Refuse a factory string whose numbers would make FAISS fill the memory before anything is trained.

    Args:
        factory: The string, as a flag or a manifest gives it.

    Raises:
        ContractError: Naming the number.

    Example:
        >>> check_bounds("IVF4096,PQ32x8")
        >>> check_bounds("PQ4x24")
        Traceback (most recent call last):
        ...
        seqdata.errors.ContractError: --factory PQ4x24: 24 bits a code are too many; at most 11
    """
    if len(factory) > LONGEST_FACTORY or not factory.isascii() or not factory.isprintable():
        raise ContractError(f"--factory {factory[:LONGEST_FACTORY]!r}: no factory string of at most 100 characters")
    bits = [int(text) for text in re.findall(r"\dx(\d{1,20})", factory)]
    if max(bits, default=0) > MOST_BITS:
        raise ContractError(f"--factory {factory}: {max(bits)} bits a code are too many; at most {MOST_BITS}")
    numbers = [int(text) for text in re.findall(r"\d+", factory)]
    if max(numbers, default=0) > MOST_NUMBER:
        raise ContractError(f"--factory {factory}: {max(numbers)} is too large a number; at most {MOST_NUMBER}")


def _try_apart(factory: str, size: int) -> None:
    if ZERO.search(factory):
        raise ContractError(f"--factory {factory}: a number of 0 makes no index")
    # A crash in C++ cannot be caught: only in another process does it become an error text.
    tried = subprocess.run(
        [sys.executable, "-c", TRIAL, str(size), factory], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        # FAISS names the place in its own source before what is wrong.
        reason = re.sub(r"^.* at \S+:\d+: ", "", (tried.stderr.strip() or "it ends the process").splitlines()[-1])
        raise ContractError(f"--factory {factory}: FAISS refuses it for vectors of {size} values ({reason})")


def train(index: "faiss.Index", vectors: "np.ndarray[Any, np.dtype[np.float32]]", seed: int, what: str) -> int:
    """Train an index on vectors spread over the whole set.

    Args:
        index: The index, changed in place.
        vectors: Projected vectors (n, k).
        seed: Of their draw.
        what: Name of the index in messages.

    Returns:
        Vectors that it was trained on; 0 where it needs no training.

    Raises:
        NotEnoughDataError: If there are fewer vectors than centres.
    """
    if index.is_trained:
        return 0
    centres, work = _prepare(index)
    if len(vectors) < centres:
        raise NotEnoughDataError(f"{what}: {len(vectors)} vectors cannot train {centres} centres; use --kind flat")
    rows = training_rows(index, len(vectors), seed)
    count = len(rows)
    sample = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    try:
        with faiss_threads(1 if count * work <= ONE_THREAD else threads()), _quiet_rotations(index):
            train_index(index, sample)
    except RuntimeError as error:
        raise NotEnoughDataError(f"{what}: cannot be trained on {count} vectors ({faiss_reason(error)})") from error
    return count


def training_rows(index: "faiss.Index", total: int, seed: int) -> IntArray:
    """The rows, of `total`, whose vectors train an index: 64 a centre, spread over all."""
    return spread_rows(total, max(_prepare(index)[0], CODEBOOK) * SAMPLE_A_CELL, seed)


def spread_rows(total: int, count: int, seed: int) -> IntArray:
    """`count` of `total` rows, rising, one at random from each of as many equal stretches.

    Rows lie drive after drive, so every drive gives its share; never the first rows alone.
    """
    if count >= total:
        return np.arange(total)
    edges = np.arange(count + 1) * total // count
    inside = np.random.default_rng(seed).random(count)
    rows: IntArray = edges[:-1] + (inside * np.diff(edges)).astype(np.int64)
    return rows


def _prepare(index: "faiss.Index") -> tuple[int, int]:
    """Settings before training; returns the centres of the largest k-means, and the most values of all centres of one.

    FAISS's notes about small samples are silenced. Codes are not reordered for a Hamming search that nobody runs
    (polysemous training: most of a PQ's time).
    """
    centres, work = 1, 1
    for layer in layers(index):
        if hasattr(layer, "do_polysemous_training"):
            layer.do_polysemous_training = False
        # The least number of points a centre decides about FAISS's warning alone, not about the result.
        for part in (layer, getattr(layer, "pq", None), getattr(layer, "refine_pq", None)):
            if part is not None and hasattr(part, "cp"):
                part.cp.min_points_per_centroid = 1
        if hasattr(layer, "pq"):
            centres, work = max(centres, layer.pq.ksub), max(work, layer.pq.ksub * layer.pq.dsub)
        if hasattr(layer, "nlist") and not _is_multi(layer):
            centres, work = max(centres, layer.nlist), max(work, layer.nlist * layer.d)
    return centres, work


@contextmanager
def _quiet_rotations(index: "faiss.Index") -> Iterator[None]:
    """Let rotations that are trained with a product quantiser use one that prints no notes: 50 for each part else."""
    import faiss  # heavy

    borrowed = []
    for layer in layers(index):
        for position in range(layer.chain.size()) if isinstance(layer, faiss.IndexPreTransform) else ():
            rotation = faiss.downcast_VectorTransform(layer.chain.at(position))
            if isinstance(rotation, faiss.OPQMatrix) and rotation.pq is None:
                quantizer = faiss.ProductQuantizer(rotation.d_out, rotation.M, 8)  # 8 bits: FAISS's own default
                quantizer.cp.min_points_per_centroid = 1
                rotation.pq = quantizer
                borrowed.append((rotation, quantizer))
    try:
        yield
    finally:
        # The rotation holds a bare pointer, which must not outlive the quantiser.
        for rotation, _ in borrowed:
            rotation.pq = None


def _is_multi(layer: "faiss.Index") -> bool:
    import faiss  # heavy

    return isinstance(faiss.downcast_index(layer.quantizer), faiss.MultiIndexQuantizer)

"""Cost of finding a place, by database size and engine: exact, approximate, and frame by frame.

The vectors are generated into a file, which is mapped: only what FAISS holds of them must fit into memory.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.approximate import FaissVectors
from indexer.search.engines import half_norms
from indexer.search.exact import ExactVectors
from indexer.search.faiss_layers import estimate
from indexer.search.file_layout import TYPES
from indexer.search.kinds import EXACT, KindSpec, create, factory_string, training_rows
from indexer.search.pools import threads
from indexer.selection import choose as auto
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array, IntArray
from train.profiling.vectors import BLOCK_VALUES, draw_queries, free_memory, spooled, vector_blocks

K = 10
# Windows that HVPR re-ranks (Mereu et al. 2022, Table II).
SHORTLIST = 20
LENGTH = 5
RECALL_TARGET = KindSpec().recall_target
GROWTH = {"ivf": 1.3, "imi": 1.3, "hnsw": 2.0, "pq": 2.0}
"""Peak memory while vectors are added, over the final size: lists are reallocated one by one, flat arrays whole."""

ENGINES: dict[str, str] = {
    "flat": "Exact (flat)",
    "fp16": "Exact on half precision (fp16)",
    "ivf": "Inverted file (IVF)",
    "imi": "Inverted multi-index (IMI)",
    "hnsw": "Small-world graph (HNSW)",
    "pq": "Product quantiser (PQ)",
    "aligned": "Sequence matching (aligned)",
    "hvpr": f"HVPR: exact shortlist of {SHORTLIST}, aligned re-rank",
}
"""Ways to search, with their words: kinds of `seqdata index --kind`, and two ways to match frames."""
BY_FRAME = ("aligned", "hvpr")


@dataclass(frozen=True)
class Matching:
    """Cost of one engine at one size: `ms` a query (median), `megabytes` of the index, `agreement` with exact search.

    Agreement is the share of the 10 exact neighbours that are found; where frames are matched, the share of queries
    whose first window is that of matching every window. `length`: frames of a query that are compared. `factory` and
    `search` are those of the index that `seqdata index --kind` builds; `build_seconds` hold the choice of `search` on
    held-out vectors. `threads` of a query searched alone: one in FAISS, OMP_NUM_THREADS (without: the cores) in exact
    search and where frames are matched.
    """

    engine: str
    factory: str
    database: int
    dimensions: int
    length: int
    ms: float
    megabytes: float
    agreement: float
    build_seconds: float
    threads: int
    search: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class _Built:
    """A searcher over single vectors, and what it took."""

    searcher: ExactVectors | FaissVectors
    factory: str
    bytes: int
    threads: int
    search: str = ""


def matching(
    engine: str,
    database: int,
    dimensions: int,
    queries: int = 50,
    seed: int = 0,
    *,
    length: int = LENGTH,
    folder: Path | None = None,
) -> Matching:
    """Build and search one engine over generated vectors, one query at a time.

    Args:
        engine: One of `ENGINES`.
        database: Vectors in the database.
        dimensions: Numbers of a vector.
        queries: Queries whose times are measured.
        seed: Seed of the vectors and of the queries.
        length: Frames of a query where frames are matched; the other engines take its first.
        folder: Where the vectors lie meanwhile, in a file that ends with the process; default: temporary files.

    Returns:
        The cost.

    Raises:
        ContractError: If the engine is unknown, or index or vectors do not fit into memory or on the disk.
        NotEnoughDataError: If the database is too small for its kind.
        OutputError: If the disk refuses.

    Source: Mereu et al., Learning Sequential Descriptors for Sequence-based Visual Place Recognition, RA-L 2022,
    sec. IV-B, "Inference time", with the engines that it names but did not try.
    """
    if engine not in ENGINES:
        raise ContractError(f"no engine '{engine}'; there are {', '.join(ENGINES)}")
    if engine not in (*EXACT, *BY_FRAME):
        _check_memory(engine, database, dimensions)
    shape = (database + length - 1, dimensions)
    vectors = spooled(vector_blocks(*shape, seed), shape, np.float32, folder)
    query_windows = draw_queries(vectors, queries, length, seed)
    if engine in BY_FRAME:
        return _frames(engine, vectors, query_windows, database)
    if engine != "fp16":
        return _vectors(engine, vectors[:database], vectors[:database], query_windows[:, 0])
    step = max(1, BLOCK_VALUES // dimensions)
    halves = (vectors[at : min(at + step, database)] for at in range(0, database, step))
    half_vectors = spooled(halves, (database, dimensions), TYPES[engine], folder)
    return _vectors(engine, vectors[:database], half_vectors, query_windows[:, 0])


def _vectors(engine: str, vectors: StoredVectors, searched: StoredVectors, queries: Float32Array) -> Matching:
    """A kind of index over single `vectors` (n, d); an exact one searches them as they are `searched`."""
    contiguous = np.ascontiguousarray(queries)
    start = time.perf_counter()
    built = _exact(engine, searched) if engine in EXACT else _approximate(engine, vectors)
    seconds = time.perf_counter() - start
    ms, answers = _time(lambda query: built.searcher.nearest(query[None], K)[1][0], contiguous)
    agreement = _agreement(answers, ExactVectors(vectors, "cpu").nearest(contiguous, K)[1])
    return Matching(
        engine=engine,
        factory=built.factory,
        database=len(vectors),
        dimensions=vectors.shape[1],
        length=1,
        ms=ms,
        megabytes=built.bytes / 1e6,
        agreement=agreement,
        build_seconds=seconds,
        threads=built.threads,
        search=built.search,
    )


def _exact(kind: str, vectors: StoredVectors) -> _Built:
    """Exact search of mapped vectors, as an opened index of that kind has them."""
    return _Built(ExactVectors(vectors, "cpu"), factory_string(kind, *vectors.shape), vectors.nbytes, threads())


def _approximate(kind: str, vectors: StoredVectors) -> _Built:
    """The index that `seqdata index --kind` makes of these vectors, in memory."""
    import faiss  # heavy

    choice = auto.choose(KindSpec(kind, recall_target=RECALL_TARGET), vectors)
    assert choice.index is not None  # noqa: S101  (only exact kinds have none)
    search = ", ".join(f"{name} {value}" for name, value in choice.point.search.items())
    parts: list[int] = []
    # The written size is what an index takes on disk and mapped; counted without keeping the bytes.
    faiss.write_index(choice.index, faiss.PyCallbackIOWriter(lambda part: parts.append(len(part))))
    return _Built(FaissVectors(choice.index), choice.point.factory, sum(parts), 1, search)


def _frames(engine: str, vectors: StoredVectors, queries: Float32Array, database: int) -> Matching:
    """Sequence matching over frame vectors: every window, or the shortlist of the nearest first frames."""
    halves = _half_norms(vectors)
    ms, exact = _time(lambda query: _aligned_everywhere(vectors, halves, query), queries)
    answers, factory, size = exact, "aligned", vectors.nbytes
    if engine == "hvpr":
        index = _exact("flat", vectors[:database])
        factory, size = f"{index.factory} + aligned", size + index.bytes

        def rerank(query: Float32Array) -> IntArray:
            return _aligned(vectors, query, index.searcher.nearest(query[:1], SHORTLIST)[1][0])

        ms, answers = _time(rerank, queries)
    return Matching(
        engine=engine,
        factory=factory,
        database=database,
        dimensions=vectors.shape[1],
        length=queries.shape[1],
        ms=ms,
        megabytes=size / 1e6,
        agreement=_agreement([rows[:1] for rows in answers], [rows[:1] for rows in exact]),
        build_seconds=0.0,
        threads=threads(),
    )


def _half_norms(vectors: StoredVectors) -> Float32Array:
    """|x|²/2 of every vector `(n,)`, a block at a time."""
    step = max(1, BLOCK_VALUES // vectors.shape[1])
    return np.concatenate([half_norms(vectors[at : at + step]) for at in range(0, len(vectors), step)])


def _aligned_everywhere(vectors: StoredVectors, halves: Float32Array, query: Float32Array) -> IntArray:
    """First rows of the 10 windows with the least mean distance to `query` (L, d), frame by frame.

    Every frame is compared with every frame in one product, which is then added up along its diagonals.
    """
    windows = len(vectors) - len(query) + 1
    # |x − q|² = |x|² − 2·x·q + |q|², with the halves of |x|² at hand: one product for all frames of the query.
    squared = 2 * (halves[:, None] - vectors @ query.T) + np.square(query).sum(1)
    distances = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
    # A diagonal of the matrix is one column, shifted: L additions of whole columns and no gather.
    total = sum(distances[offset : offset + windows, offset] for offset in range(len(query)))
    return np.argsort(total, kind="stable")[:K]


def _aligned(vectors: StoredVectors, query: Float32Array, windows: IntArray) -> IntArray:
    """The 10 of these first rows whose windows have the least mean distance to `query` (L, d), frame by frame."""
    frames = vectors[windows[:, None] + np.arange(len(query))]
    total = np.linalg.norm(frames - query, axis=2).sum(1)
    return windows[np.argsort(total, kind="stable")[:K]]


def _time(search: Callable[[Float32Array], IntArray], queries: Float32Array) -> tuple[float, list[IntArray]]:
    """Median milliseconds a query, and the rows of each; the first query is searched twice, to warm up."""
    search(queries[0])
    seconds, answers = [], []
    for query in queries:
        start = time.perf_counter()
        answers.append(search(query))
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds)), answers


def _agreement(answers: "list[IntArray]", exact: "list[IntArray] | IntArray") -> float:
    """Mean share of the exact neighbours among the answers."""
    shares = [len(np.intersect1d(mine, true)) / len(true) for mine, true in zip(answers, exact, strict=True)]
    return float(np.mean(shares))


def _check_memory(kind: str, database: int, dimensions: int) -> None:
    """Raise ContractError when a FAISS index and the vectors that train it do not fit into free memory."""
    index = create(factory_string(kind, database, dimensions), dimensions)
    sample = 0 if index.is_trained else len(training_rows(index, database, 0)) * dimensions * 4
    needed = GROWTH[kind] * estimate(index, database) + sample
    free = free_memory()
    if needed > free:
        raise ContractError(
            f"{kind} over {database:,} vectors of {dimensions} dimensions needs {needed / 1e9:.1f} GB of memory to be "
            f"built, {free / 1e9:.1f} GB are free"
        )

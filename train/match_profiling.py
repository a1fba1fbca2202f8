"""What finding a place costs, by database size and engine: exact, approximate, and frame by frame."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqdata.errors import ContractError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

CENTRES = 1000
MOVED = 0.5
K = 10
SHORTLIST = 20
BLOCK = 65_536


@dataclass(frozen=True)
class Engine:
    """A way to search: its words, its FAISS factory by database size and dimensions, cells or nodes looked at."""

    label: str
    factory: Callable[[int, int], str] | None
    search: dict[str, int]


ENGINES: dict[str, Engine] = {
    "flat": Engine("Exact (Flat)", lambda n, d: "Flat", {}),
    "fp16": Engine("Exact on half precision (SQfp16)", lambda n, d: "SQfp16", {}),
    "ivf": Engine("Inverted file (IVF, Flat)", lambda n, d: f"IVF{_cells(n)},Flat", {"nprobe": 16}),
    "imi": Engine("Inverted multi-index (IMI, Flat)", lambda n, d: f"IMI2x{_bits(n)},Flat", {"nprobe": 256}),
    "hnsw": Engine("Small-world graph (HNSW32, Flat)", lambda n, d: "HNSW32,Flat", {"efSearch": 64}),
    "pq": Engine("Product quantiser (PQ)", lambda n, d: f"PQ{max(1, d // 8)}x{min(8, _bits(n))}np", {}),
    "aligned": Engine("Sequence matching (aligned, L = 5)", None, {}),
    "hvpr": Engine(f"HVPR: exact shortlist of {SHORTLIST}, aligned re-rank", lambda n, d: "Flat", {}),
}
LENGTH = 5


@dataclass(frozen=True)
class Matching:
    """Cost of one engine at one size: `ms` a query (median), `megabytes` held, `agreement` with exact search.

    Agreement is the share of the 10 exact neighbours that are found; where frames are matched, the share of queries
    whose first window is that of matching every window.
    """

    engine: str
    factory: str
    database: int
    dimensions: int
    ms: float
    megabytes: float
    agreement: float
    build_seconds: float
    threads: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


def matching(engine: str, database: int, dimensions: int, queries: int = 50, seed: int = 0) -> Matching:
    """Build and search one engine over generated vectors, one query at a time on one thread.

    Source: P1 section IV-B, "Inference time", with the engines that it names but did not try.
    Raises: ContractError for an unknown engine, or a database that does not fit into memory.
    """
    import faiss

    if engine not in ENGINES:
        raise ContractError(f"no engine '{engine}'; there are {', '.join(ENGINES)}")
    _check_memory(database, dimensions)
    vectors, asked = generate(database + LENGTH - 1, queries, dimensions, seed)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        frames = engine in ("aligned", "hvpr")
        return (_frames if frames else _vectors)(engine, vectors[: database + LENGTH - 1], asked, database)
    finally:
        faiss.omp_set_num_threads(threads)


def generate(rows: int, queries: int, dimensions: int, seed: int) -> tuple[Floats, Floats]:
    """Unit vectors around 1,000 centres (noise of norm 1), and queries: `LENGTH` rows running from a random one, each
    moved by noise of norm 0.5; `(rows, d)` and `(queries, LENGTH, d)` float32.
    """
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((CENTRES, dimensions), dtype=np.float32))
    vectors = np.empty((rows, dimensions), np.float32)
    for start in range(0, rows, BLOCK):
        part = vectors[start : start + BLOCK]
        noise = _unit(rng.standard_normal(part.shape, dtype=np.float32))
        part[:] = _unit(centres[rng.integers(0, CENTRES, len(part))] + noise)
    first = rng.integers(0, rows - LENGTH + 1, queries)
    base = vectors[first[:, None] + np.arange(LENGTH)]
    return vectors, _unit(base + MOVED * _unit(rng.standard_normal(base.shape, dtype=np.float32)))


def _vectors(engine: str, vectors: Floats, asked: Floats, database: int) -> Matching:
    """A FAISS engine over single vectors: the first frame of each query is its descriptor."""
    import faiss

    chosen, stored, wanted = ENGINES[engine], vectors[:database], np.ascontiguousarray(asked[:, 0])
    assert chosen.factory is not None  # noqa: S101  (sequence matching goes another way)
    factory = chosen.factory(database, vectors.shape[1])
    start = time.perf_counter()
    index = faiss.index_factory(vectors.shape[1], factory)
    index.train(stored)
    index.add(stored)
    built = time.perf_counter() - start
    for name, value in chosen.search.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    ms, found = _time(lambda query: index.search(query[None], K)[1][0], wanted)
    exact = faiss.IndexFlatL2(vectors.shape[1])
    exact.add(stored)
    size = faiss.serialize_index(index).nbytes
    return _result(engine, factory, vectors, database, ms, size, _agreement(found, exact.search(wanted, K)[1]), built)


def _frames(engine: str, vectors: Floats, asked: Floats, database: int) -> Matching:
    """Sequence matching over frame vectors: every window, or the shortlist of the nearest first frames."""
    import faiss

    norms = np.square(vectors).sum(1)
    everywhere = np.arange(database)
    ms, full = _time(lambda query: _aligned(vectors, norms, query, everywhere), asked)
    found, factory, built = full, "aligned", 0.0
    if engine == "hvpr":
        start = time.perf_counter()
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors[:database])
        built, factory = time.perf_counter() - start, "Flat + aligned"

        def rerank(query: Floats) -> Rows:
            near = index.search(query[:1], min(SHORTLIST, database))[1][0]
            return _aligned(vectors, norms, query, near)

        ms, found = _time(rerank, asked)
    size = vectors.nbytes * (2 if engine == "hvpr" else 1)
    firsts = [rows[:1] for rows in found], [rows[:1] for rows in full]
    return _result(engine, factory, vectors, database, ms, size, _agreement(*firsts), built)


def _aligned(vectors: Floats, norms: Floats, query: Floats, windows: Rows) -> Rows:
    """Rows of the 10 windows, among those that begin at `windows`, with the least mean distance frame by frame."""
    total = np.zeros(len(windows), np.float32)
    whole = len(windows) > SHORTLIST
    for place, frame in enumerate(query):
        rows = slice(place, place + len(windows)) if whole else windows + place
        squared = norms[rows] - 2 * (vectors[rows] @ frame) + float(frame @ frame)
        total += np.sqrt(np.maximum(squared, 0))
    return windows[np.argsort(total, kind="stable")[:K]]


def _time(search: Callable[[Floats], Rows], queries: Floats) -> tuple[float, list[Rows]]:
    """Median milliseconds a query, and what each found; the first query is asked twice, to warm up."""
    search(queries[0])
    seconds, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds)), found


def _agreement(found: "list[Rows]", exact: "list[Rows] | Rows") -> float:
    """Share of the exact neighbours that were found."""
    shares = [len(np.intersect1d(mine, true)) / len(true) for mine, true in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def _result(
    engine: str, factory: str, vectors: Floats, database: int, ms: float, size: int, agreement: float, built: float
) -> Matching:
    return Matching(engine, factory, database, vectors.shape[1], ms, size / 1e6, agreement, built, threads=1)


def _check_memory(database: int, dimensions: int) -> None:
    """Raise ContractError when vectors, the index and the exact one beside it do not fit into free memory."""
    needed = 4 * 3 * database * dimensions
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise ContractError(
            f"{database} vectors of {dimensions} dimensions need {needed / 1e9:.1f} GB to be compared with exact "
            f"search, {free / 1e9:.1f} GB are free"
        )


def _cells(database: int) -> int:
    """Inverted lists: about 4·√n, and 39 vectors at least to train each."""
    return int(max(1, min(4 * database**0.5, database // 39)))


def _bits(database: int) -> int:
    """Bits of each half of the multi-index; 39 vectors at least to train each of 2^bits centres."""
    return int(max(2, min(10, np.log2(max(database / 39, 4)))))


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = vectors / lengths
    return unit

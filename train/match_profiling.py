"""What finding a place costs, by database size and engine: exact, approximate, and frame by frame."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer import auto
from indexer.approximate import FaissVectors
from indexer.auto import Searcher
from indexer.engines import threads
from indexer.exact import ExactVectors
from indexer.flat import TYPES
from indexer.kinds import EXACT, KindSpec, factory_string
from seqdata.errors import ContractError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

CENTRES = 1000
MOVED = 0.5
K = 10
SHORTLIST = 20
BLOCK = 65_536
LENGTH = 5
RECALL_TARGET = KindSpec().recall_target

ENGINES: dict[str, str] = {
    "flat": "Exact (flat)",
    "fp16": "Exact on half precision (fp16)",
    "ivf": "Inverted file (IVF)",
    "imi": "Inverted multi-index (IMI)",
    "hnsw": "Small-world graph (HNSW)",
    "pq": "Product quantiser (PQ)",
    "aligned": f"Sequence matching (aligned, L = {LENGTH})",
    "hvpr": f"HVPR: exact shortlist of {SHORTLIST}, aligned re-rank",
}
"""Ways to search, with their words: kinds of `seqdata index --kind`, and two ways to match frames."""


@dataclass(frozen=True)
class Matching:
    """Cost of one engine at one size: `ms` a query (median), `megabytes` held, `agreement` with exact search.

    Agreement is the share of the 10 exact neighbours that are found; where frames are matched, the share of queries
    whose first window is that of matching every window. `factory` and `search` are those of the index that
    `seqdata index --kind` builds; `build_seconds` hold the choice of `search` on held-out vectors. `threads` of a query
    searched alone: one in FAISS, OMP_NUM_THREADS (without: the cores) in exact search and where frames are matched.
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
    search: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class _Built:
    """A searcher over single vectors, and what it took."""

    searcher: Searcher
    factory: str
    bytes: int
    threads: int
    search: str = ""


def matching(engine: str, database: int, dimensions: int, queries: int = 50, seed: int = 0) -> Matching:
    """Build and search one engine over generated vectors, one query at a time.

    Source: P1 section IV-B, "Inference time", with the engines that it names but did not try.
    Raises: ContractError for an unknown engine, or a database that does not fit into memory; NotEnoughDataError for one
    that is too small for its kind.
    """
    if engine not in ENGINES:
        raise ContractError(f"no engine '{engine}'; there are {', '.join(ENGINES)}")
    _check_memory(database, dimensions)
    vectors, asked = generate(database + LENGTH - 1, queries, dimensions, seed)
    return (_frames if engine in ("aligned", "hvpr") else _vectors)(engine, vectors, asked, database)


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
    """A kind of index over single vectors: the first frame of each query is its descriptor."""
    stored, wanted = vectors[:database], np.ascontiguousarray(asked[:, 0])
    start = time.perf_counter()
    built = _build(engine, stored)
    seconds = time.perf_counter() - start
    ms, found = _time(lambda query: built.searcher.nearest(query[None], K)[1][0], wanted)
    agreement = _agreement(found, ExactVectors(stored, "cpu").nearest(wanted, K)[1])
    return Matching(
        engine=engine,
        factory=built.factory,
        database=database,
        dimensions=stored.shape[1],
        ms=ms,
        megabytes=built.bytes / 1e6,
        agreement=agreement,
        build_seconds=seconds,
        threads=built.threads,
        search=built.search,
    )


def _build(kind: str, stored: Floats) -> _Built:
    """The index that `seqdata index --kind` makes of these vectors, in memory."""
    if kind in EXACT:
        kept = stored.astype(TYPES[kind])
        return _Built(ExactVectors(kept, "cpu"), factory_string(kind, *stored.shape), kept.nbytes, threads())
    import faiss

    chosen = auto.choose(KindSpec(kind, recall_target=RECALL_TARGET), stored)
    assert chosen.index is not None  # noqa: S101  (only exact kinds have none)
    search = ", ".join(f"{name} {value}" for name, value in chosen.point.search.items())
    size = int(faiss.serialize_index(chosen.index).nbytes)
    return _Built(FaissVectors(chosen.index), chosen.point.factory, size, 1, search)


def _frames(engine: str, vectors: Floats, asked: Floats, database: int) -> Matching:
    """Sequence matching over frame vectors: every window, or the shortlist of the nearest first frames."""
    norms = np.square(vectors).sum(1)
    everywhere = np.arange(database)
    ms, full = _time(lambda query: _aligned(vectors, norms, query, everywhere), asked)
    found, factory, size = full, "aligned", vectors.nbytes
    if engine == "hvpr":
        index = _build("flat", vectors[:database])
        factory, size = f"{index.factory} + aligned", size + index.bytes

        def rerank(query: Floats) -> Rows:
            return _aligned(vectors, norms, query, index.searcher.nearest(query[:1], SHORTLIST)[1][0])

        ms, found = _time(rerank, asked)
    agreement = _agreement([rows[:1] for rows in found], [rows[:1] for rows in full])
    return Matching(engine, factory, database, vectors.shape[1], ms, size / 1e6, agreement, 0.0, threads())


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


def _check_memory(database: int, dimensions: int) -> None:
    """Raise ContractError when vectors, the index and the exact one beside it do not fit into free memory."""
    needed = 4 * 3 * database * dimensions
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise ContractError(
            f"{database} vectors of {dimensions} dimensions need {needed / 1e9:.1f} GB to be compared with exact "
            f"search, {free / 1e9:.1f} GB are free"
        )


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = vectors / lengths
    return unit

"""Measured search: recall of the exact ten nearest and time a query, by kind and search parameters, and the choice."""

import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexer.approximate import FaissVectors, add
from indexer.engines import threads
from indexer.exact import ExactVectors, Readable, distances_between
from indexer.flat import Rows, Stored, faiss_reason
from indexer.kinds import (
    EXACT,
    KindSpec,
    cells,
    create,
    factory_string,
    spread_rows,
    subspaces,
    train,
)
from indexer.layers import estimate, ladder, set_search
from indexer.transform import Floats
from seqdata.errors import ContractError, NotEnoughDataError

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

K = 10
QUERIES = 500
TIMED = 50
EXACT_ROWS = 10_000  # below this an exact search takes about a millisecond: nothing to gain
GAIN = 2.0  # an approximate index must be so much faster than the exact one to be worth its misses
GRAPH_ROWS = 200_000  # building an HNSW graph of more takes many minutes on two cores: `auto` leaves it out


class Searcher(Protocol):
    """Anything that finds near rows."""

    def nearest(self, queries: Floats, k: int, rows: Rows | None = None) -> tuple[Floats, Rows]:
        """Distances (q, k) and rows (q, k)."""
        ...


@dataclass(frozen=True)
class Point:
    """One measured setting: mean share of the exact 10 nearest found (by distance, so that equal ones count), seconds.

    `one` is the median time of a query searched alone, `batch` the time a query when all are searched at once; `bytes`
    is the size of the index; `note` says why nothing was measured.
    """

    kind: str
    factory: str
    search: dict[str, Any]
    bytes: int
    recall: float | None = None
    one: float | None = None
    batch: float | None = None
    threads: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Held:
    """Held-out queries: database vectors (q, k), each searched without itself, and the exact distances of the 10th."""

    queries: Floats
    rows: Rows
    limit: Floats

    @property
    def found(self) -> int:
        """How many neighbours are asked for: one more, as a query may find itself."""
        return K + 1


@dataclass
class Chosen:
    """The measured curve and the point chosen; `index` is its FAISS index, None for the exact kinds."""

    point: Point
    curve: list[Point]
    queries: int
    index: "faiss.Index | None" = None

    def facts(self) -> dict[str, Any]:
        """What `indexer.manifest.Measured` records."""
        recall = None if self.point.recall is None else {K: self.point.recall}
        return {"queries": self.queries, "recall": recall, "curve": [asdict(point) for point in self.curve]}


def hold_out(vectors: Readable, exact: Searcher, seed: int) -> Held:
    """Up to 500 queries spread over the database; a query never matches itself."""
    rows = spread_rows(len(vectors), min(QUERIES, len(vectors)), seed + 1)
    queries = np.ascontiguousarray(vectors[rows], dtype=np.float32)
    found = exact.nearest(queries, K + 1)[1]
    others = _without(found, rows)
    apart = _distances(queries, vectors, others)
    return Held(queries, rows, apart[:, -1:])


def _without(found: Rows, rows: Rows) -> Rows:
    """Neighbours (q, k) of (q, k + 1) without the query itself, or without the last where it was not found."""
    kept = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, : found.shape[1] - 1]
    return np.take_along_axis(found, kept, 1)


def _distances(queries: Floats, vectors: Readable, rows: Rows) -> Floats:
    lines = np.repeat(np.arange(len(rows)), rows.shape[1])
    return distances_between(queries, lines, vectors, rows.ravel()).reshape(rows.shape)


def measure(searcher: Searcher, held: Held, vectors: Readable, point: Point) -> Point:
    """The point with recall and times: of the rows found, those no further than the exact tenth count."""
    started = time.perf_counter()
    found = searcher.nearest(held.queries, held.found)[1]
    batch = (time.perf_counter() - started) / len(held.queries)
    apart = _distances(held.queries, vectors, _without(found, held.rows))
    share = float((apart <= held.limit).mean())
    taken = []
    for query in held.queries[:TIMED]:
        started = time.perf_counter()
        searcher.nearest(query[None], held.found)
        taken.append(time.perf_counter() - started)
    one = statistics.median(taken)
    return replace(point, recall=share, one=round(one, 7), batch=round(batch, 7), threads=threads())


def choose(spec: KindSpec, vectors: Stored) -> Chosen:
    """Build and measure what a spec asks for over the projected `vectors` (n, k) float32; pick what to keep.

    A named kind gets the cheapest search parameters that reach the target (the best measured, with a warning, where
    none does). `auto` takes the fastest single query of all kinds that reach the target within the memory; the exact
    kinds where an approximate one is not twice as fast, or the database has fewer than 10,000 vectors.
    Raises: NotEnoughDataError when nothing reaches the target within the memory.
    """
    return _auto(spec, vectors) if spec.name == "auto" else _named(spec, vectors)


def _named(spec: KindSpec, vectors: Stored) -> Chosen:
    factory = spec.factory or factory_string(spec.kind, *vectors.shape)
    index = _build(factory, vectors, spec)
    return settle(FaissVectors(index), vectors, ExactVectors(vectors, "cpu"), spec.name, factory, spec)


def settle(
    searcher: FaissVectors, vectors: Readable, exact: Searcher, kind: str, factory: str, spec: KindSpec
) -> Chosen:
    """The cheapest search parameters of a filled index that reach the target of `spec`, else the best, and a warning.

    They are set in the index. `vectors` (n, k) are those that it was given, `exact` finds their nearest; with ten or
    fewer nothing is measured, and all is searched.
    """
    index = searcher.index
    if len(vectors) <= K:
        steps = ladder(index)[-1]
        set_search(index, steps)
        point = Point(kind, factory, steps, estimate(index, len(vectors)), note=f"not measured: {K} vectors or fewer")
        return Chosen(point, [point], 0, index)
    held = hold_out(vectors, exact, spec.seed)
    points = _climb(searcher, kind, factory, held, vectors, spec)
    point = _cheapest(points, spec) or max(points, key=lambda point: point.recall or 0.0)
    if (point.recall or 0.0) < spec.recall_target:
        log.warning(
            "%s: recall@10 of exact is %.3f at best, below the target %.3f", factory, point.recall, spec.recall_target
        )
    set_search(index, point.search)
    return Chosen(point, points, len(held.queries), index)


def _auto(spec: KindSpec, vectors: Stored) -> Chosen:
    exact = [point for point in _exact_points(vectors) if spec.memory is None or point.bytes <= spec.memory]
    if len(vectors) < EXACT_ROWS and exact:
        return Chosen(exact[0], exact, 0)
    searcher = ExactVectors(vectors, "cpu")
    held = hold_out(vectors, searcher, spec.seed)
    curve = [_measure_exact(point, held, vectors, searcher) for point in exact[:1]]
    curve += [replace(point, note="not tried: whole float32 vectors fit and are faster") for point in exact[1:]]
    point = _cheapest(curve, spec)
    best = None if point is None else Chosen(point, curve, len(held.queries))
    for tier in _tiers(*vectors.shape):
        for candidate in tier:
            best = _compare(best, candidate, spec, held, vectors, curve)
        if best is not None:
            break
    if best is None:
        raise _out_of_reach(spec, curve)
    if best.index is not None:
        set_search(best.index, best.point.search)
    return best


def _out_of_reach(spec: KindSpec, curve: list[Point]) -> NotEnoughDataError:
    tried = [point for point in curve if point.recall is not None]
    best = max(tried, key=lambda point: point.recall or 0.0, default=None)
    reached = "none fits into it" if best is None else f"best: {best.factory} {best.recall:.3f}"
    return NotEnoughDataError(
        f"--kind auto: no index within --memory {spec.memory} bytes reaches recall {spec.recall_target} ({reached}); "
        "raise --memory or lower --recall-target"
    )


def _compare(
    best: Chosen | None, candidate: Point, spec: KindSpec, held: Held, vectors: Stored, curve: list[Point]
) -> Chosen | None:
    """The better of what was chosen so far and a candidate, which is built and measured where it fits."""
    if spec.memory is not None and candidate.bytes > spec.memory:
        curve.append(replace(candidate, note="beyond the memory limit"))
        return best
    if candidate.kind == "hnsw" and len(vectors) > GRAPH_ROWS:
        curve.append(
            replace(candidate, note=f"not tried: a graph of more than {GRAPH_ROWS} vectors takes long to build")
        )
        return best
    index = _build(candidate.factory, vectors, spec)
    points = _climb(FaissVectors(index), candidate.kind, candidate.factory, held, vectors, spec)
    curve += points
    point = _cheapest(points, spec)
    if point is None or point.one is None:
        return best
    if best is not None and best.point.one is not None:
        needed = GAIN if best.point.kind in EXACT else 1.0
        if point.one * needed > best.point.one:
            return best
    return Chosen(point, curve, len(held.queries), index)


def _climb(
    searcher: FaissVectors, kind: str, factory: str, held: Held, vectors: Readable, spec: KindSpec
) -> list[Point]:
    """Measure search parameters of an index, from the cheapest to the first that reaches the target."""
    points: list[Point] = []
    for search in ladder(searcher.index):
        set_search(searcher.index, search)
        point = Point(kind, factory, search, estimate(searcher.index, len(vectors)))
        points.append(measure(searcher, held, vectors, point))
        if (points[-1].recall or 0.0) >= spec.recall_target:
            break
    return points


def _build(factory: str, vectors: Stored, spec: KindSpec) -> "faiss.Index":
    index = create(factory, vectors.shape[1], check=factory == spec.factory)
    train(index, vectors, spec.seed, factory)
    try:
        add(index, vectors)
    except RuntimeError as error:
        raise ContractError(f"{factory}: FAISS cannot add vectors to it ({faiss_reason(error)})") from error
    return index


def _cheapest(points: list[Point], spec: KindSpec) -> Point | None:
    good = [point for point in points if point.recall is not None and point.recall >= spec.recall_target]
    return min(good, key=lambda point: point.one or 0.0, default=None)


def _exact_points(vectors: Stored) -> list[Point]:
    rows, size = vectors.shape
    return [Point("flat", "Flat", {}, rows * size * 4), Point("fp16", "SQfp16", {}, rows * size * 2)]


def _measure_exact(point: Point, held: Held, vectors: Stored, exact: ExactVectors) -> Point:
    searcher = exact if point.kind == "flat" else ExactVectors(np.asarray(vectors, np.float16), "cpu")
    return measure(searcher, held, vectors, point)


def _tiers(rows: int, size: int) -> Iterator[list[Point]]:
    """Candidates of `auto`: whole vectors first; smaller codes only when none of those before fits and is good."""
    lists, codes = cells(rows), subspaces(size)
    whole = [
        (kind, factory_string(kind, rows, size)) for kind in ("ivf", "hnsw", "imi") if kind != "imi" or size % 2 == 0
    ]
    smaller = [f"IVF{lists},SQfp16", f"IVF{lists},PQ{codes}x8,Refine(SQfp16)"]
    smallest = [f"IVF{lists},SQ8", f"PQ{codes}x8,Refine(SQ8)", f"PQ{codes}x8"]
    for tier in (whole, [("factory", name) for name in smaller], [("factory", name) for name in smallest]):
        yield [Point(kind, factory, {}, estimate(create(factory, size), rows)) for kind, factory in tier]

"""Measured search: recall of the exact ten nearest and time a query, by kind and search parameters, and the choice."""

import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arrays import StoredVectors
from indexer.search.approximate import FaissVectors
from indexer.search.exact import ExactVectors
from indexer.search.faiss_layers import estimate, ladder, set_search
from indexer.search.file_layout import faiss_reason
from indexer.search.inverted_lists import add
from indexer.search.kinds import EXACT, KindSpec, cells, create, factory_string, subspaces, train
from indexer.search.pools import threads
from indexer.selection.held_out import DATABASE_ROWS, HeldOut, K, Searcher, hold_out
from indexer.selection.timing import Phases
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.geometry import Float32Array
from seqdata.parallel.steps import step

if TYPE_CHECKING:
    import faiss

log = logging.getLogger(__name__)

# Queries searched one at a time for the median: enough that a single slow one does not move it. A guess.
TIMED = 50
EXACT_ROWS = 10_000  # below this an exact search takes about a millisecond: nothing to gain
GAIN = 2.0  # an approximate index must be so much faster than the exact one to be worth its misses
GRAPH_ROWS = 200_000  # building an HNSW graph of more takes many minutes on two cores: `auto` leaves it out
UNMEASURED = f"not measured: {K} vectors or fewer, or too many equal ones"


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


@dataclass
class Selection:
    """The measured curve and the selected point; `held_out` are the queries, None where nothing was measured.

    `index` is the point's FAISS index, None for the exact kinds.
    """

    point: Point
    curve: list[Point]
    held_out: HeldOut | None = None
    index: "faiss.Index | None" = None

    def facts(self) -> dict[str, Any]:
        """What `indexer.versions.manifest.Measured` records."""
        curve = [asdict(point) for point in self.curve]
        if self.held_out is None or self.point.recall is None:
            return {"curve": curve}
        return {
            "queries": len(self.held_out.queries),
            "queries_of": self.held_out.queries_of,
            "truth": self.held_out.truth,
            "recall": {K: self.point.recall},
            "curve": curve,
        }


@dataclass
class _Trial:
    """What kinds of index are built of and measured by: vectors (n, k), queries, and how long each step took."""

    spec: KindSpec
    vectors: StoredVectors
    held_out: HeldOut
    phases: Phases = field(default_factory=Phases)

    def build(self, factory: str) -> "faiss.Index":
        """A filled index of a factory string.

        Raises:
            ContractError: If FAISS refuses the string, or cannot add vectors to what it makes.
            NotEnoughDataError: If there are too few vectors to train it on.
        """
        index = create(factory, self.vectors.shape[1], check=factory == self.spec.factory)
        with self.phases.timed("train"):
            train(index, self.vectors, self.spec.seed, factory)
        try:
            with self.phases.timed("add"):
                add(index, self.vectors)
        except RuntimeError as error:
            raise ContractError(f"{factory}: FAISS cannot add vectors to it ({faiss_reason(error)})") from error
        return index

    def exact(self, point: Point) -> Point:
        """An exact kind's point, measured."""
        vectors = self.vectors if point.kind == "flat" else np.asarray(self.vectors, np.float16)
        with self.phases.timed("measure"):
            return measure(ExactVectors(vectors, "cpu"), self.held_out, point)

    def climb(self, index: "faiss.Index", point: Point) -> list[Point]:
        """A filled index with search parameters from the cheapest to the first that reaches the target."""
        with self.phases.timed("measure"):
            return _climb(FaissVectors(index), point.kind, point.factory, self.held_out, self.spec)


def measure(searcher: Searcher, held_out: HeldOut, point: Point) -> Point:
    """The point with its recall, and times on so many threads."""
    started = time.perf_counter()
    neighbours = searcher.nearest(held_out.queries, held_out.k)[1]
    batch = (time.perf_counter() - started) / len(held_out.queries)
    taken = []
    # A robot asks one query at a time, where an index cannot spread the work over threads; so both times are measured.
    for query in held_out.queries[:TIMED]:
        started = time.perf_counter()
        searcher.nearest(query[None], held_out.k)
        taken.append(time.perf_counter() - started)
    one = statistics.median(taken)
    return replace(
        point, recall=held_out.recall(neighbours), one=round(one, 7), batch=round(batch, 7), threads=threads()
    )


def measures(spec: KindSpec, rows: int) -> bool:
    """Whether `choose` searches for parameters of a kind over so many vectors, and so has a use for queries."""
    if spec.name == "auto":
        return rows >= EXACT_ROWS or spec.memory is not None
    return spec.name not in EXACT


@step("choose a kind of index")
def choose(
    spec: KindSpec,
    vectors: StoredVectors,
    queries: Float32Array | None = None,
    queries_of: str = DATABASE_ROWS,
    phases: Phases | None = None,
) -> Selection:
    """Build and measure the index of a spec over projected vectors, and select what to store.

    A named kind gets the cheapest search parameters that reach the target (the best measured, with a warning, where
    none does). `auto` takes the fastest single query of all kinds that reach the target within the memory; the exact
    kinds where an approximate one is not twice as fast, or the database has fewer than 10,000 vectors. Of the exact
    kinds alone nothing is measured here: `check_exact` does so, of what was written.

    Args:
        spec: Which index to build.
        vectors: Projected vectors (n, k) float32, mapped or not.
        queries: Projected queries (q, k) to measure by; None for rows of the database itself (see
            `indexer.selection.held_out.hold_out`).
        queries_of: Whose the queries are, in words.
        phases: Where seconds of training, adding and measuring are counted.

    Returns:
        The selected point with its index, and the curve of all that was measured.

    Raises:
        NotEnoughDataError: If nothing reaches the target within the memory.
    """
    exact = [point for point in _exact_points(vectors) if spec.memory is None or point.bytes <= spec.memory]
    named = [point for point in exact if point.kind == spec.name]
    if named:
        return Selection(named[0], named)
    if spec.name == "auto" and len(vectors) < EXACT_ROWS and exact:
        return Selection(exact[0], exact)
    phases = Phases() if phases is None else phases
    with phases.timed("measure"):
        held_out = hold_out(vectors, ExactVectors(vectors, "cpu"), spec.seed, queries, queries_of)
    trial = _Trial(spec, vectors, held_out, phases)
    if spec.name == "auto":
        return _auto(trial, exact)
    factory = spec.factory or factory_string(spec.kind, *vectors.shape)
    searcher = FaissVectors(trial.build(factory))
    with phases.timed("measure"):
        return settle(searcher, held_out, spec.name, factory, spec)


def settle(searcher: FaissVectors, held_out: HeldOut, kind: str, factory: str, spec: KindSpec) -> Selection:
    """Set the cheapest search parameters of a filled index that reach the recall target, else the best, with a warning.

    Where there are no queries nothing is measured, and everything is searched.

    Args:
        searcher: The index, changed in place.
        held_out: Queries with their exact nearest.
        kind: Name of the kind.
        factory: Its FAISS factory string.
        spec: Holds the target.

    Returns:
        The selected point and all that were measured.
    """
    index = searcher.index
    _warn_of_database_rows(held_out, factory)
    if not len(held_out.queries):
        steps = ladder(index)[-1]
        set_search(index, steps)
        point = Point(kind, factory, steps, estimate(index, index.ntotal), note=UNMEASURED)
        return Selection(point, [point], held_out, index)
    points = _climb(searcher, kind, factory, held_out, spec)
    point = _cheapest(points, spec) or max(points, key=lambda point: point.recall or 0.0)
    if (point.recall or 0.0) < spec.recall_target:
        log.warning(
            "%s: recall@10 of exact is %.3f at best, below the target %.3f", factory, point.recall, spec.recall_target
        )
    set_search(index, point.search)
    return Selection(point, points, held_out, index)


def check_exact(selection: Selection, vectors: StoredVectors, held_out: HeldOut) -> Selection:
    """Measure the recall of an exact kind: float32 finds all by construction, float16 has lost some digits.

    Args:
        selection: The selection of that kind.
        vectors: Its vectors (n, k) as they were written.
        held_out: Queries with their exact nearest among the vectors before.

    Returns:
        The selection with its point measured.
    """
    if len(held_out.queries):
        point = measure(ExactVectors(vectors, "cpu"), held_out, selection.point)
    else:
        point = replace(selection.point, note=UNMEASURED)
    curve = [point if entry == selection.point else entry for entry in selection.curve]
    return replace(selection, point=point, curve=curve, held_out=held_out)


def _auto(trial: _Trial, exact: list[Point]) -> Selection:
    spec = trial.spec
    if not len(trial.held_out.queries):
        if exact:
            return Selection(exact[0], exact)
        raise NotEnoughDataError("--kind auto: too few different vectors to measure; name another --kind")
    # Of the exact kinds only the first that fits is timed: it is the one that the others must beat.
    curve = [trial.exact(point) for point in exact[:1]]
    curve += [replace(point, note="not tried: whole float32 vectors fit and are faster") for point in exact[1:]]
    point = _cheapest(curve, spec)
    best = None if point is None else Selection(point, curve, trial.held_out)
    for tier in _tiers(*trial.vectors.shape):
        for candidate in tier:
            best = _compare(best, candidate, trial, curve)
        # Smaller codes lose digits and gain memory only: they are built where no kind before them is good enough.
        if best is not None:
            break
    if best is None:
        raise _out_of_reach(spec, curve)
    if best.index is not None:
        _warn_of_database_rows(trial.held_out, best.point.factory)
        set_search(best.index, best.point.search)
    return best


def _warn_of_database_rows(held_out: HeldOut, factory: str) -> None:
    # Rows of the database lie on the same drives as their neighbours, nearer than another day's queries do.
    if held_out.queries_of == DATABASE_ROWS:
        log.warning(
            "%s: search parameters are chosen on rows of the database, each without itself, and real queries may find "
            "fewer of their nearest; give queries that are no rows of the database",
            factory,
        )


def _out_of_reach(spec: KindSpec, curve: list[Point]) -> NotEnoughDataError:
    tried = [point for point in curve if point.recall is not None]
    best = max(tried, key=lambda point: point.recall or 0.0, default=None)
    reached = "none fits into it" if best is None else f"best: {best.factory} {best.recall:.3f}"
    return NotEnoughDataError(
        f"--kind auto: no index within --memory {spec.memory} bytes reaches recall {spec.recall_target} ({reached}); "
        "raise --memory or lower --recall-target"
    )


def _compare(best: Selection | None, candidate: Point, trial: _Trial, curve: list[Point]) -> Selection | None:
    """The better of what was chosen so far and a candidate, which is built and measured where it fits."""
    spec = trial.spec
    if spec.memory is not None and candidate.bytes > spec.memory:
        curve.append(replace(candidate, note="beyond the memory limit"))
        return best
    if candidate.kind == "hnsw" and len(trial.vectors) > GRAPH_ROWS:
        curve.append(
            replace(candidate, note=f"not tried: a graph of more than {GRAPH_ROWS} vectors takes long to build")
        )
        return best
    # Two indexes are in memory at most, the best so far and this one; the one that loses is freed.
    index = trial.build(candidate.factory)
    points = trial.climb(index, candidate)
    curve += points
    point = _cheapest(points, spec)
    if point is None or point.one is None:
        return best
    if best is not None and best.point.one is not None:
        needed = GAIN if best.point.kind in EXACT else 1.0
        if point.one * needed > best.point.one:
            return best
    return Selection(point, curve, trial.held_out, index)


def _climb(searcher: FaissVectors, kind: str, factory: str, held_out: HeldOut, spec: KindSpec) -> list[Point]:
    points: list[Point] = []
    for search in ladder(searcher.index):
        set_search(searcher.index, search)
        points.append(
            measure(searcher, held_out, Point(kind, factory, search, estimate(searcher.index, searcher.index.ntotal)))
        )
        # Later rungs visit more and so cost more: the first that reaches the target is the cheapest.
        if (points[-1].recall or 0.0) >= spec.recall_target:
            break
    return points


def _cheapest(points: list[Point], spec: KindSpec) -> Point | None:
    good = [point for point in points if point.recall is not None and point.recall >= spec.recall_target]
    return min(good, key=lambda point: point.one or 0.0, default=None)


def _exact_points(vectors: StoredVectors) -> list[Point]:
    rows, size = vectors.shape
    return [Point("flat", "Flat", {}, rows * size * 4), Point("fp16", "SQfp16", {}, rows * size * 2)]


def _tiers(rows: int, size: int) -> Iterator[list[Point]]:
    """Candidates of `auto`: whole vectors first; smaller codes only when none of those before fits and is good."""
    lists, codes = cells(rows), subspaces(size)
    whole = [
        (kind, factory_string(kind, rows, size)) for kind in ("ivf", "hnsw", "imi") if kind != "imi" or size % 2 == 0
    ]
    # imi halves the vector, so an odd size leaves it out. Each tier keeps less of a vector: 4, then 2, then 1 byte a
    # value or less.
    smaller = [f"IVF{lists},SQfp16", f"IVF{lists},PQ{codes}x8,Refine(SQfp16)"]
    smallest = [f"IVF{lists},SQ8", f"PQ{codes}x8,Refine(SQ8)", f"PQ{codes}x8"]
    for tier in (whole, [("factory", name) for name in smaller], [("factory", name) for name in smallest]):
        yield [Point(kind, factory, {}, estimate(create(factory, size), rows)) for kind, factory in tier]

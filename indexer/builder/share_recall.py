"""Recall of a merged index: the exact nearest of held-out queries, gathered while the vectors pass by in their shares.

No machine holds all vectors of such a build, and the codes that it keeps cannot judge themselves: so each share writes
the nearest of its own float32 vectors, and the nearest of all are the least over the shares.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from indexer.builder import merge_lists
from indexer.builder.held_arrays import read_arrays
from indexer.search.approximate import FaissVectors
from indexer.search.exact import ExactVectors
from indexer.search.file_layout import FACTORY, TYPES, Exact
from indexer.search.flat_file import map_exact
from indexer.search.kinds import KindSpec
from indexer.selection.choose import Point, Selection, check_exact, settle
from indexer.selection.held_out import CANDIDATES, NOT_A_ROW, HeldOut, judge
from seqdata.geometry import Float32Array, IntArray

if TYPE_CHECKING:
    from indexer.builder.share_plan import BuildPlan


class Nearest:
    """The nearest rows of queries (q, k), with some candidates more, among vectors that come in blocks."""

    def __init__(self, queries: Float32Array) -> None:
        self._queries = queries
        self.distances: Float32Array = np.full((len(queries), CANDIDATES + 1), np.inf, np.float32)
        self.rows: IntArray = np.full((len(queries), CANDIDATES + 1), NOT_A_ROW)

    def watch(self, blocks: Iterable[Float32Array], first: int) -> Iterator[Float32Array]:
        """The blocks (m, k) float32, unchanged, which are the rows from `first` on."""
        for block in blocks:
            # On the CPU: a block is read once, so sending it to a GPU would cost more than the product.
            distances, neighbours = ExactVectors(block, "cpu").nearest(self._queries, CANDIDATES + 1)
            self.offer(distances, neighbours + first)
            first += len(block)
            yield block

    def offer(self, distances: Float32Array, rows: "IntArray") -> None:
        """Take in distances and rows (q, m) of other vectors."""
        # Merging is exact: the nearest of all vectors are among the nearest of each share.
        distances, rows = np.hstack([self.distances, distances]), np.hstack([self.rows, rows])
        order = np.lexsort((rows, distances), axis=1)[:, : CANDIDATES + 1]
        self.distances, self.rows = np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)


def held_out_of_shares(queries_file: Path, nearest_files: Iterable[Path], plan: "BuildPlan") -> HeldOut:
    """Read the held-out queries of a plan with the nearest of the vectors of all shares.

    Args:
        queries_file: The plan's queries.
        nearest_files: What each share found to be the nearest of its vectors.
        plan: The plan.

    Returns:
        The queries by which the merged index is measured.

    Raises:
        ContractError: If a file is absent or damaged.
    """
    rows, queries = read_arrays(queries_file, "rows", "vectors")
    nearest = Nearest(queries)
    for path in nearest_files:
        # "apart" is the stored name of the distances; shares that were written before keep theirs.
        nearest.offer(*read_arrays(path, "apart", "rows"))
    count = min(plan.rows, CANDIDATES + 1)
    return judge(queries, rows, nearest.distances[:, :count], nearest.rows[:, :count], plan.rows, plan.queries_of)


def calibrate(path: Path, held_out: HeldOut, plan: "BuildPlan") -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose the cheapest search parameters of a merged file that reach the recall target.

    The file is mapped; its lists are read once a setting.

    Args:
        path: The merged file.
        held_out: The queries, with their exact nearest.
        plan: The plan of the build.

    Returns:
        The parameters by FAISS's names, and what `indexer.versions.manifest.Measured` records.
    """
    import faiss  # heavy

    if plan.storage in FACTORY:
        kind = cast("Exact", plan.storage)
        point = Point(plan.storage, plan.factory, {}, plan.rows * plan.size * np.dtype(TYPES[plan.storage]).itemsize)
        vectors = map_exact(path, plan.rows, plan.size, plan.input_size, kind)
        return {}, check_exact(Selection(point, [point]), vectors, held_out).facts()
    outer = merge_lists.open_index(path, faiss.IO_FLAG_MMAP)  # owns what is searched
    spec = KindSpec(recall_target=float(plan.settings.get("recall_target", 1.0)), seed=plan.seed)
    selection = settle(FaissVectors(merge_lists.core(outer), str(path)), held_out, plan.storage, plan.factory, spec)
    return selection.point.search, selection.facts()

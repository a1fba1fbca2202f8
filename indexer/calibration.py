"""Recall of a merged index: the exact nearest of held-out queries, gathered while the vectors pass by in their shares.

No machine holds all vectors of such a build, and the codes that it keeps cannot judge themselves: so each share writes
the nearest of its own float32 vectors, and the nearest of all are the least over the shares.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from indexer import splicing
from indexer.approximate import FaissVectors
from indexer.auto import Chosen, Point, check_exact, settle
from indexer.exact import ExactVectors
from indexer.flat import FACTORY, Exact, map_exact
from indexer.held import KEPT, NOT_A_ROW, Held, judge
from indexer.kinds import KindSpec
from indexer.transform import Floats
from seqdata.errors import ContractError
from seqdata.storage import write_bytes_atomic

if TYPE_CHECKING:
    from indexer.flat import Rows
    from indexer.plans import BuildPlan


class Nearest:
    """The nearest rows of queries (q, k), and a few more than are asked for, among vectors that come in blocks."""

    def __init__(self, queries: Floats) -> None:
        self._queries = queries
        self.apart: Floats = np.full((len(queries), KEPT + 1), np.inf, np.float32)
        self.rows: Rows = np.full((len(queries), KEPT + 1), NOT_A_ROW)

    def watch(self, blocks: Iterable[Floats], first: int) -> Iterator[Floats]:
        """The blocks (m, k) float32, unchanged, which are the rows from `first` on."""
        for block in blocks:
            apart, found = ExactVectors(block, "cpu").nearest(self._queries, KEPT + 1)
            self.offer(apart, found + first)
            first += len(block)
            yield block

    def offer(self, apart: Floats, rows: "Rows") -> None:
        """Take in distances and rows (q, m) of other vectors."""
        apart, rows = np.hstack([self.apart, apart]), np.hstack([self.rows, rows])
        order = np.lexsort((rows, apart), axis=1)[:, : KEPT + 1]
        self.apart, self.rows = np.take_along_axis(apart, order, 1), np.take_along_axis(rows, order, 1)


def write_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Store arrays by name. Raises: OutputError."""
    from safetensors.numpy import save

    write_bytes_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path, *names: str) -> list[Any]:
    """Arrays that `write_arrays` stored. Raises: ContractError when the file is absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return [file.get_tensor(name) for name in names]
    except (SafetensorError, OSError) as error:
        raise ContractError(f"{path}: not readable as held-out queries ({error}); make the shares again") from error


def held_of_shares(held: Path, found: Iterable[Path], plan: "BuildPlan") -> Held:
    """The queries of a plan, with the nearest of the vectors of all shares. Raises: ContractError."""
    rows, queries = read_arrays(held, "rows", "vectors")
    nearest = Nearest(queries)
    for path in found:
        nearest.offer(*read_arrays(path, "apart", "rows"))
    known = min(plan.rows, KEPT + 1)
    return judge(queries, rows, nearest.apart[:, :known], nearest.rows[:, :known], plan.rows, plan.queries_of)


def calibrate(path: Path, held: Held, plan: "BuildPlan") -> tuple[dict[str, Any], dict[str, Any]]:
    """The cheapest search parameters of a merged file that reach the recall target, and what `Measured` records.

    The file is mapped; its lists are read once a setting.
    """
    import faiss

    if plan.storage in FACTORY:
        kind = cast("Exact", plan.storage)
        point = Point(plan.storage, plan.factory, {}, plan.rows * plan.size * 2)
        stored = map_exact(path, plan.rows, plan.size, plan.input_size, kind)
        return {}, check_exact(Chosen(point, [point]), stored, held).facts()
    outer = splicing.open_index(path, faiss.IO_FLAG_MMAP)  # owns what is searched
    spec = KindSpec(recall_target=float(plan.settings.get("recall_target", 1.0)), seed=plan.seed)
    chosen = settle(FaissVectors(splicing.core(outer), str(path)), held, plan.storage, plan.factory, spec)
    return chosen.point.search, chosen.facts()

"""Search parameters of a merged index: recall of the exact ten nearest, measured where no machine holds all vectors.

Exact means through all inverted lists of the index itself, which for lists of whole vectors (IVF…,Flat) is exact
search, and for lists of codes is the best that the codes can do.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer import splicing
from indexer.layers import ladder, set_search
from indexer.transform import Floats
from seqdata.errors import ContractError
from seqdata.storage import write_bytes_atomic

if TYPE_CHECKING:
    from indexer.flat import Rows
    from indexer.plans import BuildPlan

K = 10
LOOSE = 1 + 1e-6


def write_held(path: Path, rows: "Rows", vectors: Floats) -> None:
    """Store held-out queries: rows (q,) and projected vectors (q, k). Raises: OutputError."""
    from safetensors.numpy import save

    write_bytes_atomic(path, save({"rows": np.asarray(rows, np.int64), "vectors": np.ascontiguousarray(vectors)}))


def read_held(path: Path) -> "tuple[Rows, Floats]":
    """Held-out queries that `write_held` stored. Raises: ContractError when the file is absent or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return file.get_tensor("rows"), file.get_tensor("vectors")
    except (SafetensorError, OSError) as error:
        raise ContractError(f"{path}: not readable as held-out queries ({error}); make the shares again") from error


def calibrate(path: Path, held: "tuple[Rows, Floats]", plan: "BuildPlan") -> tuple[dict[str, Any], dict[str, Any]]:
    """The cheapest search parameters that reach the recall target, and the facts `Measured` records.

    The index file is mapped; its lists are read once for the exact distances and once a setting.
    """
    import faiss

    outer = splicing.open_index(path, faiss.IO_FLAG_MMAP)  # owns `inner`
    inner = splicing.core(outer)
    rows, queries = held
    k = min(K, plan.rows - 1)
    if k < 1:
        return {}, {}
    set_search(inner, {"nprobe": inner.nlist})
    limit = _others(inner.search(queries, k + 1), rows)[:, -1:] * LOOSE
    curve: list[dict[str, Any]] = []
    for step in ladder(inner):
        set_search(inner, step)
        started = time.perf_counter()
        found = _others(inner.search(queries, k + 1), rows)
        recall = float((found <= limit).mean())
        seconds = round((time.perf_counter() - started) / len(queries), 7)
        curve.append(
            {"kind": plan.storage, "factory": plan.factory, "search": step, "recall": recall, "batch": seconds}
        )
        if recall >= float(plan.settings.get("recall_target", 1.0)):
            break
    last = curve[-1]
    return last["search"], {"queries": len(queries), "recall": {k: last["recall"]}, "curve": curve}


def _others(answer: "tuple[Floats, Rows]", rows: "Rows") -> Floats:
    """Squared distances (q, k) of the neighbours (q, k + 1) that are not the query itself; infinite where none was."""
    squared, found = answer
    apart = np.where(found < 0, np.inf, squared)
    kept = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, : found.shape[1] - 1]
    return np.take_along_axis(apart, kept, 1)

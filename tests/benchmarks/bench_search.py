"""Exact search of 50,000 × 4,096: ours against `faiss.IndexFlatL2` and a plain matrix product, fp16 against float32.

Run `python tests/benchmarks/bench_search.py [--rows N]`. One query and batches, all sides in turn in one process, the
median of the rounds; ours finds the 20 nearest with their distances, the product alone finds nothing. Limit: within
1.2 times the faster of both. fp16 is judged by its bytes, by recall@10 of exact (limit .999), and for one query by its
time (limit 1.5 times float32's).
"""

import argparse
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from indexer.search.exact import ExactVectors
from indexer.search.pools import threads
from tests.benchmarks.results import exit_status, record, scaled

SIZE, K, ROUNDS, LIMIT, HALF_LIMIT = 4096, 20, 5, 1.2, 1.5


def unit_rows(rows: Any, seed: Any) -> Any:
    """Descriptors (rows, 4096) float32 of norm 1, decaying as those behind a PCA do."""
    rng = np.random.default_rng(seed)
    scale = (np.arange(1, SIZE + 1) ** -0.25).astype(np.float32)
    x = np.empty((rows, SIZE), np.float32)
    for start in range(0, rows, 5000):
        part = x[start : start + 5000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) * scale
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def in_turn(sides: Any) -> Any:
    """Median milliseconds of each side (name → call), one after another in every round."""
    taken = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def main() -> Any:
    """Print the table; exit 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=scaled(50_000, 2_000))
    rows = parser.parse_args().rows
    import faiss

    faiss.omp_set_num_threads(threads())
    x = unit_rows(rows, 0)
    half = x.astype(np.float16)
    ours, narrow, flat = ExactVectors(x, "cpu"), ExactVectors(half, "cpu"), faiss.IndexFlatL2(SIZE)
    flat.add(x)
    print(f"{rows} x {SIZE}, {threads()} threads: milliseconds for all queries")
    good = True
    for count in (1, 4, 16, 256):
        queries = unit_rows(count, 1)
        sides = {
            "ours": lambda queries=queries: ours.nearest(queries, K),
            "product": lambda queries=queries: queries @ x.T,
            "faiss": lambda queries=queries: flat.search(queries, K),
            "fp16": lambda queries=queries: narrow.nearest(queries, K),
        }
        times = in_turn(sides)
        ratio = times["ours"] / min(times["product"], times["faiss"])
        record(f"{count} queries against the faster of product and FAISS", ratio, "x")
        good &= ratio <= LIMIT
        row = "  ".join(f"{name} {value:8.1f}" for name, value in times.items())
        print(
            f"{count:>4} queries  {row}  ours/faster {ratio:.2f} (limit {LIMIT}): {'ok' if ratio <= LIMIT else 'FAILS'}"
        )
        if count == 1:
            half_ratio = record("one fp16 query against float32", times["fp16"] / times["ours"], "x")
            good &= half_ratio <= HALF_LIMIT
            print(f"one fp16 query takes {half_ratio:.2f} of float32's time (limit {HALF_LIMIT})")
    queries = unit_rows(500, 2)
    exact, found = ours.nearest(queries, 10)[1], narrow.nearest(queries, 10)[1]
    recall = float((found[:, :, None] == exact[:, None]).any(axis=2).mean())
    good &= recall >= 0.999
    print(f"fp16: {half.nbytes / x.nbytes:.2f} of the memory, recall@10 of exact {recall:.4f} (limit .999)")
    print(f"load {os.getloadavg()[0]:.1f}")
    return exit_status(good)


if __name__ == "__main__":
    sys.exit(main())

"""Run the tests of promised bits under other matrix kernels and numbers of threads: `make kernels`.

A library picks its kernels by the processor and splits a product by threads; both change how sums are rounded. One
machine can stand for others: OpenBLAS, oneDNN and PyTorch take the kernels that these variables name.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {
    "Haswell, AVX2": {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"},
    "Zen, AVX2": {"OPENBLAS_CORETYPE": "Zen", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "Prescott, none": {"OPENBLAS_CORETYPE": "Prescott", "ATEN_CPU_CAPABILITY": "default"},
}
WITH_AVX512 = {"SkylakeX, AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX"}}
THREADS = (1, 2, 4)
# The kernels that differ most from any processor's own: SSE alone, and no vector code in PyTorch.
SHORT = ({"Prescott, none": KERNELS["Prescott, none"]}, (1, 2))
SENSITIVE = (
    "tests/indexer/pca",
    "tests/indexer/search",
    "tests/indexer/builder",
    "tests/indexer/versions",
    "tests/indexer/selection",
    "tests/train/data/test_describe.py",
)
"""Files with tests that compare bits of products."""
SHORT_FILES = (
    "tests/indexer/pca/test_exact_product.py",
    "tests/indexer/pca/test_transform.py",
    "tests/indexer/search/test_exact.py",
    "tests/indexer/builder/test_append.py",
    "tests/indexer/builder/test_shares.py",
)
"""Those of projections and of indexes that are appended and merged: minutes instead of an hour."""


def has_avx512() -> bool:
    """Whether the processor can run the AVX-512 kernels; without them they would crash."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512f" in flags.read_text()


def main() -> int:
    """Run every combination, or two with `--short`, and print a line each; 1 when one fails."""
    every = {**KERNELS, **(WITH_AVX512 if has_avx512() else {})}
    is_short = "--short" in sys.argv[1:]
    kernels, thread_counts = SHORT if is_short else (every, THREADS)
    failed = 0
    for (name, variables), threads in itertools.product(kernels.items(), thread_counts):
        environment = {**os.environ, **variables, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", *(SHORT_FILES if is_short else SENSITIVE)]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        lines = run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or ["no output"]
        failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        result = f"{len(failures)} failed" if run.returncode else "passed"
        print(
            "\n".join([f"{name:<20} {threads} threads: {result}", *(failures or lines[-1:] * bool(run.returncode))]),
            flush=True,
        )
        failed += bool(run.returncode)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

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


def has_avx512() -> bool:
    """Whether the processor can run the AVX-512 kernels; without them they would crash."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512f" in flags.read_text()


def main() -> int:
    """Run every combination, or two with `--short`, and print a line each; 1 when one fails."""
    every = {**KERNELS, **(WITH_AVX512 if has_avx512() else {})}
    kernels, thread_counts = SHORT if "--short" in sys.argv[1:] else (every, THREADS)
    failed = 0
    for (name, variables), threads in itertools.product(kernels.items(), thread_counts):
        environment = {**os.environ, **variables, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", *SENSITIVE]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        lines = run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or ["no output"]
        print(f"{name:<20} {threads} threads: {lines[-1]}", flush=True)
        if run.returncode:
            failed += 1
            print("\n".join(line for line in lines if line.startswith("FAILED")), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

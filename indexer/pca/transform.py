"""A linear transform of descriptors (a fitted PCA), and its safetensors file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array, Float64Array
from seqdata.storage.files import write_bytes_atomic

APPLY_VALUES = 1 << 26  # float32 values centred at once: 256 MiB
ARRAYS = ("mean", "matrix", "eigenvalues")
HEADER = "transform"  # one metadata key only: safetensors writes several in random order


@dataclass(frozen=True, eq=False)
class Transform:
    """y = matrix @ (x - mean): a PCA, rows of `matrix` being its directions, largest variance first.

    `mean` (d,) float32, `matrix` (k, d) float32 with orthonormal rows (divided by the square root of the
    eigenvalue when `whiten`), `eigenvalues` (k,) float64 variances (denominator n - 1), `explained` their
    share of the whole variance, `route` how they were found, `samples` n, `seed` of the randomised route.

    Convention: the component of largest magnitude in every row is positive, so that equal samples give equal
    signs.
    """

    mean: Float32Array
    matrix: Float32Array
    eigenvalues: Float64Array
    explained: float
    route: str
    samples: int
    whiten: bool = False
    seed: int = 0

    @property
    def input_size(self) -> int:
        """d, the size of a descriptor before the transform."""
        return int(self.matrix.shape[1])

    @property
    def output_size(self) -> int:
        """k, the size of a descriptor after it."""
        return int(self.matrix.shape[0])

    def apply(self, descriptors: npt.ArrayLike) -> Float32Array:
        """Project (n, d) descriptors to (n, k) float32, a block of rows at a time.

        Raises: ContractError when the descriptors are not (n, d).
        """
        x = np.asarray(descriptors, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ContractError(f"descriptors of shape {x.shape}: this transform takes (n, {self.input_size})")
        y = np.empty((len(x), self.output_size), np.float32)
        step = max(1, APPLY_VALUES // self.input_size)
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            y[part] = (x[part] - self.mean) @ self.matrix.T
        return y

    def describe(self) -> dict[str, Any]:
        """The JSON-able facts about this transform (everything but the arrays)."""
        return {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "explained": self.explained,
            "route": self.route,
            "samples": self.samples,
            "whiten": self.whiten,
            "seed": self.seed,
        }

    def save(self, path: str | Path) -> None:
        """Write the arrays as safetensors, the facts as JSON in its header; equal transforms, equal bytes.

        Raises: OutputError.
        """
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in ARRAYS}
        facts = json.dumps(self.describe(), sort_keys=True)
        write_bytes_atomic(path, save(arrays, metadata={HEADER: facts}))


def load(path: str | Path) -> Transform:
    """Read a transform written by `Transform.save`.

    Raises: InputError when there is no such file, ContractError when it is damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        sizes = {name: facts.pop(name) for name in ("input_size", "output_size")}
        transform = Transform(**arrays, **facts)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(f"{path}: not a transform of this toolkit, or damaged ({error})") from error
    _check_shapes(transform, sizes, path)
    return transform


def _check_shapes(transform: Transform, sizes: dict[str, int], path: str | Path) -> None:
    k, d = sizes["output_size"], sizes["input_size"]
    expected = {"mean": (d,), "matrix": (k, d), "eigenvalues": (k,)}
    for name, shape in expected.items():
        found = getattr(transform, name).shape
        if found != shape:
            raise ContractError(f"{path}: array '{name}' has shape {found}, its header says {shape}")

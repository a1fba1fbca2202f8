"""A linear transform of descriptors (a fitted PCA), and its safetensors file."""

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.pca.exact_product import ARITHMETIC, device_product, exact_product, round_to_grid
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array, Float64Array
from seqdata.storage.files import write_bytes_atomic

APPLY_VALUES = 1 << 23  # values of one block: 32 MiB of centred float32 and twice 64 MiB of float64 sums at most
DEVICE_ROWS = 64  # fewer rows are projected on the CPU before the matrix is on its way to a GPU
ARRAYS = ("mean", "matrix", "eigenvalues")
HEADER = "transform"  # one metadata key only: safetensors writes several in random order


@dataclass(frozen=True, eq=False)
class Transform:
    """y = matrix @ (x - mean): a PCA, rows of `matrix` being its directions, largest variance first.

    `mean` (d,) float32, `matrix` (k, d) float32 with orthonormal rows (divided by the square root of the
    eigenvalue when `whiten`), `eigenvalues` (k,) float64 variances (denominator n - 1), `explained` their
    share of the whole variance, `route` how they were found, `samples` n, `seed` of the randomised route.
    `arithmetic` says how `apply` multiplies; it is stored in the manifest of the index, not with the transform.

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
    arithmetic: str | None = ARITHMETIC

    @property
    def input_size(self) -> int:
        """d, the size of a descriptor before the transform."""
        return int(self.matrix.shape[1])

    @property
    def output_size(self) -> int:
        """k, the size of a descriptor after it."""
        return int(self.matrix.shape[0])

    def apply(self, descriptors: npt.ArrayLike) -> Float32Array:
        """Project descriptors, a block of rows at a time.

        The bits of a projected row depend on the row alone (see `indexer.pca.exact_product`). A transform of an index
        that was built before this was so (`arithmetic` None) projects by a float32 product of the BLAS library, as its
        stored vectors were.

        Args:
            descriptors: Finite descriptors (n, d), taken as float32.

        Returns:
            The projections (n, k) float32.

        Raises:
            ContractError: If the descriptors are not (n, d).
        """
        x = np.asarray(descriptors, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ContractError(f"descriptors of shape {x.shape}: this transform takes (n, {self.input_size})")
        y = np.empty((len(x), self.output_size), np.float32)
        # Whichever side of the product is wider decides how many rows a block may have.
        step = max(1, APPLY_VALUES // max(self.input_size, self.output_size))
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            centred = x[part] - self.mean
            y[part] = centred @ self.matrix.T if self.arithmetic is None else self._multiply(centred)
        return y

    def apply_on_device(self, descriptors: Any) -> Any:
        """As `apply`, to the same bits, of a PyTorch tensor (n, d) float32 on any device; the result stays there.

        A transform of an older index (`arithmetic` None) projects on the CPU.

        Raises:
            ContractError: If the descriptors are not (n, d).
        """
        torch = sys.modules["torch"]
        if self.arithmetic is None:
            return torch.from_numpy(self.apply(descriptors.cpu().numpy()))
        if descriptors.ndim != 2 or descriptors.shape[1] != self.input_size:
            raise ContractError(
                f"descriptors of shape {tuple(descriptors.shape)}: this transform takes (n, {self.input_size})"
            )
        mean, directions = self._on_device(descriptors.device)
        y = descriptors.new_empty(len(descriptors), self.output_size)
        step = max(1, APPLY_VALUES // max(self.input_size, self.output_size))
        for start in range(0, len(descriptors), step):
            y[start : start + step] = device_product(descriptors[start : start + step] - mean, directions)
        return y

    def _multiply(self, centred: Float32Array) -> Float32Array:
        """Products (m, k) of centred rows (m, d) with the directions, on a GPU where torch is loaded and sees one."""
        # Looked up, not imported: a search in an index loads no torch. The bits are the same either way.
        torch = sys.modules.get("torch")
        if len(centred) < DEVICE_ROWS or torch is None or not torch.cuda.is_available():
            return exact_product(centred, self._directions)
        rows = torch.from_numpy(centred).cuda()
        products: Float32Array = device_product(rows, self._on_device(rows.device)[1]).cpu().numpy()
        return products

    def _on_device(self, device: Any) -> tuple[Any, Any]:
        """The mean (d,) float32 and the directions (k, d) float64 on a device, copied there once."""
        if device not in self._copies:
            torch = sys.modules["torch"]
            mean, directions = torch.from_numpy(self.mean), torch.from_numpy(self._directions)
            self._copies[device] = mean.to(device), directions.to(device).double()
        copies: tuple[Any, Any] = self._copies[device]
        return copies

    @cached_property
    def _copies(self) -> dict[Any, tuple[Any, Any]]:
        """What `_on_device` has copied, by device."""
        return {}

    @cached_property
    def _directions(self) -> Float32Array:
        """The directions (k, d) on the grid of `exact_product`: the matrix itself where `fit` has put them there."""
        rounded = round_to_grid(self.matrix)
        return self.matrix if np.array_equal(rounded, self.matrix) else rounded

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

        Raises:
            OutputError: When it cannot be written.
        """
        from safetensors.numpy import save  # heavy

        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in ARRAYS}
        facts = json.dumps(self.describe(), sort_keys=True)
        write_bytes_atomic(path, save(arrays, metadata={HEADER: facts}))


def load(path: str | Path, arithmetic: str | None = ARITHMETIC) -> Transform:
    """Read a transform written by `Transform.save`.

    Args:
        path: The safetensors file.
        arithmetic: How the vectors were projected that it is used beside (`IndexManifest.arithmetic`).

    Returns:
        The transform.

    Raises:
        InputError: If there is no such file.
        ContractError: If the file is damaged or something else.
    """
    from safetensors import SafetensorError, safe_open  # heavy

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        sizes = {name: facts.pop(name) for name in ("input_size", "output_size")}
        transform = Transform(**arrays, **facts, arithmetic=arithmetic)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ContractError(f"{path}: not a transform of this toolkit, or damaged ({error})") from error
    _check_shapes(transform, sizes, path)
    return transform


def _check_shapes(transform: Transform, sizes: dict[str, int], path: str | Path) -> None:
    k, d = sizes["output_size"], sizes["input_size"]
    expected = {"mean": (d,), "matrix": (k, d), "eigenvalues": (k,)}
    for name, shape in expected.items():
        actual = getattr(transform, name).shape
        if actual != shape:
            raise ContractError(f"{path}: array '{name}' has shape {actual}, its header says {shape}")

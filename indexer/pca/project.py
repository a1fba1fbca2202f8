"""Project descriptors by a stored PCA transform, checked."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from indexer.pca.transform import Transform
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array


def projected(
    blocks: Iterable[Float32Array], rows: int, transform: Transform | None, normalise: bool
) -> Iterator[Float32Array]:
    """The blocks (m, d) as the index stores them: checked, projected and, with `normalise`, brought to unit length.

    Raises:
        ContractError: When the blocks do not hold `rows` finite descriptors of one size.
    """
    count, size = 0, None
    for block in blocks:
        descriptors = check_descriptors(block, size)
        size = descriptors.shape[1]
        count += len(descriptors)
        if count > rows:
            raise ContractError(f"more than {rows} descriptors came for {rows} places")
        yield project(descriptors, transform, normalise)
    if count != rows:
        raise ContractError(f"{count} descriptors came for {rows} places: one is needed for each")


def project(descriptors: Float32Array, transform: Transform | None, normalise: bool) -> Float32Array:
    """Descriptors (m, d) as the index stores them: transformed (m, k), then, with `normalise`, of unit length."""
    vectors = descriptors if transform is None else transform.apply(descriptors)
    if not normalise:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32Array = np.divide(vectors, np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
    return unit


def check_descriptors(descriptors: npt.ArrayLike, size: int | None) -> Float32Array:
    """Descriptors as C-ordered float32 (n, d).

    Raises:
        ContractError: On another shape, or not finite.
    """
    array = np.ascontiguousarray(descriptors, dtype=np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (size is not None and array.shape[1] != size):
        expected = "(n, d)" if size is None else f"(n, {size})"
        raise ContractError(f"descriptors of shape {array.shape} where {expected} is needed: another model's?")
    if not np.isfinite(array).all():
        raise ContractError("a descriptor holds NaN or infinity; check the model's weights")
    return array

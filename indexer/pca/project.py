"""Project descriptors by a stored PCA transform, checked.

Blocks may be PyTorch tensors on the device that described them (`indexer.describer.blocks_to_project`): then their
projections alone come to the host, with the bits that a CPU gives them.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from indexer.pca.transform import Transform
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array


def projected(blocks: Iterable[Any], rows: int, transform: Transform | None, normalise: bool) -> Iterator[Float32Array]:
    """The blocks (m, d) as the index stores them: checked, projected and, with `normalise`, brought to unit length.

    Blocks are arrays or tensors.

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


def project(descriptors: Any, transform: Transform | None, normalise: bool) -> Float32Array:
    """Descriptors (m, d) as the index stores them: transformed (m, k), then, with `normalise`, of unit length.

    They are float32, an array or a tensor.
    """
    vectors: Float32Array
    if _is_tensor(descriptors):
        vectors = (descriptors if transform is None else transform.apply_on_device(descriptors)).cpu().numpy()
    else:
        vectors = descriptors if transform is None else transform.apply(descriptors)
    if not normalise:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32Array = np.divide(vectors, np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
    return unit


def _is_tensor(values: Any) -> bool:
    # Looked up, not imported: whoever has tensors has loaded torch.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def check_descriptors(descriptors: Any, size: int | None) -> Any:
    """Descriptors as C-ordered float32 (n, d); a tensor stays where it is.

    Raises:
        ContractError: On another shape, or not finite.
    """
    # Looked at where it is: a copy to the host is what a block on a card is spared.
    is_tensor = _is_tensor(descriptors)
    array: Any = descriptors.float() if is_tensor else np.ascontiguousarray(descriptors, dtype=np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (size is not None and array.shape[1] != size):
        expected = "(n, d)" if size is None else f"(n, {size})"
        raise ContractError(f"descriptors of shape {array.shape} where {expected} is needed: another model's?")
    if not bool(array.isfinite().all() if is_tensor else np.isfinite(array).all()):
        raise ContractError("a descriptor holds NaN or infinity; check the model's weights")
    return array

"""Arrays of held-out queries, stored beside the shares of an index."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqdata.errors import ContractError
from seqdata.storage.files import write_bytes_atomic


def write_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Store arrays by name.

    Raises:
        OutputError: When it cannot be written.
    """
    from safetensors.numpy import save  # heavy

    write_bytes_atomic(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_arrays(path: Path, *names: str) -> list[Any]:
    """Arrays that `write_arrays` stored.

    Raises:
        ContractError: When the file is absent or damaged.
    """
    from safetensors import SafetensorError, safe_open  # heavy

    try:
        with safe_open(str(path), framework="numpy") as file:
            return [file.get_tensor(name) for name in names]
    except (SafetensorError, OSError) as error:
        raise ContractError(f"{path}: not readable as held-out queries ({error}); make the shares again") from error

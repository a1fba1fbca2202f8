"""Steps that give the same numbers every time on one card and one version of PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from seqdata.errors import ContractError
from train.devices.resize import ResizeByProducts


@contextmanager
def repeatable() -> Iterator[None]:
    """Take only kernels that give the same numbers every time; what was set before is put back.

    Raises:
        ContractError: Inside, for a model with an operation that has no such kernel.
    """
    cudnn = torch.backends.cudnn
    memory: Any = torch.utils.deterministic  # its one setting is made at run time, which mypy does not see
    before = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    debug_mode = torch.get_deterministic_debug_mode()
    cudnn.deterministic, cudnn.benchmark = True, False
    # Not as warnings only: PyTorch would then keep attention's gradients, which add up in any order.
    torch.use_deterministic_algorithms(True)
    # PyTorch also fills new memory then, against reads before writes; here that would only cost time.
    memory.fill_uninitialized_memory = False
    try:
        # Flash, memory-efficient and cuDNN attention have no repeatable gradient of every shape.
        with sdpa_kernel(SDPBackend.MATH), ResizeByProducts():
            yield
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        operation = str(error).split(" ")[0]
        raise ContractError(
            f"deterministic: PyTorch's {operation} has no repeatable kernel on CUDA; choose another model, or train "
            "without this setting"
        ) from error
    finally:
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before
        torch.set_deterministic_debug_mode(debug_mode)

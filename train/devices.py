"""Where to compute, and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from seqdata.errors import ContractError, MissingDependencyError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of a name: "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ContractError: For another name.
        MissingDependencyError: For CUDA where there is none.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise ContractError(f"device '{name}': choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise MissingDependencyError(f"device '{name}': this torch sees no CUDA device; use --device cpu")
    return torch.device(name)


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """Return a context of bfloat16 autocast on a CUDA device that has it, else one of nothing (float32)."""
    # bfloat16 rather than float16: it has float32's range, so gradients need no scaling.
    if enabled and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()

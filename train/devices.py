"""Where to compute, and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from seqdata.errors import ContractError, MissingDependencyError


def pick_device(name: str = "auto") -> torch.device:
    """The device of "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N".

    Raises: ContractError for another name, MissingDependencyError for CUDA where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise ContractError(f"device '{name}': choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise MissingDependencyError(f"device '{name}': this torch sees no CUDA device; use --device cpu")
    return torch.device(name)


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager[object]:
    """bf16 autocast on a CUDA device that can do it, else nothing (float32)."""
    if enabled and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()

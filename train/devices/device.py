"""The device of a name, and what must be set before CUDA starts."""

import os

import torch

from seqdata.errors import ContractError, MissingDependencyError

# Read when cuBLAS starts, which a description before training does already; without it repeated sums may differ.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# The number of distinct frames changes at every step: fixed segments would leave holes. Read when CUDA starts.
if "PYTORCH_ALLOC_CONF" not in os.environ:  # the name that PyTorch 2.9 gave it; a user's own settings stay
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of a name: "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N".

    Under torchrun each process takes the CUDA device of its number on the machine (LOCAL_RANK).

    Raises:
        ContractError: For another name, a device that is not there, or, under torchrun, a device by number.
        MissingDependencyError: For CUDA where there is none.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name != "auto" and name != "cpu" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise ContractError(f"device '{name}': choose auto, cpu, cuda or cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MissingDependencyError(f"device '{name}': this torch sees no CUDA device; use --device cpu")
    local_rank, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if local_rank is not None and ":" in name:
        raise ContractError(f"device '{name}' under torchrun would put all processes on one card; give --device cuda")
    number = int(name[5:]) if ":" in name else int(local_rank or 0) if local_rank is not None else None
    if number is not None and number >= count:
        advice = f"start at most {count} processes a machine" if local_rank else f"cuda:0 to cuda:{count - 1} are there"
        raise ContractError(f"device cuda:{number}: this machine has {count} CUDA devices; {advice}")
    return torch.device("cuda") if number is None else torch.device("cuda", number)

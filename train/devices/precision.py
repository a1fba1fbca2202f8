"""How a CUDA device multiplies float32 numbers: names, and the contexts that forward passes run in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from indexer.describer import PRECISIONS, Precision
from indexer.search.gpu_engines import float32_products
from seqdata.errors import ContractError
from train.devices.device import pick_device
from train.devices.repeatable import repeatable


def pick_precision(name: str | None, device: str) -> Precision:
    """Return the precision of a name, by default TF32, for a device by name.

    Raises:
        ContractError: For another name, or for any where a CPU computes.

    Example:
        >>> pick_precision(None, "cpu")
        'tf32'
    """
    if name is None:
        return "tf32"
    for precision in PRECISIONS:
        if precision == name:
            if pick_device(device).type == "cpu":
                raise ContractError(f"--precision {name}: a CPU computes in float32 whatever it says; leave it out")
            return precision
    raise ContractError(f"--precision {name}: expected {', '.join(PRECISIONS)}")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16 itself; older cards emulate it, slower than float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return a context in which forward passes run in bfloat16, where the precision says so and the card has it."""
    # bfloat16 rather than float16: it has float32's range, so gradients need no scaling.
    if precision == "bf16" and has_bfloat16(device):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def arithmetic(device: torch.device, precision: Precision, *, deterministic: bool = False) -> Iterator[None]:
    """Take float32 products whole or in TF32 on CUDA; what was set before is put back. Changes nothing on a CPU.

    Args:
        device: Where the computation runs.
        precision: See `indexer.describer.Precision`; what is not under `autocast` is TF32 for "bf16" too.
        deterministic: Take only kernels that add up in a fixed order, so that runs repeat to the bit on one card and
            one version of PyTorch. Costs speed: attention and convolutions lose their fastest kernels.

    Raises:
        ContractError: Inside, when `deterministic`, for a model with an operation that has no such kernel.
    """
    if device.type != "cuda":
        yield
        return
    # Both switches: PyTorch by itself rounds convolutions to TF32 and matrix products not.
    with float32_products(tf32=precision != "fp32"), repeatable() if deterministic else nullcontext():
        yield


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run forward passes in a precision: what it says of float32 products, and of bfloat16. As `arithmetic` else."""
    with arithmetic(device, precision), autocast(device, precision):
        yield

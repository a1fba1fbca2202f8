"""Where to compute, and in which precision: one policy for training, describing, mining, validation and the index."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from indexer.describer import PRECISIONS, Precision
from indexer.search.gpu_engines import float32_products
from seqdata.errors import ContractError, MissingDependencyError

Result = TypeVar("Result")

log = logging.getLogger(__name__)

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


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the CPU to a device; the host does not wait for what a card is doing."""
    # Only from pinned memory is a copy queued; from other memory PyTorch waits until all before it has run.
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def to_host(values: Tensor) -> NDArray[Any]:
    """Bring a tensor to the host as an array; from a card through pinned memory, several times as fast."""
    if not values.is_cuda:
        return values.numpy()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return host.numpy()


def or_on_cpu(compute: Callable[[torch.device], Result], device: torch.device) -> Result:
    """Compute something on a device; on the CPU where the device's memory ends, with a line in the log."""
    try:
        return compute(device)
    except torch.OutOfMemoryError:
        log.warning("the memory of %s is full: what does not fit is computed on the CPU", device)
    # Not within the except: its traceback would hold the tensors that filled the memory.
    return compute(torch.device("cpu"))


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
        with sdpa_kernel(SDPBackend.MATH), _ResizeByProducts():
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


class _ResizeByProducts(TorchFunctionMode):
    """Resizes what is trained (position embeddings) by matrix products, whose gradient adds up in a fixed order.

    A mode, since timm's models resize theirs inside functions of its own.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        # PyTorch passes on all arguments but the input by name.
        is_trained = func is F.interpolate and torch.is_grad_enabled() and args[0].requires_grad
        if not is_trained or options.get("size") is None:
            return func(*args, **options)
        names = ("size", "mode", "align_corners", "antialias")
        return resize_by_products(args[0], **{name: options[name] for name in names if name in options})


def resize_by_products(
    values: Tensor,
    size: int | Sequence[int],
    mode: str = "nearest",
    align_corners: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize as `torch.nn.functional.interpolate`, along one axis after another by a matrix product.

    Args:
        values: `(N, C, length)` or `(N, C, height, width)`.
        size: The new length, or (height, width).
        mode: A mode that treats each axis alone: nearest, linear, bilinear, bicubic and their like.
        align_corners: As PyTorch's.
        antialias: As PyTorch's.

    Returns:
        `(N, C, *size)`, equal to PyTorch's to float32's rounding.

    Example:
        >>> resize_by_products(torch.tensor([[[0.0, 1.0]]]), 4, mode="linear")
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    axes = range(2, values.dim())
    sizes = [size] * len(axes) if isinstance(size, int) else list(size)
    # Small, and in float64 neither TF32 nor autocast rounds the products.
    resized = values.double()
    for axis, target in zip(axes, sizes, strict=True):
        weights = _resize_weights(values.shape[axis], target, len(axes), mode, align_corners, antialias)
        resized = (resized.movedim(axis, -1) @ weights.to(values.device).T).movedim(-1, axis)
    return resized.to(values.dtype)


@lru_cache(maxsize=32)
def _resize_weights(
    extent: int, target: int, axes: int, mode: str, align_corners: bool | None, antialias: bool
) -> Tensor:
    """Share `(target, extent)` float64 that each old value has in each new one: PyTorch's own, of unit vectors."""
    # Along the last axis: with one column PyTorch 2.14 resizes rows wrongly where it antialiases.
    units = torch.eye(extent, dtype=torch.float64).view(1, extent, *[1] * (axes - 1), extent)
    options: dict[str, Any] = {"mode": mode, "align_corners": align_corners, "antialias": antialias}
    resized = F.interpolate(units, size=[*[1] * (axes - 1), target], **options)
    return resized.view(extent, target).T

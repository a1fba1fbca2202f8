"""Where and how a model computes descriptors: the one object that every command and every describer takes.

It is plain data: what only carries it along loads no PyTorch.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

from indexer.describer import Precision
from seqdata.errors import ContractError
from seqdata.frames.resize import Kernel, parse_kernel

if TYPE_CHECKING:
    import torch

Runtime = Literal["torch", "onnx"]
"""What encodes frames; the descriptors differ by rounding."""
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


def pick_runtime(name: str | None) -> Runtime | None:
    """Return the runtime of a name, None for none.

    Raises:
        ContractError: For another name.

    Example:
        >>> pick_runtime("onnx")
        'onnx'
    """
    for runtime in RUNTIMES:
        if name == runtime:
            return runtime
    if name is not None:
        raise ContractError(f"--runtime {name}: expected {' or '.join(RUNTIMES)}")
    return None


@dataclass(frozen=True)
class DescribeSettings:
    """Device, precision and runtime of descriptors, and where the code of a model of one's own is.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: How a CUDA device computes (see `indexer.describer.Precision`); a CPU always computes in float32.
        runtime: What encodes frames: PyTorch, or on a CPU ONNX Runtime.
        model_from: Where the model's code is, for models of other packages (see `train.runs.checkpoint.load_model`).
        resize: How frames of several sizes are resized (see `seqdata.frames.resize.Kernel`); None: as the run that
            describes them recorded.

    Example:
        >>> DescribeSettings("cpu", precision="bf16").arithmetic
        {}
    """

    device: str = "auto"
    precision: Precision = "tf32"
    runtime: Runtime = "torch"
    model_from: str | None = None
    resize: Kernel | None = None

    def __post_init__(self) -> None:
        """Refuse a device that the runtime does not use.

        Raises:
            ContractError: For ONNX Runtime on CUDA.
        """
        if self.runtime == "onnx" and self.device not in ("auto", "cpu"):
            raise ContractError(f"--runtime onnx describes on the CPU; leave --device {self.device} away")

    @classmethod
    def from_flags(
        cls,
        device: str,
        precision: str | None,
        runtime: str | None,
        model_from: str | None = None,
        resize: str | None = None,
    ) -> "DescribeSettings":
        """Make the settings of a command's flags, None standing for a flag's default.

        Raises:
            ContractError: For a name that does not exist, or a precision where a CPU computes.
        """
        from train.devices import pick_precision  # heavy

        kernel = None if resize is None else parse_kernel(resize)
        settings = cls(device, "tf32", pick_runtime(runtime) or "torch", model_from, kernel)
        return replace(settings, precision=pick_precision(precision, settings.place))

    @property
    def place(self) -> str:
        """Name of the device that computes: ONNX Runtime encodes on the CPU."""
        return "cpu" if self.runtime == "onnx" else self.device

    @property
    def torch_device(self) -> "torch.device":
        """The device that computes.

        Raises:
            ContractError, MissingDependencyError: As `train.devices.pick_device`.
        """
        from train.devices import pick_device  # heavy

        return pick_device(self.place)

    @property
    def arithmetic(self) -> dict[str, str]:
        """The runtime where it is not PyTorch, the precision where it rounds further than float32, a kernel by name.

        CUDA's float32 and a CPU's differ in their last bits alone.
        """
        named = {} if self.resize in (None, "pillow") else {"resize": str(self.resize)}
        if self.runtime != "torch":
            return {"runtime": self.runtime, **named}
        is_rounded = self.precision != "fp32" and self.torch_device.type == "cuda"
        return {"precision": self.precision, **named} if is_rounded else named

    def computing(self) -> AbstractContextManager[None]:
        """Return the context that forward passes run in."""
        from train.devices import computing  # heavy

        return computing(self.torch_device, self.precision)

    def of_vectors(self, computed: Mapping[str, str], runtime: Runtime | None = None) -> "DescribeSettings":
        """Return these settings with the precision, the runtime and the kernel that stored vectors were computed with.

        Args:
            computed: `arithmetic` of those vectors, as an index records it.
            runtime: Overrides theirs: descriptors of the two differ by rounding alone.

        Example:
            >>> DescribeSettings("cpu").of_vectors({"precision": "bf16"}).precision
            'bf16'
        """
        precision = cast(Precision, computed.get("precision", "fp32"))
        own_runtime = cast(Runtime, computed.get("runtime", "torch"))
        resize = parse_kernel(computed.get("resize", "pillow"))
        return replace(self, precision=precision, runtime=runtime or own_runtime, resize=resize)


DEFAULT = DescribeSettings()
"""PyTorch on a CUDA device where there is one, with products in TF32."""

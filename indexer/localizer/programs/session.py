"""Programs of a pack: ONNX files from one array to one array, run by ONNX Runtime on a named device."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from indexer.localizer.programs.onnx_files import check_onnx
from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.geometry import Float32Array

Device = Literal["cpu", "cuda", "tensorrt", "openvino", "coreml"]
PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""ONNX Runtime's execution provider of each device."""
_ERRORS_ONLY = 3


class Program:
    """A function of one array, float32 of one fixed shape, to another."""

    def __init__(self, session: Any) -> None:
        """Take an open session of ONNX Runtime that has one input and one output."""
        self._session = session
        (entry,) = session.get_inputs()
        self._name: str = entry.name
        self.shape = tuple(int(size) for size in entry.shape)
        """Shape of the input."""

    def __call__(self, array: Float32Array) -> Float32Array:
        """Compute the output of an input of shape `shape`."""
        (output,) = self._session.run(None, {self._name: array})
        result: Float32Array = output
        return result


def load_program(path: Path, device: str = "cpu", threads: int | None = None) -> Program:
    """Open the program of an ONNX file, after looking through it.

    Args:
        path: The file.
        device: A key of `PROVIDERS`.
        threads: Threads of a computation on the CPU; None lets ONNX Runtime take every core.

    Returns:
        A callable from array to array.

    Raises:
        InputError: If there is no such file.
        ContractError: If it is damaged, of another kind, or asks for more than the standard's operators.
        MissingDependencyError: If ONNX Runtime, or what it needs for the device, is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); the pack is incomplete") from error
    check_onnx(data, path)
    return open_program(data, path, device, threads)


def open_program(data: bytes, path: Path, device: str = "cpu", threads: int | None = None) -> Program:
    """Open a program from bytes that were looked through.

    Errors are those of `load_program`.
    """
    provider = _provider(device)
    import onnxruntime  # heavy: a pack can be inspected without it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    # Bytes, not a path: what was looked through is what is opened, and no name beside the file can be reached.
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ContractError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it ({type(error).__name__}: {reason}); pack "
            "again, or install a newer onnxruntime"
        ) from error
    # Where a provider's libraries are absent, ONNX Runtime goes on with the CPU and only logs it.
    if session.get_providers()[:1] != [provider]:
        raise MissingDependencyError(
            f"device {device}: {provider} is installed, but what it needs on this machine is not; use --device cpu"
        )
    _check_shapes(session, path)
    return Program(session)


def _provider(device: str) -> str:
    """Name of the execution provider of a device. Raises: MissingDependencyError where it is not installed."""
    try:
        import onnxruntime  # heavy: see `open_program`
    except ImportError as error:
        raise MissingDependencyError("a pack needs ONNX Runtime to run: pip install onnxruntime") from error
    installed = onnxruntime.get_available_providers()
    names = [name for name, provider in PROVIDERS.items() if provider in installed]
    for name, provider in PROVIDERS.items():
        if name == device and provider in installed:
            return provider
    if device in PROVIDERS:
        raise MissingDependencyError(
            f"device {device}: this onnxruntime cannot use it; it has {', '.join(names)} (docs/install.md lists the "
            "packages of other devices)"
        )
    raise ContractError(f"device {device!r}: expected {', '.join(PROVIDERS)}")


def _check_shapes(session: Any, path: Path) -> None:
    """Raise ContractError unless a session maps one float32 array of a fixed shape to one."""
    ends = [*session.get_inputs(), *session.get_outputs()]
    is_single = len(session.get_inputs()) == len(session.get_outputs()) == 1
    if not is_single or any(end.type != "tensor(float)" for end in ends):
        raise ContractError(f"{path}: not a program from one array of float32 to another; pack again")
    if not all(isinstance(size, int) and size > 0 for size in session.get_inputs()[0].shape):
        raise ContractError(f"{path}: its input has no fixed shape; pack again")


def fixed(array: Any) -> Float32Array:
    """A contiguous float32 array, as programs take them."""
    return np.ascontiguousarray(array, dtype=np.float32)

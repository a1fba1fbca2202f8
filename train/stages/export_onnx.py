"""A sequence model as two ONNX programs: one for a frame, one for a window of frame features."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexer.localizer.localizer import resample
from indexer.localizer.pack import FRAMES, WINDOW
from indexer.localizer.programs.onnx_files import check_onnx
from indexer.localizer.programs.session import open_program
from seqdata.errors import ContractError, MissingDependencyError, OutputError
from seqdata.frames.images import Pixels
from seqdata.geometry import Float32Array
from seqdata.storage.files import write_bytes_atomic
from train.models.base import SequenceModel

OPSET = 20
"""Version of ONNX's operators: the first with Gelu and an antialiased Resize; ONNX Runtime 1.17 and newer run it."""
TOLERANCE = 1e-4
"""Float32 kernels of the exported graph may sum in another order; a wrong graph is off by far more."""
# Protocol buffers end at 2 GiB, and packs keep weights inside the file.
_MOST_BYTES = (1 << 31) - (1 << 20)


class _Frames(nn.Module):
    """A frame `(1, 3, H, W)` float32 in 0…255 → its features `(1, ...)`."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> Tensor:
        return self.model.encode_frames(frame)


class _Window(nn.Module):
    """The features of a window's frames `(L, ...)` → its descriptor `(1, D)`."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.fuse(features.unsqueeze(0))


@torch.no_grad()
def export_model(
    model: SequenceModel, size: tuple[int, int], length: int, folder: Path, frames: list[Pixels] | None = None
) -> None:
    """Write `frames.onnx` and `window.onnx`, a model in two programs.

    Sizes are fixed: an index is of one length, and frames are resized before. Each program holds the weights that it
    uses. Both are opened again and must give what the model gives, within 1e-4 of the descriptor's largest value.

    Shape:
        frames.onnx: (1, 3, H, W) float32 in 0…255 → features (1, ...).
        window.onnx: features (L, ...) → descriptor (1, D).

    Args:
        model: The model; it is moved to the CPU.
        size: (height, width) of the frames.
        length: Frames in a window.
        folder: Where the two files go.
        frames: Frames uint8 (3, H, W) to compare on, at least `length` of them; None compares on noise.

    Raises:
        ContractError: If the model cannot be exported, comes out different, or cannot take that length.
        MissingDependencyError: If onnx or onnxscript is not installed.
        OutputError: If a file cannot be written.
    """
    model = model.cpu().eval()
    model.check_length(length)
    inputs = _noise(size, length) if frames is None else [resample(frame, size) for frame in frames[:length]]
    features = torch.cat([model.encode_frames(torch.from_numpy(frame)) for frame in inputs])
    # This call also fills the model's caches: tracing would fill them with its stand-in tensors.
    expected = model.fuse(features.unsqueeze(0)).numpy()
    name = str(model.config.get("name", type(model).__name__))
    encode_bytes = export_module(_Frames(model), torch.from_numpy(inputs[0]), name)
    fuse_bytes = export_module(_Window(model), features, name)
    encode, fuse = open_program(encode_bytes, Path(FRAMES)), open_program(fuse_bytes, Path(WINDOW))
    exported = fuse(np.concatenate([encode(frame) for frame in inputs]))
    check_equal(exported, expected, name)
    write_bytes_atomic(folder / FRAMES, encode_bytes)
    write_bytes_atomic(folder / WINDOW, fuse_bytes)


def export_encoder(model: SequenceModel, size: tuple[int, int]) -> bytes:
    """The frame program of a model as the bytes of an ONNX file.

    Errors are those of `export_model`.
    """
    with torch.no_grad():
        name = str(model.config.get("name", type(model).__name__))
        return export_module(_Frames(model.cpu().eval()), torch.from_numpy(_noise(size, 1)[0]), name)


def check_equal(exported: Float32Array, expected: Float32Array, name: str) -> None:
    """Raise ContractError where a program's result is not the model's, within `TOLERANCE` of the largest value."""
    relative_error = float(np.abs(exported - expected).max() / max(np.abs(expected).max(), 1e-12))
    # Also where one of them is NaN.
    if not relative_error <= TOLERANCE:
        raise ContractError(f"model {name}: its exported program is off by {relative_error:.1e} of the largest value")


def export_module(module: nn.Module, example: Tensor, name: str) -> bytes:
    """Trace a module on an example and make the bytes of an ONNX file.

    Errors are those of `export_model`.
    """
    try:
        import onnx  # optional: the extra `pack`
        import onnxscript  # noqa: F401  (torch's exporter imports it, and says less where it is absent)
    except ImportError as error:
        raise MissingDependencyError(
            f"making a pack needs {error.name}: pip install 'onnx>=1.19' 'onnxscript>=0.5'"
        ) from error
    try:
        with _quiet():
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False
            )
        assert program is not None  # noqa: S101  (only the older exporter returns none)
        proto = program.model_proto
    except Exception as error:  # tracing raises whatever the model's code leads it to
        raise ContractError(
            f"model {name} cannot be exported to ONNX ({_reason(error)}); pack one whose encode_frames and fuse_rows "
            "are plain tensor code"
        ) from error
    if proto.ByteSize() > _MOST_BYTES:
        raise OutputError(f"model {name}: {proto.ByteSize():,} bytes of weights do not fit into one ONNX file (2 GiB)")
    plain(proto)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    check_onnx(data, Path(f"the exported program of {name}"))
    return bytes(data)


def plain(proto: Any) -> None:
    """Take out of an ONNX model what no computation needs: notes of the exporter, and operator sets that nothing uses.

    The notes hold names of files on the exporting machine.
    """
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    proto.doc_string = proto.graph.doc_string = ""
    for node in _nodes(proto.graph):
        del node.metadata_props[:]
        node.doc_string = ""
    sets = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(sets)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of the graphs inside them (bodies of loops and branches)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
    for entry in (*graph.initializer, *graph.input, *graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _noise(size: tuple[int, int], count: int) -> list[Float32Array]:
    """Frames (1, 3, H, W) float32 of random pixels."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1, 3, *size)).astype(np.float32) for _ in range(count)]


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: torch wraps it in pages of advice, and it is what names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no more is said'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's and onnxscript's remarks about a conversion that worked."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

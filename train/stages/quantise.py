"""A frame program in numbers of 8 bits: static quantisation by ONNX Runtime, its ranges measured on real frames."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.localizer.localizer import resample
from indexer.localizer.programs.onnx_files import check_onnx
from seqdata.errors import ContractError, MissingDependencyError
from seqdata.frames.images import Pixels
from seqdata.geometry import IntArray
from train.stages.export_onnx import plain


def quantise_int8(program: bytes, frames: Sequence[Pixels], size: tuple[int, int]) -> bytes:
    """Quantise a frame program: weights int8 a channel, activations uint8 by their range on `frames`.

    Args:
        program: Bytes of an ONNX file of float32.
        frames: Frames of the dataset uint8 (3, H, W), a hundred or so.
        size: (height, width) that the program takes.

    Returns:
        Bytes of an ONNX file that takes and gives float32, of the standard's operators alone.

    Raises:
        MissingDependencyError: If onnx is not installed.
        ContractError: If the program cannot be quantised.
    """
    try:
        import onnx  # optional: the extra `pack`
        from onnxruntime import quantization  # optional: imports onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"quantising needs {error.name}: pip install 'onnx>=1.19' 'onnxruntime>=1.20'"
        ) from error

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc]  # its base is known only here
        """Frames one by one, as ONNX Runtime asks for them."""

        def __init__(self, name: str) -> None:
            self._rest: Iterator[dict[str, Any]] = ({name: resample(frame, size)} for frame in frames)

        def get_next(self) -> dict[str, Any] | None:
            """The next input, None at the end."""
            return next(self._rest, None)

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(prefix="seqdata-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(program)
        try:
            root.setLevel(logging.ERROR)  # it advises a step that exported programs have behind them
            name = onnx.load(str(source)).graph.input[0].name
            quantization.quantize_static(
                str(source),
                str(target),
                Frames(name),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                # Depthwise convolutions have ranges of their own in every channel; matrices of attention are small.
                op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            proto = onnx.load(str(target))
        except Exception as error:  # the quantiser raises whatever a graph leads it to
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ContractError(f"the frame program cannot be quantised ({type(error).__name__}: {reason})") from error
        finally:
            root.setLevel(level)
    plain(proto)
    data = bytes(proto.SerializeToString(deterministic=True))
    check_onnx(data, Path("the quantised program"))
    return data


def sample_rows(rows: IntArray, count: int) -> IntArray:
    """`count` of the frame rows (n,), spread evenly over them, or all where there are fewer."""
    distinct = np.unique(rows)
    return distinct[np.linspace(0, len(distinct) - 1, min(count, len(distinct))).round().astype(np.int64)]

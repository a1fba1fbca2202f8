"""A sequence model as two exported programs: one for a frame, one for a window of frame features."""

import warnings
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from indexer.localizer.pack import FRAMES, WINDOW
from indexer.localizer.programs import load_program
from seqdata.errors import ContractError
from train.models.base import SequenceModel

# Float32 kernels of the exported graph may sum in another order; a wrong graph is off by far more.
TOLERANCE = 1e-4


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
def export_model(model: SequenceModel, size: tuple[int, int], length: int, folder: Path) -> None:
    """Write `frames.pt2` and `window.pt2`, a model in two programs.

    Sizes are fixed: an index is of one length, and frames are resized before. Each program holds the weights that it
    uses. Both are opened again and must give what the model gives, within 1e-4 of the descriptor's largest value.

    Shape:
        frames.pt2: (1, 3, H, W) float32 in 0…255 → features (1, ...).
        window.pt2: features (L, ...) → descriptor (1, D).

    Args:
        model: The model; it is moved to the CPU.
        size: (height, width) of the frames.
        length: Frames in a window.
        folder: Where the two files go.

    Raises:
        ContractError: If the model cannot be exported, comes out different, or cannot take that length.
    """
    model = model.cpu().eval()
    model.check_length(length)
    generator = torch.Generator().manual_seed(0)
    frames = [torch.rand(1, 3, *size, generator=generator) * 255 for _ in range(length)]
    features = torch.cat([model.encode_frames(frame) for frame in frames])
    # This call also fills the model's caches: tracing would fill them with its stand-in tensors.
    expected = model.fuse(features.unsqueeze(0))
    name = str(model.config.get("name", type(model).__name__))
    _export(_Frames(model), frames[0], folder / FRAMES, name)
    _export(_Window(model), features, folder / WINDOW, name)
    encode, fuse = load_program(folder / FRAMES), load_program(folder / WINDOW)
    exported = fuse(torch.cat([encode(frame) for frame in frames]))
    relative_error = float((exported - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not relative_error <= TOLERANCE:
        raise ContractError(f"model {name}: its exported program is off by {relative_error:.1e} of the largest value")


def _export(module: nn.Module, example: Tensor, path: Path, name: str) -> None:
    """Trace a module on an example and write its program. Raises: ContractError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (example,))
    except Exception as error:  # tracing raises whatever the model's code leads it to
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ContractError(
            f"model {name} cannot be exported ({type(error).__name__}: {reason}); pack one whose encode_frames and "
            "fuse_rows are plain tensor code"
        ) from error
    _drop_unused(program)
    # Example inputs would be stored as a pickle, which `indexer.localizer.programs` refuses.
    program.example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)


def _drop_unused(program: ExportedProgram) -> None:
    """Take out the weights that the program never reads: those of the other half of the model."""
    signature = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    used_inputs = []
    for spec in signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and not node.users:
            program.graph.erase_node(node)
            program.state_dict.pop(cast(str, spec.target), None)
        else:
            used_inputs.append(spec)
    signature.input_specs = used_inputs
    program.graph_module.recompile()

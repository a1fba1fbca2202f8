"""What a model is made of: stages, shapes, parameters and arithmetic of one window, without running it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from seqdata.errors import ContractError
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.encoders.public_files import public_file

OWN_SIZE = (240, 320)  # (height, width) taken as an example for models that keep the frames' own size
DEFAULT_LENGTH = 5  # frames of a window in both papers
LONGEST = 64  # frames up to which a length is looked for that a model takes
_NOTHING = (nn.Identity, nn.Dropout)


def card(name: str, length: int | None = None, /, **options: Any) -> dict[str, Any]:
    """Describe what a model is made of.

    FLOPs count a multiplication and an addition as two, in matrix products, convolutions and attention only, forward.

    Args:
        name: As for `train.models.registry.create`.
        length: Frames of the window that is counted for; None for the model's only length, or 5.
        **options: As for `create`.

    Returns:
        name, length, lengths (least and most that work; most None for any), size (height, width), own_size (whether the
        model keeps the frames' size, and 240×320 was taken), stages, parameters, trainable, trainable_share, flops,
        descriptor, distance, config, start (the public file that it can start from, or None). A stage holds name, kind,
        shape (of its output, frames or one window first; None where it is no step of its own), parameters, trainable,
        flops; a stage `rest` holds what belongs to no other.

    Raises:
        ContractError: As `create`, and for a length that the model cannot take.

    Example:
        >>> made = card("seqvlad-r18")
        >>> made["descriptor"], made["trainable"]
        (16384, 2132480)
    """
    # On torch's meta device nothing is computed or allocated; what cannot run there (a plug-in) runs on the CPU.
    try:
        return _card(outline(name, **options), name, length)
    except (NotImplementedError, RuntimeError):
        return _card(models.create(name, **options), name, length)


def outline(name: str, **options: Any) -> SequenceModel:
    """Make a model on torch's meta device: shapes without values.

    Errors are those of `train.models.registry.create`.
    """
    with _Unfilled():
        return models.create(name, **options).to("meta")


class _Unfilled(TorchFunctionMode):
    """Leaves fresh parameters as they are, so that layers of gigabytes cost no time and touch no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Skip the functions of torch.nn.init, which return the tensor that they fill."""
        keywords = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return keywords["tensor"] if "tensor" in keywords else args[0]
        return func(*args, **keywords)


def _card(model: SequenceModel, name: str, length: int | None) -> dict[str, Any]:
    """The card of a made model, on the device that it is on."""
    length = length or model.length or DEFAULT_LENGTH
    size = model.size or OWN_SIZE
    device = next(model.buffers()).device
    windows = torch.zeros(1, length, 3, *size, dtype=torch.uint8, device=device)
    shapes, flops, total = _run(model, windows)
    count, trained = _parameters(model)
    stages = [_stage("frames", "input", [length, 3, *size], (0, 0, 0)), *_stages(model, shapes, flops)]
    by_stage = zip(*((s["parameters"], s["trainable"], s["flops"]) for s in stages), strict=True)
    rest = [whole - sum(parts) for whole, parts in zip((count, trained, total), by_stage, strict=True)]
    return {
        "name": name,
        "length": length,
        "lengths": _lengths(model, windows[0, :1]),
        "size": list(size),
        "own_size": model.size is None,
        "stages": [*stages, _stage("rest", "", None, tuple(rest))] if any(rest) else stages,
        "parameters": count,
        "trainable": trained,
        "trainable_share": trained / count if count else 0.0,
        "flops": total,
        "descriptor": model.descriptor_size(length),
        "distance": model.distance,
        "config": model.config,
        "start": _start(model),
    }


def _start(model: SequenceModel) -> dict[str, str] | None:
    """The public file that the encoder can start from, as JSON."""
    file = public_file(str(model.config.get("encoder", "")))
    return None if file is None else asdict(file)


def _run(model: SequenceModel, windows: Tensor) -> tuple[dict[str, list[int]], dict[str, int], int]:
    """One pass: the output shape of every module that was called, FLOPs by module, FLOPs in all."""
    shapes: dict[str, list[int]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            # An LSTM gives (outputs, (hidden, cell)): the last is what goes on in all of our models.
            while isinstance(out, (tuple, list)):
                out = out[-1]
            if isinstance(out, Tensor):
                shapes[name] = list(out.shape)

        return hook

    counter = FlopCounterMode(display=False)
    with ExitStack() as stack, torch.no_grad(), counter:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(note(name)).remove)
        model(windows)
    # The counter names modules from the model's class on; the names of `named_modules` have no such start.
    top = type(model).__name__
    flops = {key: sum(counts.values()) for key, counts in counter.get_flop_counts().items()}
    return shapes, {key.removeprefix(f"{top}."): value for key, value in flops.items()}, counter.get_total_flops()


def _stages(model: nn.Module, shapes: dict[str, list[int]], flops: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The outermost modules that were called, in the order of the calls; then uncalled ones with parameters."""
    order = {name: position for position, name in enumerate(shapes)}
    modules = sorted(_outermost(model, "", shapes), key=lambda entry: order.get(entry[0], len(order)))
    for name, module in modules:
        yield _stage(name, type(module).__name__, shapes.get(name), (*_parameters(module), flops.get(name, 0)))


def _stage(name: str, kind: str, shape: list[int] | None, counts: tuple[int, ...]) -> dict[str, Any]:
    """One row of the card; `counts` are parameters, trained ones and FLOPs."""
    parameters, trainable, flops = counts
    sizes = {"parameters": parameters, "trainable": trainable, "flops": flops}
    return {"name": name, "kind": kind, "shape": shape, **sizes}


def _outermost(module: nn.Module, prefix: str, shapes: dict[str, list[int]]) -> Iterator[tuple[str, nn.Module]]:
    """Modules that were called, or hold nothing further, without those inside them."""
    for key, child in module.named_children():
        name = f"{prefix}{key}"
        if name in shapes or not any(True for _ in child.children()):
            if not isinstance(child, _NOTHING) and (name in shapes or _parameters(child)[0]):
                yield name, child
        else:
            yield from _outermost(child, f"{name}.", shapes)


def _parameters(module: nn.Module) -> tuple[int, int]:
    """Numbers in all parameters, and in those that are trained."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


@torch.no_grad()
def _lengths(model: SequenceModel, frame: Tensor) -> dict[str, int | None]:
    """Least and most frames of a window, found by trying on one frame `(1, 3, H, W)`."""
    if model.length is not None:
        return {"least": model.length, "most": model.length}
    features = model.encode_frames(frame)
    for length in range(1, LONGEST + 1):
        try:
            model.fuse_rows(features, torch.zeros(1, length, dtype=torch.int64, device=frame.device))
        except ContractError:
            continue
        return {"least": length, "most": None}
    raise ContractError(f"model {model.config.get('name')} takes no window of 1 to {LONGEST} frames")

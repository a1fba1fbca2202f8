"""Which frames an encoder can take, found by trying it once on a frame of zeros."""

from typing import cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from seqdata.errors import ContractError

Size = tuple[PositiveInt, PositiveInt]
# What timm's models raise for frames that they cannot take.
_FAULTS = (AssertionError, RuntimeError, ValueError)


def bound_size(encoder: nn.Module) -> tuple[int, int] | None:
    """Find the (height, width) in pixels that an encoder is bound to; None where it takes other sizes too."""
    # Twice the size stands for "another size": all bound encoders of timm refuse it, all others take it.
    made_for = _made_for(encoder)
    if made_for is None or _refusal(encoder, (2 * made_for[0], 2 * made_for[1])) is None:
        return None
    return made_for


def check_frames(encoder: nn.Module, size: tuple[int, int]) -> None:
    """Raise ContractError, with the encoder's own reason, where it cannot take frames of `size` (height, width)."""
    reason = _cut_patches(encoder, size) or _refusal(encoder, size)
    if reason is None:
        return
    made_for = _made_for(encoder)
    if made_for not in (None, size):
        reason += f"; it is made for {_format_size(made_for)}, and for another size by encoder_options img_size"
    name = getattr(encoder, "name", type(encoder).__name__)
    raise ContractError(f"encoder '{name}' cannot take frames of {_format_size(size)}: {reason}")


def grid_of(encoder: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Find the (rows, columns) of the tokens that an encoder gives for frames of `size` (height, width).

    Args:
        encoder: Gives the tokens of the grid alone.
        size: Of the frames, in pixels.

    Raises:
        ContractError: Where the tokens are no grid in the frames' proportions.
    """
    count = _tokens_of_zeros(encoder, size).shape[1]
    rows = round((count * size[0] / size[1]) ** 0.5)
    if not rows or count % rows:
        raise ContractError(f"{count} tokens of frames of {_format_size(size)} are no grid; choose another size")
    return rows, count // rows


def encode(encoder: nn.Module, frames: Tensor) -> Tensor:
    """Compute the encoder's tokens `(N, T, C)` of frames `(N, 3, H, W)`, float32.

    Raises:
        ContractError: For frames of a size that it cannot take.
    """
    try:
        tokens: Tensor = encoder(frames)
    except _FAULTS:
        check_frames(encoder, (frames.shape[-2], frames.shape[-1]))
        raise
    return tokens


def _cut_patches(encoder: nn.Module, size: tuple[int, int]) -> str | None:
    """Why patches do not fit frames of `size`, or None: a ViT leaves pixels beyond its last patch out silently."""
    patch = getattr(getattr(getattr(encoder, "backbone", None), "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(side % pixels for side, pixels in zip(size, patch, strict=True)):
        return f"patches of {patch[0]} pixels do not divide it"
    return None


def _refusal(encoder: nn.Module, size: tuple[int, int]) -> str | None:
    """Why an encoder cannot take frames of `size`, in a line, or None."""
    try:
        _tokens_of_zeros(encoder, size)
    except _FAULTS as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return None


@torch.no_grad()
def _tokens_of_zeros(encoder: nn.Module, size: tuple[int, int]) -> Tensor:
    """Tokens `(1, T, C)` of a frame of zeros, in eval mode.

    Tried on the meta device, where nothing is computed; what fails there is tried on real zeros, because some models
    cannot run without values. Raises: what the encoder raises there.
    """
    # Parameters are put to the meta device for this call only (functional_call): the encoder itself is not touched.
    training, device = encoder.training, next((p.device for p in encoder.parameters()), torch.device("cpu"))
    state = {name: value.to("meta") for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]}
    frame = torch.zeros(1, 3, *size)
    encoder.eval()
    try:
        try:
            return cast(Tensor, functional_call(encoder, state, (frame.to("meta"),)))
        except Exception:  # whatever it is, the real frame decides
            return cast(Tensor, encoder(frame.to(device)))
    finally:
        encoder.train(training)


def _made_for(encoder: nn.Module) -> tuple[int, int] | None:
    """The (height, width) that an `Encoder` is built for, None where it says none."""
    size: tuple[int, int] | None = getattr(encoder, "made_for", None)
    return size


def _format_size(size: tuple[int, int] | None) -> str:
    """Height×width, for messages."""
    return "×".join(map(str, size or ()))

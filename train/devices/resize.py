"""Resizing of what is trained (position embeddings) by matrix products, whose gradients add up in a fixed order."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ResizeByProducts(TorchFunctionMode):
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

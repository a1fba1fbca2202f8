"""Pixels at another size: one function for every reader, and the kernels that it knows by name.

Convention: pixels are RGB, uint8, (H, W, 3); sizes are (H, W). All kernels are bilinear and antialiased: their support
grows with the reduction. A kernel is part of the identity of what is described with it (features, indexes); without a
name it is Pillow's.
"""

import threading
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from seqdata.errors import ContractError, MissingDependencyError
from seqdata.frames.images import Pixels

Size = tuple[int, int] | None
"""(height, width), None for a picture's own."""
Kernel = Literal["pillow", "fast", "scaled"]
"""How pixels are resized.

* "pillow": Pillow's own code, in numbers of 22 bits;
* "fast": the same filter in numbers of 16 bits (`cykooz-resizer`): a third of the time, a grey level apart at most;
* "scaled": as "fast", from a JPEG decoded at ½, ⅜, ¼ or ⅛ where the result is no larger: half the time again, and
  several grey levels apart (docs/speed.md).
"""
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
_own = threading.local()


def parse_kernel(name: str) -> Kernel:
    """Return the kernel of a name.

    Raises:
        ContractError: For another name.

    Example:
        >>> parse_kernel("fast")
        'fast'
    """
    for kernel in KERNELS:
        if kernel == name:
            return kernel
    raise ContractError(f"resize kernel '{name}': expected {', '.join(KERNELS)}")


def check_kernel(name: str) -> None:
    """Refuse a kernel that cannot be used, before the first frame is read.

    Raises:
        ContractError: For an unknown name.
        MissingDependencyError: If its package is not installed.
    """
    if parse_kernel(name) != "pillow":
        _fast()


def default_kernel() -> Kernel:
    """Choose the kernel of what is begun anew: "fast" where its package is installed."""
    return "fast" if find_spec("cykooz_resizer") is not None else "pillow"


def resize(pixels: Pixels, size: Size, kernel: Kernel = "pillow") -> Pixels:
    """Resize pixels.

    Args:
        pixels: RGB, uint8 (H, W, 3).
        size: (height, width); with None or the pixels' own size nothing changes.
        kernel: How; "scaled" decodes at another size too, and is "fast" for pixels.

    Raises:
        MissingDependencyError: If the kernel's package is not installed.

    Example:
        >>> resize(np.zeros((4, 6, 3), np.uint8), (2, 3)).shape
        (2, 3, 3)
    """
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels
    if kernel == "pillow":
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    height, width, _ = pixels.shape
    library, resizer, options = _fast()
    source = library.ImageData(width, height, library.PixelType.U8x3, pixels.tobytes())
    target = library.ImageData(size[1], size[0], library.PixelType.U8x3)
    resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*size, 3)


def _fast() -> tuple[Any, Any, Any]:
    """The library of the fast kernel, and this thread's resizer and options."""
    if not hasattr(_own, "fast"):
        try:
            import cykooz_resizer as library  # heavy: only those who name the kernel need it
        except ImportError as error:
            advice = "pip install cykooz-resizer"
            raise MissingDependencyError(f"resize kernel 'fast' needs cykooz-resizer: {advice}") from error
        algorithm = library.ResizeAlg.convolution(library.FilterType.bilinear)
        # One resizer a thread: a shared one lets one thread in at a time.
        _own.fast = library, library.Resizer(), library.ResizeOptions(algorithm, use_alpha=False)
    library, resizer, options = _own.fast
    return library, resizer, options

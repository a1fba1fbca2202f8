"""How a frame must look before a model sees it: the form in which the database's frames were stored."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, InputError
from seqdata.frames.decode import decode_image, resize
from seqdata.frames.encode import prepare
from seqdata.frames.images import BadImageError, Pixels, shrink, shrunk_size

Picture = npt.NDArray[np.uint8] | bytes | str | Path


class FrameForm(Frozen):
    """What a build did to every frame, so that a query's frames get the same.

    `keep_png`, `short_side` (pixels) and `quality` as in the dataset's build settings. `size` is the (height, width)
    that every frame is brought to with Pillow's bilinear filter; None keeps each frame's own.
    """

    keep_png: bool = False
    short_side: int | None = None
    quality: int = 95
    size: tuple[int, int] | None = None

    def pixels(self, picture: Picture) -> Pixels:
        """Pixels uint8 (3, H, W) RGB of a picture: an encoded file's bytes, its path, or pixels uint8 (H, W, 3) RGB.

        A file is prepared and decoded as a build would have stored it; pixels of a camera are not compressed first.
        Raises: InputError when a file cannot be read, ContractError for an array of another shape or type.
        """
        if isinstance(picture, np.ndarray):
            return self._of_array(picture)
        name, data = ("the frame", picture) if isinstance(picture, bytes) else (str(picture), _bytes(Path(picture)))
        try:
            stored = prepare(data, keep_png=self.keep_png, short_side=self.short_side, quality=self.quality)
            return np.ascontiguousarray(decode_image(stored.data, self.size).transpose(2, 0, 1))
        except BadImageError as error:
            raise InputError(f"{name}: {error}") from error

    def _of_array(self, array: npt.NDArray[np.uint8]) -> Pixels:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise ContractError(f"a frame of shape {array.shape}, {array.dtype}: uint8 (H, W, 3) in RGB is needed")
        smaller = shrunk_size(array.shape[1], array.shape[0], self.short_side)
        fitted = array if smaller is None else shrink(array, smaller)
        return np.ascontiguousarray(resize(fitted, self.size).transpose(2, 0, 1))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error

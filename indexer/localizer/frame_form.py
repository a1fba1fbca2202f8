"""How a frame must look before a model sees it: the form in which the database's frames were stored."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.place_index import PlaceIndex
from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen
from seqdata.errors import ContractError, InputError
from seqdata.frames.decode import channels_first, decode_image
from seqdata.frames.encode import prepare
from seqdata.frames.images import BadImageError, Pixels, orientation, shrink, shrunk_size, upright
from seqdata.frames.resize import resize
from seqdata.sources.raw_frames import RawFrames, rgb_of_image

Picture = npt.NDArray[np.uint8] | Image.Image | bytes | bytearray | memoryview | str | os.PathLike[str]
"""A frame as a camera or a program hands it over: pixels, a Pillow image, the bytes of an image file, or its path."""

_CHANNELS = (1, 3, 4)


class FrameForm(Frozen):
    """What a build did to every frame, so that a query's frames get the same.

    `keep_png`, `short_side` (pixels) and `quality` as in the dataset's build settings. `raw` is how raw pictures were
    developed (RobotCar), None where pictures are stored as they are. `size` is the (height, width) that every frame is
    brought to with Pillow's bilinear filter; None keeps each frame's own.
    """

    # Left out of a pack's manifest where there is none, so that older programs read it.
    later: ClassVar[frozenset[str]] = frozenset({"raw"})

    keep_png: bool = False
    short_side: int | None = None
    quality: int = 95
    size: tuple[int, int] | None = None
    raw: RawFrames | None = None

    def pixels(self, picture: Picture) -> Pixels:
        """Bring a picture to the form of the database's frames.

        A file is developed, prepared and decoded as a build would have stored it; pixels are not compressed first.

        Convention: arrays are RGB, RGBA (on black) or one channel, which is grey, or a Bayer mosaic where the database
        was built from raw RobotCar pictures. A Pillow image is turned upright by its EXIF orientation, as a file is.

        Args:
            picture: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint16 (H, W) or (H, W, 1), a Pillow image, the
                bytes of an image file, or its path.

        Returns:
            RGB pixels uint8 (3, H, W).

        Raises:
            InputError: If a file cannot be read.
            ContractError: If an array has another shape or type, or the picture is nothing of the kind.

        Example:
            >>> import numpy as np
            >>> FrameForm(size=(24, 32)).pixels(np.zeros((48, 64), np.uint8)).shape
            (3, 24, 32)
        """
        if isinstance(picture, np.ndarray):
            return self._image_pixels(lambda: _image_of_array(picture))
        if isinstance(picture, Image.Image):
            return self._image_pixels(lambda: picture)
        if isinstance(picture, (bytes, bytearray, memoryview)):
            return self._file_pixels(bytes(picture), "the frame")
        if isinstance(picture, (str, os.PathLike)):
            return self._file_pixels(_read(picture), str(picture))
        raise ContractError(
            f"a frame of type {type(picture).__name__}: give uint8 pixels (H, W, 3), a Pillow image, the bytes of an "
            "image file, or its path"
        )

    def _file_pixels(self, data: bytes, name: str) -> Pixels:
        try:
            content = data if self.raw is None or not data else self.raw.develop_file(data)
            image = prepare(content, keep_png=self.keep_png, short_side=self.short_side, quality=self.quality)
            return np.ascontiguousarray(channels_first(decode_image(image.data, self.size)))
        except BadImageError as error:
            raise InputError(f"{name}: {error}") from error

    def _image_pixels(self, load: Callable[[], Image.Image]) -> Pixels:
        try:
            image = load()
            pixels = upright(rgb_of_image(image, self.raw), orientation(image))
        except BadImageError as error:
            raise ContractError(f"the frame: {error}") from error
        except (OSError, ValueError) as error:  # a lazily opened image that cannot be decoded
            raise InputError(f"the frame: not a readable image ({error})") from error
        size = shrunk_size(pixels.shape[1], pixels.shape[0], self.short_side)
        fitted = pixels if size is None else shrink(pixels, size)
        return np.ascontiguousarray(resize(fitted, self.size).transpose(2, 0, 1))


def index_protocol(index: PlaceIndex) -> Protocol:
    """Parse the protocol that an index was built under.

    Raises:
        ContractError: When it names none.
    """
    return protocols.parse(index.manifest.inputs.get("protocol", {}), index.path / "manifest.json")


def index_form(index: PlaceIndex, model_size: tuple[int, int] | None) -> FrameForm:
    """Read from an index in which form its frames were stored.

    Args:
        index: An index built from a dataset.
        model_size: (height, width) that the model resizes frames to; None for a model that keeps their size, which
            then gets all frames at the database's one size.

    Returns:
        The form for frames to search for.
    """
    inputs = index.manifest.inputs
    settings = {name: inputs[name] for name in ("keep_png", "short_side", "quality", "raw") if name in inputs}
    return FrameForm(**settings, size=None if model_size else inputs["frame_size"])


def _image_of_array(array: npt.NDArray[Any]) -> Image.Image:
    """A Pillow image of pixels (H, W) or (H, W, C). Raises: ContractError for another shape or type."""
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    # 16 bits of grey are taken as a build takes a PNG of them.
    is_deep = array.dtype == np.uint16 and channels == 1
    if (array.dtype != np.uint8 and not is_deep) or channels not in _CHANNELS or not array.size:
        raise ContractError(
            f"a frame of shape {array.shape}, {array.dtype}: uint8 (H, W, 3) in RGB is needed (or (H, W) grey of "
            "8 or 16 bits, (H, W, 4) RGBA)"
        )
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and channels == 1 else array))


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a NUL byte in the name
        raise InputError(f"{path!r}: no name of a file ({error})") from error

"""How builds developed raw pictures before they stored them, so that queries can be brought to the same form.

Only RobotCar's pictures are developed (demosaiced, undistorted, cropped); other dumps store pictures as they are.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from seqdata.contracts.records import Frozen
from seqdata.frames.formats import BadImageError, check_format, open_image
from seqdata.frames.images import Pixels, to_rgb
from seqdata.sources.robotcar.images import Development, crop_pixels, demosaic, develop, is_mosaic, parse_crop

if TYPE_CHECKING:
    from seqdata.contracts.manifest import SourceInfo  # loads polars, which a robot does not have

DEVELOPED_KINDS = ("robotcar",)
SEVERAL = "several"
# Width and height of RobotCar's raw pictures: Bumblebee XB3 and Grasshopper2.
SENSORS = {"stereo": (1280, 960), "mono": (1024, 1024)}


class RawFrames(Frozen):
    """What a build did to the raw pictures of one source.

    `kind` of the dump, `camera` (decides the Bayer pattern), `crop` as in "top1280x800" or "none", `undistort` the name
    of the lookup table or models folder, "" for none. `kind` is "several" where the sources of one dataset differ.
    """

    kind: str
    camera: str = ""
    crop: str = "none"
    undistort: str = ""

    def develop_file(self, data: bytes) -> bytes | Pixels:
        """Bring one picture file to the form of the stored frames.

        Convention: a mosaic is demosaiced and cropped. A picture in colours is cropped where it has the size of the
        camera's raw pictures, or their width; any other is taken for a frame that a build has developed already, or
        another camera's, and keeps its view.

        Args:
            data: The file's bytes.

        Returns:
            RGB pixels uint8 (H, W, 3), or the bytes themselves where nothing is to be done.

        Raises:
            BadImageError: If the file does not decode, or has to be undistorted, which needs the dump's lookup table.
        """
        image = open_image(data)
        crop = parse_crop(self.crop)
        if not is_mosaic(image) and not self._is_uncropped(image.size):
            return data
        self._refuse_unknown()
        return develop(data, Development(self.camera, None, crop))

    def develop_pixels(self, pixels: Pixels) -> Pixels:
        """Bring pixels of a camera to the form of the stored frames, as `develop_file` does with a file.

        Args:
            pixels: A mosaic uint8 (H, W), or RGB uint8 (H, W, 3).

        Returns:
            RGB pixels uint8 (H, W, 3).

        Raises:
            BadImageError: As `develop_file`.
        """
        crop = parse_crop(self.crop)
        if pixels.ndim == 3 and not self._is_uncropped((pixels.shape[1], pixels.shape[0])):
            return pixels
        self._refuse_unknown()
        colours = demosaic(pixels, self.camera) if pixels.ndim == 2 else pixels
        return colours if crop is None else crop_pixels(colours, *crop)

    def _is_uncropped(self, size: tuple[int, int]) -> bool:
        """Whether a picture of `size` (width, height) in colours still has the rows and columns that a crop cuts."""
        crop = parse_crop(self.crop)
        if crop is None:
            return False
        sensor = SENSORS["stereo" if self.camera.startswith("stereo") else "mono"]
        return size == sensor or (size[0] == crop[0] and size[1] > crop[1])

    def _refuse_unknown(self) -> None:
        """Raise BadImageError where it is not known how a raw picture is to be developed."""
        if self.kind == SEVERAL:
            raise BadImageError(
                "bad_image",
                "a raw picture, while the index holds frames of several cameras or dumps; build a dataset of the raw "
                "pictures and search with --dataset",
            )
        if self.undistort:
            raise BadImageError(
                "bad_image",
                f"a raw picture, while the frames of the index were undistorted by {self.undistort}; build a dataset "
                "of the raw pictures with the same --undistort and search with --dataset",
            )


def raw_frames(sources: "Sequence[SourceInfo]") -> RawFrames | None:
    """Collect how the pictures of a dataset were developed.

    Args:
        sources: Sources of a dataset's manifest.

    Returns:
        The record that all sources share, one of kind "several" where they differ, None where none develops pictures.
    """
    records = {
        RawFrames(
            kind=source.kind,
            # The reader's own defaults: options that nobody gave are not in a manifest.
            camera=source.options.get("camera", "stereo_left"),
            crop=source.options.get("crop", "none"),
            undistort=source.options.get("undistort", ""),
        )
        if source.kind in DEVELOPED_KINDS
        else None
        for source in sources
    }
    return records.pop() if len(records) == 1 else RawFrames(kind=SEVERAL)


def rgb_of_image(image: Image.Image, raw: RawFrames | None) -> Pixels:
    """RGB pixels uint8 (H, W, 3) of a Pillow image, developed where it is raw.

    Raises:
        BadImageError: When the picture is damaged.
    """
    check_format(image)
    if raw is None:
        return to_rgb(image)
    return raw.develop_pixels(np.asarray(image) if image.mode == "L" else to_rgb(image))

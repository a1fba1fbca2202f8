"""Localization frame by frame: features of the last frames are kept, and a full window gives a place."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.localizer.frame_form import Picture
from indexer.localizer.pack import FRAMES, INDEX, WINDOW, read_pack
from indexer.localizer.places import nearest_places
from indexer.localizer.programs import load_program
from indexer.place_index import open_index
from seqdata.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """The nearest place of the last window of frames, given by the centre frame of that database window.

    `key` of that frame, its `city`, `trajectory` and `position` there; `distance` (plain L2) and `similarity` of the
    two descriptors. `confidence`, from 0 to 1, is the precision that accepting every validation query up to this
    distance had (see `indexer.localizer.reject.Calibration`), None in a pack without calibration. `accepted`: whether
    the distance is within the pack's threshold, True where there is none.

    Convention: degrees; UTM metres of `zone`; heading in degrees clockwise from north, None where unknown.
    """

    key: str
    city: str
    trajectory: str
    position: int
    latitude: float
    longitude: float
    zone: str
    easting: float
    northing: float
    heading: float | None
    distance: float
    similarity: float
    confidence: float | None
    accepted: bool


class Localizer:
    """Finds the place of a camera from a pack: `push` its frames in driving order, spaced about as the database's.

    One instance follows one camera, in one thread.

    Example:
        >>> localizer = Localizer("place.pack")  # doctest: +SKIP
        >>> for frame in camera:  # doctest: +SKIP
        ...     place = localizer.push(frame)  # None until a window is full, or when nothing is near enough
    """

    def __init__(self, pack: str | Path, *, keep_rejected: bool = False) -> None:
        """Open a pack.

        Args:
            pack: Its folder.
            keep_rejected: Return places beyond the threshold too, with `accepted` False.

        Raises:
            InputError: If there is no pack.
            ContractError: If a file is damaged or foreign; it is named.
            MissingDependencyError: If PyTorch is not installed.
        """
        folder = Path(pack)
        self.manifest = read_pack(folder)
        self.keep_rejected = keep_rejected
        self._encode = load_program(folder / FRAMES)
        self._fuse = load_program(folder / WINDOW)
        self.index = open_index(folder / INDEX, check=False)  # hashed with the rest of the pack
        self._ring: deque[Tensor] = deque(maxlen=self.manifest.length)
        if self.index.id != self.manifest.index:
            raise ContractError(f"{folder / INDEX}: version {self.index.id}, the pack's is {self.manifest.index}")

    @property
    def length(self) -> int:
        """Number of frames in a window; the first place comes with the frame of this number."""
        return self.manifest.length

    def reset(self) -> None:
        """Forget the frames so far, for a new drive."""
        self._ring.clear()

    def push(self, image: Picture) -> Place | None:
        """Add one frame and find the place of the window that it completes.

        Args:
            image: Pixels uint8 (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA, a Pillow image, the bytes of an image
                file, or its path (see `FrameForm.pixels`).

        Returns:
            The nearest place; None until a window is full, and when the place is beyond the threshold (but see
            `keep_rejected`).

        Raises:
            InputError: If a file cannot be read.
            ContractError: If the image is none of these. The window then stays as it was.
        """
        import torch  # heavy: a pack can be inspected without it

        with torch.inference_mode():
            # Encoded before it is appended: a picture that fails leaves the window as it was.
            self._ring.append(self._features(image))
            if len(self._ring) < self.length:
                return None
            descriptor = self._fuse(torch.cat(list(self._ring))).float().numpy()
        places = nearest_places(self.index, descriptor, 1)[0]
        place = self._judge(places[0]) if places else None
        return place if place is not None and (place.accepted or self.keep_rejected) else None

    def _features(self, image: Picture) -> "Tensor":
        """Features (1, ...) float32 of a frame."""
        import torch  # heavy: as in `push`
        import torch.nn.functional as F  # heavy

        frame = torch.from_numpy(self.manifest.form.pixels(image))[None].float()
        size = self.manifest.size
        # As `train` resizes frames for a model with a size of its own; the exported program takes one size only.
        if tuple(frame.shape[-2:]) != size:
            frame = F.interpolate(frame, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self._encode(frame)

    def _judge(self, row: dict[str, Any]) -> Place:
        """A place from a row of `nearest_places`, accepted or not by the pack's threshold."""
        calibration, distance = self.manifest.calibration, row["distance"]
        fields = {name: row[name] for name in Place.__dataclass_fields__ if name in row}
        if calibration is None:
            return Place(**fields, confidence=None, accepted=True)
        accepted = distance <= calibration.threshold
        return Place(**fields, confidence=calibration.confidence(distance), accepted=accepted)

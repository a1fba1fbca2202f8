"""Where am I? Frames one by one, a ring of what the model keeps of each, and a place when a window is full."""

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
    """The nearest place of the last window of frames: what is known of that database window's centre frame.

    `key` of that frame, its `city`, `trajectory` and `position` there; `distance` (plain L2) and `similarity` of the
    two descriptors. `confidence`, from 0 to 1, is the precision that accepting every validation query up to this
    distance had (see `indexer.localizer.reject.Calibration`), None in a pack without calibration. `accepted`:
    whether the
    distance is within the pack's threshold, True where there is none.

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
    """A pack at work: `push` frames in driving order, about as far apart as the database's.

    One instance follows one camera, in one thread. Example::

        here = indexer.Localizer("place.pack")
        for frame in camera:            # uint8 (H, W, 3) RGB, JPEG bytes, or a path
            place = here.push(frame)    # None while the ring fills, or when nothing is near enough
    """

    def __init__(self, pack: str | Path, *, keep_rejected: bool = False) -> None:
        """Open a pack; with `keep_rejected` places beyond the threshold are returned too, `accepted` False.

        Raises: InputError when there is none, ContractError naming a damaged or foreign file, MissingDependencyError
        without torch.
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
        """Frames in a window: the first place comes with the frame of this number."""
        return self.manifest.length

    def reset(self) -> None:
        """Forget the frames so far, for a new drive."""
        self._ring.clear()

    def push(self, image: Picture) -> Place | None:
        """The place after one more frame: pixels uint8 (H, W, 3) RGB, an encoded image's bytes, or a file's path.

        None while the ring fills, and when the nearest place is beyond the threshold (see `keep_rejected`).
        Raises: InputError for a file that cannot be read, ContractError for another array; the ring then stays as it
        was.
        """
        import torch

        with torch.inference_mode():
            self._ring.append(self._features(image))
            if len(self._ring) < self.length:
                return None
            descriptor = self._fuse(torch.cat(list(self._ring))).float().numpy()
        found = nearest_places(self.index, descriptor, 1)[0]
        place = self._judge(found[0]) if found else None
        return place if place is not None and (place.accepted or self.keep_rejected) else None

    def _features(self, image: Picture) -> "Tensor":
        """What the model keeps of a frame: (1, ...) float32."""
        import torch
        import torch.nn.functional as F

        frame = torch.from_numpy(self.manifest.form.pixels(image))[None].float()
        size = self.manifest.size
        if tuple(frame.shape[-2:]) != size:
            frame = F.interpolate(frame, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self._encode(frame)

    def _judge(self, found: dict[str, Any]) -> Place:
        calibration, distance = self.manifest.calibration, found["distance"]
        fields = {name: found[name] for name in Place.__dataclass_fields__ if name in found}
        if calibration is None:
            return Place(**fields, confidence=None, accepted=True)
        accepted = distance <= calibration.threshold
        return Place(**fields, confidence=calibration.confidence(distance), accepted=accepted)

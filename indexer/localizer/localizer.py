"""Localization frame by frame: features of the last frames are kept, and a full window gives a place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from indexer.localizer.forward_filter import ForwardFilter
from indexer.localizer.frame_form import Picture
from indexer.localizer.pack import FRAMES, INDEX, WINDOW, read_pack
from indexer.localizer.places import place_rows
from indexer.localizer.programs.session import load_program
from indexer.localizer.window_ring import Cut, WindowRing
from indexer.place_index import open_index
from seqdata.contracts.facts import Facts
from seqdata.errors import ContractError
from seqdata.frames.images import Pixels
from seqdata.geometry import BoolArray, Float32Array, Float64Array, IntArray

Filter = Literal["none", "forward"]
FILTERS: tuple[Filter, ...] = ("none", "forward")
Colours = Literal["rgb", "bgr"]
ELSEWHERE = 25.0
"""Metres from the nearest place at which another one counts as a different answer: the field's usual radius."""
_CANDIDATES = 20
"""Windows among which the runner-up is looked for: those beside the nearest place come first."""


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


@dataclass(frozen=True)
class PreparedFrame:
    """A frame as the frame program takes it, float32 (1, 3, H, W) in 0…255: see `Localizer.prepare`."""

    array: Float32Array


@dataclass(frozen=True)
class Sighting:
    """What a full window led to: its place, accepted or not, and the nearest place that lies elsewhere.

    `row` of the place in the index. `runner_up` is at least 25 m away or in another zone, None where none of the
    nearest windows is. `belief` is the filter's share of the place and the places beside it, None without a filter.
    `centre` is the label of the window's centre frame, which is where the place is.
    """

    place: Place
    row: int
    runner_up: Place | None
    belief: float | None = None
    centre: object = None


class Localizer(Facts):
    """Finds the place of a camera from a pack: `push` its frames in driving order.

    One instance follows one camera, in one thread.

    Example:
        >>> localizer = Localizer("place.pack")  # doctest: +SKIP
        >>> for frame in camera:  # doctest: +SKIP
        ...     place = localizer.push(frame)  # None until a window is full, or when nothing is near enough
    """

    def __init__(
        self,
        pack: str | Path,
        *,
        keep_rejected: bool = False,
        device: str = "cpu",
        threads: int | None = None,
        motion: Filter = "none",
        colours: Colours = "rgb",
    ) -> None:
        """Open a pack.

        Args:
            pack: Its folder.
            keep_rejected: Return places beyond the threshold too, with `accepted` False.
            device: What computes descriptors: "cpu", "cuda", "tensorrt", "openvino" or "coreml".
            threads: Threads of ONNX Runtime on a CPU; None takes every core.
            motion: "forward" follows the camera over the database (see `indexer.localizer.forward_filter`).
            colours: Order of an array's channels: "bgr" for frames of OpenCV. Files and Pillow images know their own.

        Raises:
            InputError: If there is no pack.
            ContractError: If a file is damaged or foreign; it is named.
            MissingDependencyError: If ONNX Runtime is not installed, or cannot use the device here.
        """
        folder = Path(pack)
        self.manifest = read_pack(folder)
        self.keep_rejected = keep_rejected
        self._colours = colours
        self._encode = load_program(folder / FRAMES, device, threads)
        self._fuse = load_program(folder / WINDOW, device, threads)
        self.index = open_index(folder / INDEX, check=False)  # hashed with the rest of the pack
        if self.index.id != self.manifest.index:
            raise ContractError(f"{folder / INDEX}: version {self.index.id}, the pack's is {self.manifest.index}")
        if self._encode.shape != (1, 3, *self.manifest.size) or self._fuse.shape[0] != self.length:
            raise ContractError(f"{folder / FRAMES}: takes frames of another size than the pack's; pack again")
        self._ring = WindowRing(Cut(self.length, self.manifest.spacing, self.manifest.interval))
        places = self.index.places
        self._position = np.stack([places[name].to_numpy() for name in ("easting", "northing")], axis=1)
        self._zone = _codes(places["zone"])
        self._filter = ForwardFilter(_codes(places["trajectory"])) if motion == "forward" else None

    def _facts(self) -> dict[str, object]:
        calibration = self.manifest.calibration
        return {
            "places": len(self.index),
            "frames a window": self.length,
            "frame": "×".join(map(str, self.manifest.size)),
            "accepts": "every place" if calibration is None else f"up to a distance of {calibration.threshold:.4f}",
            "index": self.index.id,
        }

    @property
    def length(self) -> int:
        """Number of frames in a window; the first place comes with the frame of this number."""
        return self.manifest.length

    def reset(self) -> None:
        """Forget the frames so far, for a new drive."""
        self._ring.clear()
        if self._filter is not None:
            self._filter.reset()

    def push(self, image: Picture, time: float | None = None, odometry: float | None = None) -> Place | None:
        """Add one frame and find the place of the window that it completes.

        Without `time` and `odometry` every frame counts, so they must be spaced about as the database's. With them a
        window is cut as the index was built: by metres where it has a spacing, else by the database's median interval.
        Standing still then adds nothing, and a gap starts a new window.

        Args:
            image: Pixels uint8 (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA, uint16 (H, W) grey, a Pillow image, the
                bytes of an image file, or its path (see `FrameForm.pixels`).
            time: When it was taken, in seconds of any clock.
            odometry: The way driven so far, in metres.

        Returns:
            The nearest place; None until a window is full, where the frame adds nothing to it, and when the place is
            beyond the threshold (but see `keep_rejected`).

        Raises:
            InputError: If a file cannot be read.
            ContractError: If the image is none of these. The window then stays as it was.
        """
        sighting = self.locate(image, time, odometry)
        if sighting is None or not (sighting.place.accepted or self.keep_rejected):
            return None
        return sighting.place

    def prepare(self, image: Picture) -> PreparedFrame:
        """Decode and resize a frame, in another thread say, while one before it is located.

        Errors are those of `push`.
        """
        if self._colours == "bgr" and isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] >= 3:
            image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
        return PreparedFrame(resample(self.manifest.form.pixels(image), self.manifest.size))

    def counts_every_frame(self, time: float | None, odometry: float | None) -> bool:
        """Whether a frame belongs into the window whenever it comes: nothing says how it is spaced."""
        return not self._ring.cut.measures(time, odometry)

    def locate(
        self,
        image: Picture | PreparedFrame,
        time: float | None = None,
        odometry: float | None = None,
        label: object = None,
    ) -> Sighting | None:
        """As `push`, with everything that is known of the place, whether it is accepted or not.

        `label` is whatever the caller knows the frame by; it comes back with the place of the window around it.
        """
        if not self._ring.is_due(time, odometry):
            return None
        self._ring.add(self._features(image), time, odometry, label)
        if not self._ring.is_full:
            # A window that starts anew is somewhere else: what was believed of the last one says nothing.
            if self._filter is not None:
                self._filter.reset()
            return None
        descriptor = self._fuse(np.concatenate(self._ring.features))
        distances, rows = self.index.search(descriptor, min(_CANDIDATES, len(self.index)))
        # An approximate index may reach fewer windows than it was asked for.
        is_reached = np.isfinite(distances[0])
        return self._sighting(descriptor, distances[:, is_reached], rows[:, is_reached]) if is_reached.any() else None

    def _sighting(self, descriptor: Float32Array, distances: Float32Array, rows: IntArray) -> Sighting:
        """What the nearest windows of a descriptor (1, D), distances and rows (1, k), lead to."""
        best, belief = int(rows[0, 0]), None
        if self._filter is not None:
            best = self._filter.update(distances[0], rows[0])
            belief = float(self._filter.belief[~self._is_elsewhere(best, slice(None))].sum())
        is_elsewhere = self._is_elsewhere(best, rows[0])
        runner_up = int(rows[0, is_elsewhere.argmax()]) if is_elsewhere.any() else None
        distance_of = dict(zip(rows[0].tolist(), distances[0].tolist(), strict=True))
        if best not in distance_of:
            distance_of[best] = float(self.index.search(descriptor, 1, [best])[0][0, 0])
        answer_rows = [row for row in (best, runner_up) if row is not None]
        answer = np.array([[distance_of[row] for row in answer_rows]], np.float32)
        places = [self._judge(row) for row in place_rows(self.index, descriptor, answer, np.array([answer_rows]))[0]]
        return Sighting(places[0], best, None if runner_up is None else places[1], belief, self._ring.centre)

    def positions_in(self, zone: str) -> Float64Array:
        """UTM metres (m, 2) of the database's windows in a zone."""
        codes = self.index.places["zone"].to_numpy() == zone
        metres: Float64Array = self._position[codes]
        return metres

    def _is_elsewhere(self, row: int, rows: IntArray | slice) -> BoolArray:
        """Which of the windows `rows` lie at least 25 m from the window `row`, or in another zone."""
        distances = np.hypot(*(self._position[rows] - self._position[row]).T)
        is_elsewhere: BoolArray = (distances >= ELSEWHERE) | (self._zone[rows] != self._zone[row])
        return is_elsewhere

    def _features(self, image: Picture | PreparedFrame) -> Float32Array:
        """Features (1, ...) float32 of a frame."""
        prepared = image if isinstance(image, PreparedFrame) else self.prepare(image)
        return self._encode(prepared.array)

    def _judge(self, row: dict[str, Any]) -> Place:
        """A place from a row of `nearest_places`, accepted or not by the pack's threshold."""
        calibration, distance = self.manifest.calibration, row["distance"]
        fields = {name: row[name] for name in Place.__dataclass_fields__ if name in row}
        if calibration is None:
            return Place(**fields, confidence=None, accepted=True)
        accepted = distance <= calibration.threshold
        return Place(**fields, confidence=calibration.confidence(distance), accepted=accepted)


def resample(pixels: Pixels, size: tuple[int, int]) -> Float32Array:
    """Bring a frame to the size that a model takes, as the model itself does: bilinear, antialiased, not rounded.

    Shape:
        pixels uint8 (3, H, W) -> float32 (1, 3, *size), both 0…255.

    >>> resample(np.full((3, 8, 8), 7, np.uint8), (2, 4))[0, 0].tolist()
    [[7.0, 7.0, 7.0, 7.0], [7.0, 7.0, 7.0, 7.0]]
    """
    frame = pixels.astype(np.float32)
    if frame.shape[1:] != tuple(size):
        # Pillow filters float images in one channel only; on bytes it would round twice.
        width_height = (size[1], size[0])
        channels = [Image.fromarray(channel).resize(width_height, Image.Resampling.BILINEAR) for channel in frame]
        frame = np.stack([np.asarray(channel, np.float32) for channel in channels])
    return np.ascontiguousarray(frame[None])


def _codes(column: pa.ChunkedArray) -> IntArray:
    """Number the distinct texts (n,) of a column."""
    numbers: IntArray = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return numbers

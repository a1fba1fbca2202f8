"""The one loop from a recording to a track: frames in, rows out, in memory that does not grow."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from indexer.localizer.frame_form import Picture
from indexer.localizer.localizer import Localizer, PreparedFrame
from indexer.localizer.track.files import TrackRow, row_of, track_writers
from indexer.localizer.track.recording import RecordedFrame, Recording
from indexer.localizer.track.truth import Judgement
from seqdata.frames.images import Pixels
from seqdata.frames.prefetch import prefetch

POINTS = 4000
"""Points of the map and the timeline; of a longer recording every second, fourth, … answer is shown."""
READ_AHEAD = 3
"""Frames that are read while one is located."""
STRIPS = 24
"""Answers that are shown with pictures, spread over the recording."""


@dataclass
class Sample:
    """At most `most` of the items that pass, evenly spread over them however many come."""

    most: int
    items: list[object] = field(default_factory=list)
    step: int = 1
    count: int = 0

    @property
    def takes_next(self) -> bool:
        """Whether the next item is one of the sample."""
        return self.count % self.step == 0

    def add(self, make: Callable[[], object]) -> None:
        """Let an item pass; it is made where it is one of the sample.

        >>> sample = Sample(3)
        >>> for number in range(10):
        ...     sample.add(lambda: number)
        >>> sample.items
        [0, 4, 8]
        """
        if self.takes_next:
            self.items.append(make())
        self.count += 1
        if len(self.items) > self.most:
            self.items, self.step = self.items[::2], 2 * self.step


@dataclass(frozen=True)
class ShownPoint:
    """A row of the map and the timeline, with its error in metres where the truth is known."""

    row: TrackRow
    error: float | None


@dataclass(frozen=True)
class ShownFrame:
    """A row with the picture of its frame uint8 (3, H, W)."""

    row: TrackRow
    pixels: Pixels
    place_row: int


@dataclass
class Followed:
    """What a recording led to.

    Attributes:
        frames: Frames read.
        answers: Windows that had an answer.
        accepted: Answers within the threshold.
        seconds: Taken for all of it.
        points: For the map.
        strips: For the filmstrip.
    """

    frames: int = 0
    answers: int = 0
    accepted: int = 0
    seconds: float = 0.0
    points: Sample = field(default_factory=lambda: Sample(POINTS))
    strips: Sample = field(default_factory=lambda: Sample(STRIPS))

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds else 0.0


Watch = Callable[[Followed, TrackRow | None], None]


def follow(
    localizer: Localizer,
    recordings: list[Recording],
    out: Path,
    *,
    start: float = 0.0,
    judgement: Judgement | None = None,
    watch: Watch = lambda followed, row: None,
    followed: Followed | None = None,
) -> Followed:
    """Localize recordings frame by frame into the files of a track (see `indexer.localizer.track.files`).

    Args:
        localizer: An open pack.
        recordings: One after another; the window starts anew with each.
        out: New folder of the track.
        start: Seconds that are added to every time, the moment a video begins at, say.
        judgement: Compares answers with the truth.
        watch: Called after every frame with the state so far and the row of an answer.
        followed: Filled as the recording goes, so that an interrupted one is known too.

    Returns:
        What the recordings led to.

    Raises:
        InputError: If a frame cannot be read, or a video or a camera ends early. All files are whole then.
        OutputError: If the folder holds a track, or a file cannot be written.
    """
    followed = followed or Followed()
    started = time.monotonic()
    with track_writers(out) as write:
        for recording in recordings:
            localizer.reset()
            # Decoding and resizing cost a third of a frame's time, and let the thread that encodes go on.
            for frame, image in prefetch(recording.read(), partial(_prepared, localizer), READ_AHEAD):
                row = _answer(localizer, frame, image, start, followed, judgement)
                followed.frames += 1
                followed.seconds = time.monotonic() - started
                if row is not None:
                    write(row)
                watch(followed, row)
    return followed


def _prepared(localizer: Localizer, frame: RecordedFrame) -> tuple[RecordedFrame, Picture | PreparedFrame]:
    """A frame, and what of it can be made ahead: nothing where it may turn out not to belong into a window."""
    is_certain = localizer.counts_every_frame(frame.time, frame.odometry)
    return frame, localizer.prepare(frame.picture) if is_certain else frame.picture


def _answer(
    localizer: Localizer,
    frame: RecordedFrame,
    image: Picture | PreparedFrame,
    start: float,
    followed: Followed,
    judgement: Judgement | None,
) -> TrackRow | None:
    """Localize one frame, and take note of its answer."""
    sighting = localizer.locate(image, frame.time, frame.odometry, label=frame)
    if sighting is None:
        return None
    # The place is that of the window's centre frame, not of the frame that completed the window.
    centre = cast(RecordedFrame, sighting.centre)
    row = row_of(replace(centre, time=None if centre.time is None else centre.time + start), sighting)
    error = None if judgement is None else judgement.add(row)
    followed.answers += 1
    followed.accepted += row.accepted
    followed.points.add(lambda: ShownPoint(row, error))
    followed.strips.add(lambda: ShownFrame(row, _small(localizer, centre), sighting.row))
    return row


def _small(localizer: Localizer, frame: RecordedFrame) -> Pixels:
    """The picture of a frame, every n-th pixel: enough for a page, and little memory."""
    pixels = localizer.manifest.form.pixels(frame.picture)
    step = max(1, pixels.shape[2] // 320)
    return np.ascontiguousarray(pixels[:, ::step, ::step])

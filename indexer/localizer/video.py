"""Frames of a video file, through PyAV: at their presentation times, turned as a player shows them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.images import Pixels

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts")
# Presentation times are multiples of the stream's time base, 1/fps is not: a frame this much early is on time.
_TOLERANCE_SECONDS = 1e-6


def is_video(path: Path) -> bool:
    """Whether a file's name ends like a video's.

    >>> is_video(Path("drive.MP4")), is_video(Path("drive.jpg"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES


def video_frames(path: Path, *, every: int = 1, fps: float | None = None) -> Iterator[tuple[int, Pixels]]:
    """Read a video's frames, one in memory at a time.

    Convention: times are presentation times from the video's first frame, so a variable frame rate is honoured; frames
    are turned as the file's display matrix says (phones store them lying on a side).

    Args:
        path: The video.
        every: Take every n-th frame, from the first.
        fps: Take the first frame of each 1/fps seconds instead; of a slower video, all frames.

    Yields:
        A frame's number from 0, and its pixels uint8 (H, W, 3) RGB.

    Raises:
        ContractError: If both are given, or a value is not above zero.
        InputError: If the file is no readable video.
        MissingDependencyError: If PyAV is not installed.
    """
    if every < 1 or (fps is not None and not fps > 0) or (fps is not None and every != 1):
        raise ContractError(f"every {every}, fps {fps}: give one of them, above zero")
    next_seconds = 0.0
    for number, (seconds, pixels) in enumerate(timed_frames(path)):
        if fps is None:
            if number % every == 0:
                yield number, pixels
        elif seconds >= next_seconds - _TOLERANCE_SECONDS:
            # The next frame is due at the next multiple of 1/fps, not 1/fps after this one: late frames do not add up.
            next_seconds = (int((seconds + _TOLERANCE_SECONDS) * fps) + 1) / fps
            yield number, pixels


def camera_frames(address: str) -> Iterator[tuple[float, Pixels]]:
    """Read a live camera or stream through PyAV, until it ends.

    Args:
        address: A V4L2 device (/dev/video0), or the address of a stream (rtsp://…).

    Yields:
        Seconds since the first frame, and pixels uint8 (H, W, 3) RGB.

    Raises:
        InputError: If it cannot be opened, or disappears.
        MissingDependencyError: If PyAV is not installed.
    """
    return timed_frames(address, "v4l2" if address.startswith("/dev/") else None)


def timed_frames(path: Path | str, kind: str | None = None) -> Iterator[tuple[float, Pixels]]:
    """Read every frame of a video: seconds since the first one, and pixels uint8 (H, W, 3) RGB as a player shows them.

    `kind` names the form of the input where the file does not tell it. Errors are those of `video_frames`.
    """
    try:
        import av  # optional: the extra `video`
    except ImportError as error:
        raise MissingDependencyError(f"{path}: reading a video needs PyAV: pip install 'av>=15'") from error
    count = 0
    start = 0.0
    try:
        with av.open(str(path), format=kind) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video, only sound or other streams")
            for count, frame in enumerate(container.decode(video=0), start=1):
                # A frame without a time (raw streams have none) keeps its place by the mean rate.
                seconds = frame.time
                if seconds is None:
                    rate = container.streams.video[0].average_rate or 1
                    seconds = start + float((count - 1) / rate)
                if count == 1:
                    start = float(seconds)
                yield (
                    float(seconds) - start,
                    _upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), frame.rotation),
                )
    except (av.FFmpegError, OSError, ValueError) as error:
        if count:
            raise InputError(f"{path}: ends after {count} frames: cut off, damaged or gone ({error})") from error
        raise InputError(f"{path}: not a readable video ({error})") from error
    if not count:
        raise InputError(f"{path}: not a readable video (it has no frame)")


def _upright(pixels: Pixels, rotation_degrees: float) -> Pixels:
    """Pixels (H, W, 3) turned counterclockwise by the display matrix's rotation, which is a multiple of 90 degrees."""
    quarter_turns = round(rotation_degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns))

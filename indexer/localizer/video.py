"""Frames of a video file, through PyAV or OpenCV, whichever is installed."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.images import Pixels

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts")
_EARLY = 1e-6


def is_video(path: Path) -> bool:
    """Whether a file's name ends like a video's."""
    return path.suffix.lower() in SUFFIXES


def video_frames(path: Path, *, every: int = 1, fps: float | None = None) -> Iterator[tuple[int, Pixels]]:
    """Number from 0 and pixels uint8 (H, W, 3) RGB of a video's frames, one in memory at a time.

    Every `every`-th frame, or with `fps` the first frame of each 1/fps seconds; a slower video gives all its frames.
    Raises: ContractError for both at once or a value that is not positive, InputError when the file is no readable
    video, MissingDependencyError without PyAV and OpenCV.
    """
    if every < 1 or (fps is not None and not fps > 0) or (fps is not None and every != 1):
        raise ContractError(f"every {every}, fps {fps}: give one of them, above zero")
    read = _read_av if find_spec("av") is not None else _read_cv2
    due = 0.0
    for number, (seconds, pixels) in enumerate(read(path)):
        if fps is None:
            if number % every == 0:
                yield number, pixels
        elif seconds >= due - _EARLY:
            due = (int((seconds + _EARLY) * fps) + 1) / fps
            yield number, pixels


def _read_av(path: Path) -> Iterator[tuple[float, Pixels]]:
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield float(frame.time or 0.0), frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, OSError) as error:
        raise InputError(f"{path}: not a readable video ({error})") from error


def _read_cv2(path: Path) -> Iterator[tuple[float, Pixels]]:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(f"{path}: frames of a video need PyAV or OpenCV: pip install av") from error
    video = cv2.VideoCapture(str(path))
    try:
        rate = video.get(cv2.CAP_PROP_FPS) or 1.0
        number = 0
        while True:
            there, frame = video.read()
            if not there:
                break
            yield number / rate, np.ascontiguousarray(frame[..., ::-1])
            number += 1
        if number == 0:
            raise InputError(f"{path}: not a readable video")
    finally:
        video.release()

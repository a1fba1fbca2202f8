"""Frames to search for: image folders and files, video files, in the form of an index's frames."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.video import is_video, video_frames
from seqdata.errors import InputError
from seqdata.frames.images import Pixels
from seqdata.sources.files import is_image

NamedFrame = tuple[str, Pixels]
"""A frame's name, and its pixels uint8 (3, H, W)."""


@dataclass(frozen=True)
class FrameSequence:
    """Frames in driving order: `read` yields them one at a time."""

    name: str
    read: "partial[Iterator[NamedFrame]]"


@dataclass(frozen=True)
class VideoRate:
    """Which frames of a video are taken: every `every`-th, or `fps` a second."""

    every: int = 1
    fps: float | None = None


def frame_sequences(paths: list[Path], form: FrameForm, rate: VideoRate) -> list[FrameSequence]:
    """Group paths into sequences: each folder and each video is one; single images make one together, the first.

    Args:
        paths: Folders of images (read in natural order of their names), videos, and image files (in the given order).
        form: The form that frames are brought to.
        rate: Which frames of a video are taken.

    Returns:
        The sequences; nothing but folders is read yet.

    Raises:
        InputError: If there is nothing at a path.
    """
    sequences, files = [], []
    for path in paths:
        if path.is_dir():
            images = sorted((file for file in path.iterdir() if is_image(file.name)), key=_natural_order)
            sequences.append(FrameSequence(str(path), partial(_images, images, form)))
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif is_video(path):
            sequences.append(FrameSequence(str(path), partial(_video, path, form, rate)))
        else:
            files.append(path)
    return [FrameSequence("the files", partial(_images, files, form)), *sequences] if files else sequences


def _images(files: list[Path], form: FrameForm) -> Iterator[NamedFrame]:
    for file in files:
        yield str(file), form.pixels(file)


def _video(path: Path, form: FrameForm, rate: VideoRate) -> Iterator[NamedFrame]:
    for number, pixels in video_frames(path, every=rate.every, fps=rate.fps):
        yield f"{path}#{number}", form.pixels(pixels)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2.jpg before 10.jpg."""
    # -1 sorts text before numbers at the same position, and lets both compare.
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

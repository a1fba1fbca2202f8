"""Frames to search for: image folders and files, video files, in the form of an index's frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.video import is_video, video_frames
from seqdata.errors import InputError, NotEnoughDataError
from seqdata.frames.images import Pixels
from seqdata.sources.driving_order import Order, image_drives

NamedFrame = tuple[str, Pixels]
"""A frame's name, and its pixels uint8 (3, H, W)."""


@dataclass(frozen=True)
class FrameSequence:
    """Frames in driving order: `read` yields them one at a time.

    `order` says what the order comes from; `count` is the number of frames, None for a video, which is not read yet.
    """

    name: str
    read: "partial[Iterator[NamedFrame]]"
    order: str
    count: int | None = None


@dataclass(frozen=True)
class VideoRate:
    """Which frames of a video are taken: every `every`-th, or `fps` a second."""

    every: int = 1
    fps: float | None = None


@dataclass(frozen=True)
class FrameOrder:
    """In which order the images of a folder are read: see `seqdata.sources.driving_order.image_drives`."""

    order: Order = "auto"
    table: Path | None = None


def frame_sequences(
    paths: list[Path],
    form: FrameForm,
    rate: VideoRate,
    *,
    length: int = 1,
    order: FrameOrder | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[FrameSequence]:
    """Group paths into sequences: each drive of a folder and each video is one; single images make one, the first.

    Args:
        paths: Folders of images, videos, and image files (in the given order).
        form: The form that frames are brought to.
        rate: Which frames of a video are taken.
        length: Frames of a window: drives of a folder that are shorter are left out, and reported.
        order: In which order the images of folders are read; by what the folder says where None.
        report: Takes a sentence about what is left out.

    Returns:
        The sequences; nothing but folders is read yet.

    Raises:
        InputError: If there is nothing at a path, or nothing says in which order a folder is read.
        ContractError: If a table that says the order is bad.
        NotEnoughDataError: If no drive of a folder is long enough for a window.
    """
    sequences, files = [], []
    for path in paths:
        if path.is_dir():
            sequences += _folder(path, form, length, order or FrameOrder(), report)
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif is_video(path):
            sequences.append(FrameSequence(str(path), partial(_video, path, form, rate), "frames of a video"))
        else:
            files.append(path)
    if not files:
        return sequences
    images = partial(_images, files, form)
    return [FrameSequence("the files", images, "files as they are named", len(files)), *sequences]


def _folder(
    folder: Path, form: FrameForm, length: int, order: FrameOrder, report: Callable[[str], None]
) -> list[FrameSequence]:
    """The drives of a folder that hold a window. Raises: NotEnoughDataError when none does."""
    drives = image_drives(folder, order.order, order.table, length)
    usable = [drive for drive in drives if len(drive.images) >= length]
    if not usable:
        most = max(len(drive.images) for drive in drives)
        runs = f"{most} frames" if len(drives) == 1 else f"{len(drives)} drives of at most {most} frames"
        raise NotEnoughDataError(f"{folder}: {runs} ({drives[0].order}), a window of this index needs {length}")
    if len(usable) < len(drives):
        frames = sum(len(drive.images) for drive in drives if len(drive.images) < length)
        report(
            f"{folder}: {len(drives) - len(usable)} of {len(drives)} drives are shorter than a window of {length} "
            f"frames; their {frames} frames are left out"
        )
    return [
        FrameSequence(drive.name, partial(_images, drive.images, form), drive.order, len(drive.images))
        for drive in usable
    ]


def _images(files: Sequence[Path], form: FrameForm) -> Iterator[NamedFrame]:
    for file in files:
        yield str(file), form.pixels(file)


def _video(path: Path, form: FrameForm, rate: VideoRate) -> Iterator[NamedFrame]:
    for number, pixels in video_frames(path, every=rate.every, fps=rate.fps):
        yield f"{path}#{number}", form.pixels(pixels)

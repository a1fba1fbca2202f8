"""Frames to search for: image folders and files, video files, in the form of an index's frames."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from indexer.localizer.frame_form import FrameForm
from indexer.localizer.video import is_video, video_frames
from indexer.place_index import PlaceIndex
from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.errors import InputError
from seqdata.frames.images import Pixels
from seqdata.sources.files import is_image
from train.models.base import SequenceModel

Labelled = tuple[str, Pixels]


@dataclass(frozen=True)
class FrameSequence:
    """Frames in driving order: `read` gives each frame's name and pixels uint8 (3, H, W), one at a time."""

    name: str
    read: "partial[Iterator[Labelled]]"


@dataclass(frozen=True)
class VideoRate:
    """Which frames of a video are taken: every `every`-th, or `fps` a second."""

    every: int = 1
    fps: float | None = None


def index_protocol(index: PlaceIndex) -> Protocol:
    """The protocol that an index was built under. Raises: ContractError when it names none."""
    return protocols.parse(index.manifest.inputs.get("protocol", {}), index.path / "manifest.json")


def frame_form(index: PlaceIndex, model: SequenceModel) -> FrameForm:
    """The form in which the index's frames were stored; a model that keeps their size gets them all at one."""
    inputs = index.manifest.inputs
    settings = {name: inputs[name] for name in ("keep_png", "short_side", "quality") if name in inputs}
    return FrameForm(**settings, size=None if model.size else inputs["frame_size"])


def sequences_of(paths: list[Path], form: FrameForm, rate: VideoRate) -> list[FrameSequence]:
    """Each folder and each video is a sequence of its own, single images make one together, which comes first.

    Raises: InputError for a path where nothing is, or a file that is neither image nor video.
    """
    found, single = [], []
    for path in paths:
        if path.is_dir():
            files = sorted((each for each in path.iterdir() if is_image(each.name)), key=_natural)
            found.append(FrameSequence(str(path), partial(_images, files, form)))
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        elif is_video(path):
            found.append(FrameSequence(str(path), partial(_video, path, form, rate)))
        else:
            single.append(path)
    together = [FrameSequence("the files", partial(_images, single, form))] if single else []
    return together + found


def _images(files: list[Path], form: FrameForm) -> Iterator[Labelled]:
    for file in files:
        yield str(file), form.pixels(file)


def _video(path: Path, form: FrameForm, rate: VideoRate) -> Iterator[Labelled]:
    for number, pixels in video_frames(path, every=rate.every, fps=rate.fps):
        yield f"{path}#{number}", form.pixels(pixels)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

"""From image files to places: cut them into windows, describe them with the index's own model, search."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from indexer.reading import PlaceIndex
from seqdata.errors import InputError, NotEnoughDataError
from seqdata.pixels import BadImageError, Pixels, decode, prepare
from seqdata.sources.base import is_image
from train.checkpoint import load_model
from train.devices import pick_device
from train.eval_stage import check_belongs
from train.sequence_model import SequenceModel

WINDOWS_A_BLOCK = 32


@dataclass(frozen=True)
class Answer:
    """One query window's nearest places: the files it was cut from, and rows of `.sequences` with their distances."""

    files: tuple[Path, ...]
    places: list[dict[str, Any]]


def search_images(
    index: PlaceIndex, run: Path, paths: list[Path], *, k: int = 5, device: str = "auto", model_from: str | None = None
) -> list[Answer]:
    """The k nearest places of each window cut from `paths`: image files, or folders of them in natural order.

    `model_from`: see `train.checkpoint.load_model`.
    Windows have the index's length and follow each other without overlap; the last one ends with the last frame.
    Raises: InputError when a path holds no readable image, NotEnoughDataError when there are fewer frames than a
    window needs, ContractError when the run is not the index's.
    """
    check_belongs(index, run)
    model = load_model(run, model_from)
    length = int(index.manifest.inputs["protocol"]["length"])
    size = None if model.size else index.manifest.inputs["frame_size"]
    read = partial(_read, size=size, keep_png=index.manifest.inputs["keep_png"])
    answers = []
    for files in _sequences(paths, length):
        windows = _windows(len(files), length)
        for start in range(0, len(windows), WINDOWS_A_BLOCK):
            block = windows[start : start + WINDOWS_A_BLOCK]
            distances, rows = index.search(_describe(model, files, block, read, device), k)
            for window, apart, found in zip(block, distances, rows, strict=True):
                answers.append(Answer(tuple(files[i] for i in window), _places(index, apart, found)))
    return answers


def _sequences(paths: list[Path], length: int) -> list[list[Path]]:
    """Each folder is a sequence of its own; single files make one together."""
    single = [path for path in paths if not path.is_dir()]
    for path in single:
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder")
    folders = [sorted((f for f in path.iterdir() if is_image(f.name)), key=_natural) for path in paths if path.is_dir()]
    sequences = ([single] if single else []) + folders
    for files, name in zip(
        sequences, [*(["the files"] if single else []), *(p for p in paths if p.is_dir())], strict=True
    ):
        if len(files) < length:
            raise NotEnoughDataError(f"{name}: {len(files)} images, a window of this index needs {length}")
    return sequences


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _windows(frames: int, length: int) -> npt.NDArray[np.int64]:
    """Frame numbers (n, L) of successive windows; the last is moved back to end with the last frame."""
    starts = list(range(0, frames - length + 1, length))
    if starts[-1] + length < frames:
        starts.append(frames - length)
    return np.asarray(starts)[:, None] + np.arange(length)


def _describe(
    model: SequenceModel,
    files: list[Path],
    windows: npt.NDArray[np.int64],
    read: Callable[[Path], Pixels],
    device: str,
) -> npt.NDArray[np.float32]:
    """Descriptors (n, D) float32, each frame read and encoded once."""
    chosen = pick_device(device)
    model = model.to(chosen).eval()
    frames, rows = np.unique(windows, return_inverse=True)
    with torch.inference_mode():
        features = [model.encode_frames(torch.from_numpy(read(files[i])[None]).to(chosen)) for i in frames]
        vectors = model.fuse_rows(torch.cat(features), torch.from_numpy(rows.reshape(windows.shape)).to(chosen))
    return vectors.float().cpu().numpy()


def _read(path: Path, *, size: tuple[int, int] | None, keep_png: bool) -> Pixels:
    """Pixels as a build would have stored them: upright, PNG through the same JPEG unless the dataset kept PNG."""
    try:
        return decode(prepare(path.read_bytes(), keep_png=keep_png).data, None if size is None else (size[0], size[1]))
    except BadImageError as error:
        raise InputError(f"{path}: {error}") from error


def _places(index: PlaceIndex, distances: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    columns = ("key", "city", "trajectory", "position", "latitude", "longitude", "zone", "easting", "northing")
    found = index.sequences.select(columns)[rows].to_dicts()
    return [
        {"rank": rank, "distance": float(apart), **place}
        for rank, (apart, place) in enumerate(zip(distances, found, strict=True), start=1)
    ]

"""From frames, a dataset's queries or stored descriptors to places, through the index's own model."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from indexer.evaluation.shared_frames import shared_pairs
from indexer.localizer.places import nearest_places
from indexer.place_index import PlaceIndex
from indexer.report.pictures import strip_uris
from indexer.report.search import SearchPanel, SearchStrip, write_search
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, NotEnoughDataError
from seqdata.frames.images import Pixels
from train.data.describe import describe
from train.data.frames import FrameSource
from train.devices import pick_device
from train.models.base import SequenceModel
from train.runs.checkpoint import load_model
from train.stages.evaluate import check_belongs
from train.stages.query_frames import FrameSequence, VideoRate, frame_form, index_protocol, sequences_of

QUERIES_A_BLOCK = 1024
PICTURED = 60
"""Answers that carry pictures of their query frames, for the page of a search."""


@dataclass(frozen=True)
class Answer:
    """One query's nearest places (see `indexer.localizer.places.nearest_places`): its name, the names of its frames,
    pictures.

    `pictures` are its frames as small JPEG data URIs, where they were asked for and the answer is among the first 60.
    """

    query: str
    frames: tuple[str, ...]
    places: list[dict[str, Any]]
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchRequest:
    """How to search: `k` places a window, the run behind the index, whether answers carry pictures.

    `model_from`: see `train.runs.checkpoint.load_model`.
    """

    run: Path
    k: int = 5
    device: str = "auto"
    model_from: str | None = None
    pictures: bool = False


def search_frames(
    index: PlaceIndex, paths: list[Path], request: SearchRequest, rate: VideoRate | None = None
) -> Iterator[Answer]:
    """The k nearest places of each window cut from image files, folders of them, and videos (see `sequences_of`).

    Windows have the index's length and follow each other without overlap; the last one ends with the last frame.
    Memory: the features of one window, whatever the length of a video.
    Raises: InputError when a path holds no readable picture, NotEnoughDataError when there are fewer frames than a
    window needs, ContractError when the run is not the index's.
    """
    check_belongs(index, request.run)
    model = load_model(request.run, request.model_from)
    sequences = sequences_of(paths, frame_form(index, model), rate or VideoRate())
    windows = _Windows(model, index_protocol(index).length, request)
    given = 0
    for sequence in sequences:
        for names, descriptor, frames in windows.of(sequence):
            shown = strip_uris(np.stack(frames)) if request.pictures and given < PICTURED else []
            given += 1
            yield Answer(sequence.name, names, nearest_places(index, descriptor, request.k)[0], tuple(shown))


class _Windows:
    """Windows of a sequence as it is read, each frame encoded once."""

    def __init__(self, model: SequenceModel, length: int, request: SearchRequest) -> None:
        self.device = pick_device(request.device)
        self.model = model.to(self.device).eval()
        self.length = length
        self.pictures = request.pictures

    def of(self, sequence: FrameSequence) -> Iterator[tuple[tuple[str, ...], npt.NDArray[np.float32], list[Pixels]]]:
        """Names, descriptor (D,) and, where pictures are wanted, frames of each window. Raises: NotEnoughDataError."""
        ring: deque[tuple[str, Tensor, Pixels]] = deque(maxlen=self.length)
        count = 0
        for count, (name, pixels) in enumerate(sequence.read(), start=1):
            ring.append((name, self._encode(pixels), pixels))
            if count % self.length == 0:
                yield self._window(ring)
        if count < self.length:
            raise NotEnoughDataError(f"{sequence.name}: {count} frames, a window of this index needs {self.length}")
        if count % self.length:
            yield self._window(ring)

    @torch.inference_mode()
    def _encode(self, pixels: Pixels) -> Tensor:
        return self.model.encode_frames(torch.from_numpy(pixels)[None].to(self.device))

    @torch.inference_mode()
    def _window(
        self, ring: deque[tuple[str, Tensor, Pixels]]
    ) -> tuple[tuple[str, ...], npt.NDArray[np.float32], list[Pixels]]:
        names, features, frames = zip(*ring, strict=True)
        descriptor = self.model.fuse(torch.cat(features).unsqueeze(0))[0].float().cpu().numpy()
        return names, descriptor, list(frames)


def search_dataset(index: PlaceIndex, dataset: Dataset, split: str, request: SearchRequest) -> Iterator[Answer]:
    """The k nearest places of every query window of a dataset's split, cut under the index's protocol.

    Places that share a frame with the query are left out, where the index was built from this very dataset.
    Raises: NotEnoughDataError when the split has no query, ContractError when the run is not the index's or the
    protocol has no such split.
    """
    check_belongs(index, request.run)
    model = load_model(request.run, request.model_from)
    protocol = index_protocol(index)
    queries = dataset.sequences(protocol, split, "query")
    if not queries.height:
        raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no query window in {dataset.location}")
    size = frame_form(index, model).size
    source = None if size is None else FrameSource(dataset, size)
    vectors = describe(model, dataset, queries, device=request.device, source=source)
    rows, keys = dataset.frame_rows(queries), dataset.frame_columns("key")["key"]
    trajectories = queries["trajectory"].to_list()
    shared = _shared(index, dataset, queries)
    deep = request.k + max(map(len, shared.values()), default=0)
    for number, found in enumerate(_in_blocks(index, vectors, deep)):
        kept = [place for place in found if place["row"] not in shared.get(number, ())][: request.k]
        places = [{**place, "rank": rank} for rank, place in enumerate(kept, start=1)]
        shown = strip_uris(dataset.read(queries, [number])[0]) if request.pictures and number < PICTURED else []
        yield Answer(trajectories[number], tuple(keys[rows[number]].to_list()), places, tuple(shown))


def _shared(index: PlaceIndex, dataset: Dataset, queries: pl.DataFrame) -> dict[int, set[int]]:
    """Rows of the index that hold a frame of a query window, by the query's row; none of another dataset's."""
    if dataset.id != index.manifest.inputs["dataset"]:
        return {}
    pairs = shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(index.sequences))
    return {query: set(rows) for query, rows in pairs.group_by("query").agg("database").rows()}


def search_descriptors(index: PlaceIndex, path: Path, k: int) -> Iterator[Answer]:
    """The k nearest places of each descriptor of a `.npy` file: (n, d) or (d,) of any float type, before PCA.

    Raises: InputError when it cannot be read, ContractError when it holds something else (pickles are not opened).
    """
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except (ValueError, EOFError) as error:
        raise ContractError(f"{path}: not a .npy file of numbers, or damaged ({error})") from error
    if not isinstance(stored, np.ndarray) or stored.ndim not in (1, 2) or stored.dtype.kind != "f":
        raise ContractError(f"{path}: floats of shape (n, {index.size}) are needed")
    vectors = np.atleast_2d(stored)
    if vectors.shape[1] != index.size:
        raise ContractError(f"{path}: descriptors of {vectors.shape[1]} numbers, this index takes {index.size}")
    for number, places in enumerate(_in_blocks(index, vectors, k)):
        yield Answer(f"{path}[{number}]", (), places)


def _in_blocks(index: PlaceIndex, vectors: npt.NDArray[Any], k: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(vectors), QUERIES_A_BLOCK):
        yield from nearest_places(index, np.asarray(vectors[start : start + QUERIES_A_BLOCK], np.float32), k)


PAGE = "search.html"

SHOWN = 3

"""Places a query whose frames are shown."""


def write_search_page(folder: Path, index: PlaceIndex, dataset: Dataset, answers: Sequence[Answer]) -> Path:
    """Write `folder/search.html`: the first 60 answers with their three nearest places.

    Raises: ContractError when the dataset is not the index's, OutputError.
    """
    if dataset.id != index.manifest.inputs["dataset"]:
        raise ContractError(f"{dataset.location}: not the dataset that the index {index.id} was built from")
    shown = answers[:PICTURED]
    note = f"Index {index.id}; {len(answers)} windows searched, the first {len(shown)} shown."
    panels = [_panel(index, dataset, answer) for answer in shown]
    return write_search(folder / PAGE, title="Search", note=note, panels=panels)


def _panel(index: PlaceIndex, dataset: Dataset, answer: Answer) -> SearchPanel:
    caption = f"{answer.frames[0]} … {answer.frames[-1]}" if answer.frames else ""
    query = SearchStrip(answer.query, caption, answer.pictures)
    return SearchPanel(query, tuple(_strip(index, dataset, place) for place in answer.places[:SHOWN]))


def _strip(index: PlaceIndex, dataset: Dataset, place: dict[str, Any]) -> SearchStrip:
    caption = (
        f"distance {place['distance']:.4f}, similarity {place['similarity']:.4f}, "
        f"{place['latitude']:.6f} {place['longitude']:.6f}"
    )
    frames = dataset.read(index.sequences, [place["row"]])[0]
    return SearchStrip(f"{place['trajectory']} #{place['position']}", caption, tuple(strip_uris(frames)))

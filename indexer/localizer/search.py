"""From a dataset's queries or stored descriptors to places; no model code is needed here."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.arrays import open_npy
from indexer.describer import Describer, check_weights
from indexer.evaluation.shared_frames import shared_pairs
from indexer.localizer.frame_form import index_form, index_protocol
from indexer.localizer.places import nearest_places
from indexer.place_index import PlaceIndex
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.frames.images import Pixels
from seqdata.sources.raw_frames import RawFrames, raw_frames

QUERIES_A_BLOCK = 1024
PICTURED = 60
"""Answers that carry pictures of their query frames, for the page of a search."""

Thumbnails = Callable[[Pixels], list[str]]
"""Turns the frames uint8 (L, 3, H, W) of a window into small pictures, as data URIs."""


@dataclass(frozen=True)
class Answer:
    """The nearest places of one query window.

    `query` names it, `frames` its frames; `places` is as `indexer.localizer.places.nearest_places` returns it.
    `pictures` are its frames as small JPEG data URIs, for the first 60 answers of a search with thumbnails.
    `order` says what the order of its frames comes from, `first` which frame of `query` its first one is (from 0).
    Places of a dataset's queries have `metres` too: the distance between the centre frames, None in another UTM zone.
    """

    query: str
    frames: tuple[str, ...]
    places: list[dict[str, Any]]
    pictures: tuple[str, ...] = ()
    order: str = ""
    first: int | None = None


def search_descriptors(index: PlaceIndex, path: Path, k: int) -> Iterator[Answer]:
    """Find the k nearest places of each descriptor in a file.

    Args:
        index: The index to search.
        path: A `.npy` file of floats (n, D) or (D,), descriptors before PCA; pickles are not opened.
        k: Places for each descriptor.

    Yields:
        One answer a descriptor, in the file's order.

    Raises:
        InputError: If the file cannot be read.
        ContractError: If it holds anything else.
    """
    array = open_npy(path)
    if array.ndim not in (1, 2) or array.dtype.kind != "f":
        raise ContractError(f"{path}: floats of shape (n, {index.size}) are needed")
    vectors = np.atleast_2d(array)
    if vectors.shape[1] != index.size:
        raise ContractError(f"{path}: descriptors of {vectors.shape[1]} numbers, this index takes {index.size}")
    for number, places in enumerate(_search_in_blocks(index, vectors, k)):
        yield Answer(f"{path}[{number}]", (), places)


def search_dataset(
    index: PlaceIndex,
    dataset: Dataset,
    split: str,
    describer: Describer,
    k: int,
    thumbnails: Thumbnails | None = None,
) -> Iterator[Answer]:
    """Find the k nearest places of every query window of a dataset's split, cut under the index's protocol.

    Places that share a frame with the query are left out where the index was built from this very dataset.

    Args:
        index: The index to search, built from a dataset.
        dataset: Holds the queries.
        split: A split of the index's protocol.
        describer: The model that the index was built with.
        k: Places for each window.
        thumbnails: Makes the pictures of an answer; None for none.

    Yields:
        One answer a query window, in table order.

    Raises:
        NotEnoughDataError: If the split has no query.
        ContractError: If the model is not the index's, the protocol has no such split, or the frames of the two were
            cropped or undistorted differently.
    """
    check_weights(describer, index.id, index.manifest.inputs["checkpoint"])
    check_same_form(index, dataset)
    protocol = index_protocol(index)
    queries = dataset.sequences(protocol, split, "query")
    if not queries.height:
        raise NotEnoughDataError(f"protocol {protocol.name}, split {split}: no query window in {dataset.location}")
    vectors = describer.vectors(dataset, queries, frame_size=index_form(index, None).size)
    rows, keys = dataset.frame_rows(queries), dataset.frame_columns("key")["key"]
    trajectories, centres = queries["trajectory"].to_list(), queries["centre"].to_list()
    truth = dataset.frame_columns("zone", "easting", "northing")
    overlaps = _overlaps(index, dataset, queries)
    # So many more places are searched for that k remain after the overlapping ones are removed.
    depth = k + max(map(len, overlaps.values()), default=0)
    for number, places in enumerate(_search_in_blocks(index, vectors, depth)):
        others = [place for place in places if place["row"] not in overlaps.get(number, ())][:k]
        metres = (_metres(place, truth, centres[number]) for place in others)
        ranked = [
            {**place, "rank": rank, "metres": distance}
            for rank, (place, distance) in enumerate(zip(others, metres, strict=True), start=1)
        ]
        has_pictures = thumbnails is not None and number < PICTURED
        pictures = thumbnails(dataset.read(queries, [number])[0]) if thumbnails is not None and has_pictures else []
        names = tuple(keys[rows[number]].to_list())
        yield Answer(trajectories[number], names, ranked, tuple(pictures), f"protocol {protocol.label}")


def _metres(place: dict[str, Any], truth: pl.DataFrame, row: int) -> float | None:
    """Metres from a place to a frame of the dataset; None where they lie in different zones."""
    zone, easting, northing = truth.row(row)
    # Eastings count from each zone's own meridian, so a difference across zones is no distance.
    if zone != place["zone"]:
        return None
    return math.hypot(place["easting"] - easting, place["northing"] - northing)


def check_same_form(index: PlaceIndex, dataset: Dataset) -> None:
    """Raise ContractError when raw pictures were cropped or undistorted differently in an index and in a dataset.

    Pictures of different cameras may be compared: only what changes the geometry of a frame has to agree.
    """
    record = index.manifest.inputs.get("raw")
    ours, theirs = None if record is None else RawFrames(**record), raw_frames(dataset.manifest.sources)
    if ours is None or theirs is None or ours.kind != theirs.kind:
        return
    for option in ("crop", "undistort"):
        built, query = getattr(ours, option) or "none", getattr(theirs, option) or "none"
        if built != query:
            raise ContractError(
                f"{dataset.location}: built with --{option} {query}, the index {index.id} from frames with --{option} "
                f"{built}; build the queries with --{option} {built}"
            )


def _overlaps(index: PlaceIndex, dataset: Dataset, queries: pl.DataFrame) -> dict[int, set[int]]:
    """Rows of the index that hold a frame of a query window, by the query's row; none of another dataset's."""
    if dataset.id != index.manifest.inputs["dataset"]:
        return {}
    pairs = shared_pairs(dataset.frame_rows(queries), dataset.frame_rows(index.sequences))
    return {query: set(rows) for query, rows in pairs.group_by("query").agg("database").rows()}


def _search_in_blocks(index: PlaceIndex, vectors: npt.NDArray[Any], k: int) -> Iterator[list[dict[str, Any]]]:
    """Places of descriptors (n, D), a block at a time: a mapped file is never in memory as a whole."""
    for start in range(0, len(vectors), QUERIES_A_BLOCK):
        yield from nearest_places(index, np.asarray(vectors[start : start + QUERIES_A_BLOCK], np.float32), k)

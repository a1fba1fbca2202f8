"""What an index answers to a descriptor: the nearest places with coordinates, distance and similarity."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.place_index import PlaceIndex
from seqdata.geometry import Float32Array

Similarity = Literal["cosine", "1/(1+distance)"]

COLUMNS = (
    "key",
    "city",
    "trajectory",
    "position",
    "latitude",
    "longitude",
    "zone",
    "easting",
    "northing",
    "heading",
)
UNIT_TOLERANCE = 1e-3


def similarities(
    index: PlaceIndex, descriptors: Float32Array, distances: Float32Array
) -> tuple[npt.NDArray[np.float64], list[Similarity]]:
    """Similarity (q, k) of distances (q, k), 1 for equal vectors, and how it is defined for each descriptor (q, d).

    "cosine", 1 − d²/2, where the compared vectors have unit length: those that the index normalises, and unit
    descriptors (within 0.001) where it transforms nothing. Otherwise "1/(1+distance)".
    """
    apart = distances.astype(np.float64)
    unit = np.abs(np.linalg.norm(descriptors, axis=1) - 1) <= UNIT_TOLERANCE
    cosine = (unit & (index.manifest.transform is None)) | index.manifest.normalised
    alike = np.where(cosine[:, None], 1 - apart**2 / 2, 1 / (1 + apart))
    return alike, ["cosine" if each else "1/(1+distance)" for each in cosine]


def nearest_places(index: PlaceIndex, descriptors: npt.ArrayLike, k: int) -> list[list[dict[str, Any]]]:
    """The k nearest places of each descriptor (q, d) float32, or of one (d,), nearest first.

    Each is a row with `rank` from 1, `row` (of `index.sequences`), `distance` (plain L2), `similarity` and
    `similarity_kind` (see `similarities`) and the columns of `COLUMNS`: degrees, UTM metres and heading are of the
    window's centre frame.
    Raises: as `PlaceIndex.search`.
    """
    queries = np.atleast_2d(np.asarray(descriptors, np.float32))
    distances, rows = index.search(queries, k)
    alike, kinds = similarities(index, queries, distances)
    return [_places(index, *each) for each in zip(distances, alike, kinds, rows, strict=True)]


def _places(
    index: PlaceIndex,
    distances: Float32Array,
    alike: npt.NDArray[np.float64],
    kind: Similarity,
    rows: npt.NDArray[np.int64],
) -> list[dict[str, Any]]:
    kept = np.isfinite(distances)  # an approximate index may reach fewer than k
    found = index.sequences.select(COLUMNS)[rows[kept]].to_dicts()
    numbers = zip(rows[kept].tolist(), distances[kept].tolist(), alike[kept].tolist(), strict=True)
    return [
        {"rank": rank, "row": row, "distance": apart, "similarity": close, "similarity_kind": kind, **place}
        for rank, ((row, apart, close), place) in enumerate(zip(numbers, found, strict=True), start=1)
    ]

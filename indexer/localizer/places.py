"""The nearest places of a descriptor, with coordinates, distance and similarity."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.place_index import PlaceIndex
from seqdata.geometry import Float32Array, Float64Array, IntArray

Similarity = Literal["cosine", "1/(1+distance)"]

# Float32 sums over a few thousand dimensions stay well within this; float16 vectors just do.
UNIT_TOLERANCE = 1e-3


def similarities(
    index: PlaceIndex, descriptors: Float32Array, distances: Float32Array
) -> tuple[Float64Array, list[Similarity]]:
    """Turn distances into similarities, 1 for equal vectors.

    Convention: "cosine", 1 − d²/2, where the compared vectors have unit length: those that the index normalises, and
    unit descriptors (within 0.001) where it transforms nothing. Otherwise "1/(1+distance)".

    Args:
        index: The index that was searched.
        descriptors: Queries (q, D) float32, before the index's transform.
        distances: Plain L2 distances (q, k) float32.

    Returns:
        Similarities (q, k) float64, and for each query how its similarities are defined.
    """
    precise = distances.astype(np.float64)
    has_unit_length = np.abs(np.linalg.norm(descriptors, axis=1) - 1) <= UNIT_TOLERANCE
    is_cosine = (has_unit_length & (index.manifest.transform is None)) | index.manifest.normalised
    values = np.where(is_cosine[:, None], 1 - precise**2 / 2, 1 / (1 + precise))
    return values, ["cosine" if cosine else "1/(1+distance)" for cosine in is_cosine]


def nearest_places(index: PlaceIndex, descriptors: npt.ArrayLike, k: int) -> list[list[dict[str, Any]]]:
    """Find the k nearest places of descriptors.

    Args:
        index: The index to search.
        descriptors: (q, D) or (D,), read as float32, before the index's transform.
        k: Places for each descriptor.

    Returns:
        For each descriptor its places, nearest first; fewer than k where an approximate index reaches fewer. A place
        has `rank` from 1, `row` (of `index.sequences`), `distance` (plain L2), `similarity` and `similarity_kind` (see
        `similarities`), and those of `indexer.versions.places.COLUMNS`, which are the window's centre frame's: degrees,
        UTM metres of `zone`, heading in degrees clockwise from north.

    Raises:
        ContractError: If the descriptors have another size, or are not finite.
    """
    queries = np.atleast_2d(np.asarray(descriptors, np.float32))
    return place_rows(index, queries, *index.search(queries, k))


def place_rows(
    index: PlaceIndex, descriptors: Float32Array, distances: Float32Array, rows: IntArray
) -> list[list[dict[str, Any]]]:
    """Tell the places of rows (q, k) that a search of descriptors (q, D) gave, as `nearest_places` does."""
    values, kinds = similarities(index, descriptors, distances)
    return [_places(index, *answer) for answer in zip(distances, values, kinds, rows, strict=True)]


def _places(
    index: PlaceIndex,
    distances: Float32Array,
    values: Float64Array,
    kind: Similarity,
    rows: IntArray,
) -> list[dict[str, Any]]:
    """Places of one query from its distances, similarities and rows, (k,) each."""
    is_reached = np.isfinite(distances)  # an approximate index may reach fewer than k
    places = index.places_of(rows[is_reached]).to_pylist()
    numbers = zip(rows[is_reached].tolist(), distances[is_reached].tolist(), values[is_reached].tolist(), strict=True)
    return [
        {"rank": rank, "row": row, "distance": distance, "similarity": value, "similarity_kind": kind, **place}
        for rank, ((row, distance, value), place) in enumerate(zip(numbers, places, strict=True), start=1)
    ]

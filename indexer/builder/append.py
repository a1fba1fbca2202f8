"""New sequences into an index: a new version with the transform and quantiser of the old one, nothing fitted again."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from indexer.builder.grow import Shape, check_arithmetic, grow
from indexer.pca.project import projected
from indexer.place_index import PlaceIndex
from indexer.selection.appended import recalibrate
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt, building, find_whole, resolve, sweep
from indexer.versions.manifest import VECTORS, measure, version_id
from indexer.versions.publish import seal
from seqdata.contracts.tables import table_contract


def append(
    index: str | Path,
    blocks: Iterator[npt.NDArray[np.float32]],
    places: pl.DataFrame,
    inputs: dict[str, Any],
    *,
    version: str = "latest",
) -> Path:
    """Publish a version of the index that holds what `version` holds and the new sequences after it; its folder.

    The parent stays as it is; the same again is a no-op, and where nothing is new the parent itself is returned. Search
    parameters are chosen again, and recall is measured, as in a plain build (see `indexer.selection.appended`).

    The kinds flat, fp16, ivf and imi come out in the bytes of a full build with the parent's transform and quantiser.
    Others may not: a graph (HNSW) depends on the order of insertion across threads, and FAISS encodes by products whose
    rounding depends on the block.

    Args:
        index: The named index, INDEX/<name>, or a version folder.
        blocks: The new descriptors (m, d) float32 before the transform, in the order of `places`.
        places: The new database windows; their rows go on where the old ones end.
        inputs: All that the version is then built from, any JSON; the parent's id is added to it.
        version: The parent: `latest`, a tag, an identifier or the beginning of one.

    Returns:
        The folder of the new version.

    Raises:
        InputError: If there is no such version.
        ContractError: If blocks, places or the parent do not fit, or the parent's vectors were computed by another
            arithmetic than new ones would be.
        OutputError: If the disk refuses.

    Example:
        >>> append("no/such/index", iter([]), pl.DataFrame(), {"dataset": "new drives"})
        Traceback (most recent call last):
        ...
        seqdata.errors.InputError: no/such/index: no such index; run seqdata index, or name the folder it wrote
    """
    folder = resolve(Path(index), version)
    table = table_contract("places").conform(places)
    if not len(table):
        return folder
    parent = PlaceIndex(folder)
    check_arithmetic(parent.manifest.arithmetic, parent.manifest.storage, parent.transform, folder)
    named = folder.resolve().parents[1]
    identifier = child_id(parent, inputs)
    # The id is known before anything is described: appending the same windows again costs one look at the folder.
    if find_whole(named, identifier) is not None and adopt(named, identifier):
        return named / "versions" / identifier
    return _write(named, identifier, parent, blocks, table, inputs)


def child_id(parent: PlaceIndex, inputs: dict[str, Any]) -> str:
    """The version that appending to `parent` gives, which then is built from `inputs`."""
    return version_id(
        _with_parent(parent, inputs),
        normalise=parent.manifest.normalised,
        settings=parent.manifest.settings,
        arithmetic=parent.manifest.arithmetic,
    )


def _with_parent(parent: PlaceIndex, inputs: dict[str, Any]) -> dict[str, Any]:
    return {**inputs, "parent": parent.id}


def _write(
    index: Path,
    identifier: str,
    parent: PlaceIndex,
    blocks: Iterator[npt.NDArray[np.float32]],
    table: pl.DataFrame,
    inputs: dict[str, Any],
) -> Path:
    started, phases = time.monotonic(), Phases()
    facts = parent.manifest
    shape = Shape(facts.storage, parent.transform, facts.normalised, facts.input_size, facts.size)
    with building(index, identifier) as folder:
        sweep(index)
        timed_blocks = phases.waiting("describe", blocks)
        vectors = projected(timed_blocks, len(table), parent.transform, facts.normalised)
        with phases.timed("write"):
            grow(parent.path / VECTORS, facts.rows, vectors, len(table), shape, folder / VECTORS)
        search: dict[str, Any] = {}
        measured: dict[str, Any] = {}
        # A float32 index finds all by construction: nothing to measure or to choose.
        if shape.exact != "flat":
            with phases.timed("measure"):
                search, measured = recalibrate(folder / VECTORS, facts, facts.rows + len(table))
        changed = {
            "schema_version": 2,
            "name": index.name,
            "id": identifier,
            "rows": facts.rows + len(table),
            "search": search,
            "inputs": _with_parent(parent, inputs),
            "parent": parent.id,
            # Of schema version 1; today they stand among the measured facts.
            "created": None,
            "seconds": None,
        }
        places = pl.concat([parent.sequences, table])
        seconds = {**phases, "append": time.monotonic() - started}
        manifest = facts.model_copy(update=changed)
        return seal(folder, index, manifest, places, parent.transform, measure(seconds, **measured))

"""What to index, and what that comes to: the windows, everything their vectors depend on, and the version it names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from indexer.builder.build import find_version
from indexer.builder.pipeline.samples import pca_sample
from indexer.describer import Describer
from indexer.evaluation.truth import table_key
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.fit import SOLVER, choose_route
from indexer.pca.sample_parts import FITTED
from indexer.search.kinds import KindSpec
from indexer.versions.manifest import version_id
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.frame_sizes import frame_sizes
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.sequences.windows import reversed_windows
from seqdata.sources.raw_frames import raw_frames


@dataclass(frozen=True)
class IndexRequest:
    """What to index and how.

    Args:
        out: Folder of the index; a version is published below it.
        protocol: Cuts the windows and names the splits.
        split: Split whose database windows are indexed.
        pca: Dimensions after PCA, None for no PCA.
        whiten: Divide each PCA component by its standard deviation.
        exact_pca: Solve the whole eigenproblem, whatever its size (see `indexer.pca.fit.fit`).
        sample: Windows of the training database that PCA is fitted on (16,384 in Mereu et al., Learning Sequential
            Descriptors for Sequence-based Visual Place Recognition, RA-L 2022).
        seed: Seed of the sample, of the quantiser's training and of the held-out queries.
        kind: How vectors are stored and searched.
        reverse: Describe database windows last frame first; places and ground truth stay.
        normalise: Bring vectors to unit length after PCA; None leaves it to the model
            (`Describer.normalised_after_pca`).
    """

    out: Path
    protocol: Protocol
    split: str = "test"
    pca: int | None = None
    whiten: bool = False
    exact_pca: bool = False
    sample: int = 16_384
    seed: int = 0
    kind: KindSpec = field(default_factory=KindSpec)
    reverse: bool = False
    normalise: bool | None = None


@dataclass(frozen=True)
class IndexWork:
    """A request on a dataset, resolved.

    `database` are the windows to index, `described` the same rows as the model reads them (with `reverse` last frame
    first), `sample` those that PCA is fitted on. `inputs` is everything the vectors depend on; its hash names the
    version. `origin` is recorded beside the inputs and is no part of the identity, because a run may be renamed.
    """

    database: pl.DataFrame
    described: pl.DataFrame
    sample: pl.DataFrame
    inputs: dict[str, Any]
    normalise: bool
    origin: dict[str, Any]


def index_work(dataset: Dataset, describer: Describer, request: IndexRequest) -> IndexWork:
    """Resolve a request: cut its windows and collect what their vectors depend on. No weights are loaded.

    Raises:
        NotEnoughDataError: If the split has no database window.
    """
    protocol = request.protocol
    database = dataset.sequences(protocol, request.split, "database")
    if not database.height:
        filled = [name for name in protocol.splits if dataset.sequences(protocol, name, "database").height]
        splits = " or ".join(f"--split {name}" for name in filled)
        advice = f"give {splits}" if filled else "no other split has one; name another --protocol"
        raise NotEnoughDataError(
            f"protocol {protocol.name}, split {request.split}: no database window in this dataset; {advice}"
        )
    count = None if request.pca is None else request.sample
    sampled_split, sample = pca_sample(dataset, protocol, request.split, count, request.seed)
    inputs = _inputs(dataset, describer, request, database, sampled_split, sample)
    normalise = request.normalise
    # None of the papers normalises after PCA; other models are compared by unit vectors, so the model decides.
    if normalise is None:
        normalise = request.pca is not None and describer.normalised_after_pca
    return IndexWork(database, database_windows(database, inputs), sample, inputs, normalise, {"run": describer.name})


def arithmetic_of(request: IndexRequest) -> str:
    """Name how the vectors of a request are computed, as the manifest records it."""
    return ARITHMETIC if request.pca is None else FITTED


def version_of(request: IndexRequest, work: IndexWork) -> str:
    """Name the version that a request makes."""
    return version_id(
        work.inputs,
        normalise=work.normalise,
        settings=request.kind.settings(),
        arithmetic=arithmetic_of(request),
    )


def existing_version(request: IndexRequest, work: IndexWork) -> Path | None:
    """Find the finished version of a request, None where there is none.

    Older versions counted the run's name among their inputs, and named no solver of the PCA, so those ids are looked
    for too.
    """
    older = [work.inputs]
    if not request.exact_pca and "solver" in (work.inputs["pca"] or {}):
        fitted = {name: value for name, value in work.inputs["pca"].items() if name != "solver"}
        older.append({**work.inputs, "pca": fitted})
    for inputs in [*older, *({**inputs, "run": work.origin["run"]} for inputs in older)]:
        version = find_version(request.out, inputs, normalise=work.normalise, kind=request.kind)
        if version is not None:
            return version
    return None


def database_windows(database: pl.DataFrame, inputs: Mapping[str, Any]) -> pl.DataFrame:
    """Database windows as an index with these inputs describes them: last frame first where it is reversed."""
    return reversed_windows(database) if inputs.get("reversed") else database


def check_distance(describer: Describer) -> None:
    """Raise ContractError when a model's descriptors are not compared by L2, which is all that an index can do."""
    if describer.distance != "l2":
        raise ContractError(f"{describer.name}: its descriptors are compared frame by frame, which an index cannot do")


def frame_size(dataset: Dataset, database: pl.DataFrame) -> list[int] | None:
    """[H, W] of the database's frames, None when they differ: images to search for are brought to it."""
    sizes = frame_sizes(dataset, lambda: dataset.frame_rows(database))
    return [int(side) for side in sizes.row(0)] if sizes.height == 1 else None


def stored_form(dataset: Dataset) -> dict[str, Any]:
    """What the build did to pictures, as an index records it: `keep_png`, and what is not at its default.

    Defaults stay out, so that versions of older programs keep their ids.
    """
    settings = dataset.manifest.settings
    raw = raw_frames(dataset.manifest.sources)
    return {
        **settings.model_dump(include={"short_side", "quality"}, exclude_defaults=True),
        **({} if raw is None else {"raw": raw.model_dump(mode="json")}),
        "keep_png": settings.keep_png,
    }


def _inputs(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    database: pl.DataFrame,
    sampled_split: str,
    sample: pl.DataFrame,
) -> dict[str, Any]:
    """Everything the vectors depend on; its hash names the version."""
    fitted = {
        "dimensions": request.pca,
        "whiten": request.whiten,
        "split": sampled_split,
        "windows": table_key(sample),
        "seed": request.seed,
        **_solver(request, sample.height),
    }
    return {
        **stored_form(dataset),
        # Present only where it is true: ids of versions from before the option then stay.
        **({"reversed": True} if request.reverse else {}),
        **({"computed": dict(describer.arithmetic)} if describer.arithmetic else {}),
        "dataset": dataset.id,
        "protocol": request.protocol.model_dump(mode="json"),
        "protocol_hash": request.protocol.hash,
        "split": request.split,
        "windows": table_key(database),
        "frame_size": frame_size(dataset, database),
        "model": dict(describer.model),
        "checkpoint": describer.weights,
        "pca": fitted if request.pca is not None else None,
    }


def _solver(request: IndexRequest, count: int) -> dict[str, str]:
    """How directions are found in a sample of `count` windows; nothing where that is sure to be as it always was."""
    if request.exact_pca:
        return {"solver": "exact"}
    # The descriptor's size is known to the model alone, which is not loaded here.
    may_be_randomised = request.pca is not None and choose_route(count, count, request.pca) == "randomised"
    return {"solver": SOLVER} if may_be_randomised else {}

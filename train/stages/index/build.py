"""From a run and a dataset to an index: describe a PCA sample of the training database, fit, describe, build.

The chosen split's database is described and projected in one stream; raw vectors are never kept.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import indexer
from indexer.evaluation.scoring import table_key
from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from indexer.search.kinds import KindSpec
from indexer.selection import choose as auto
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from seqdata.sequences.windows import reversed_windows
from seqdata.storage.files import read_json
from train.data.describe import describe, describe_blocks
from train.data.sample import described
from train.models.base import SequenceModel
from train.runs.checkpoint import checkpoint_stem, load_model
from train.runs.record import checkpoint_hash
from train.stages.index.samples import held_out, pca_sample

logger = logging.getLogger(__name__)

PAPERS = ("seqvlad", "netvlad", "gem-cat", "cls-cat", "cls-fc", "seqpool-cat", "seqnet", "seqmatchnet", "delta", "lstm",
          "sta", "timesformer", "r2plus1d")  # fmt: skip
"""Methods of the papers: vectors of their presets (NAME or NAME-…) are not normalised again after PCA."""
Progress = Callable[[str, int, int], None]
"""Called with (stage, windows done, windows in all)."""


@dataclass(frozen=True)
class IndexRequest:
    """What to index: run folder, split and protocol, PCA (None for none), its sample, where the index goes.

    `sample` windows of the training database (16,384 in the papers' practice) are drawn by `seed`, the same share of
    every trajectory. `model_from`: see `train.runs.checkpoint.load_model`. `kind`: how vectors are
    stored and searched. `reverse`: database windows are described last frame first, places and truth stay.
    `normalise`: L2-normalise after PCA; None does so for every model but the papers' presets.
    """

    run: Path
    out: Path
    protocol: Protocol
    split: str = "test"
    pca: int | None = None
    whiten: bool = False
    sample: int = 16_384
    seed: int = 0
    device: str = "auto"
    model_from: str | None = None
    kind: KindSpec = field(default_factory=KindSpec)
    reverse: bool = False
    normalise: bool | None = None


@dataclass(frozen=True)
class IndexWork:
    """What a request comes to: the windows to index, those that PCA is fitted on, and the version's inputs.

    `described` are the database windows as the model reads them, in the same rows; `normalise` is as resolved.
    `origin` is recorded beside the inputs, and no part of the version's identity: a run may be renamed.
    """

    database: pl.DataFrame
    described: pl.DataFrame
    sample: pl.DataFrame
    inputs: dict[str, Any]
    normalise: bool
    origin: dict[str, Any]


def build_index(dataset: Dataset, request: IndexRequest, progress: Progress | None = None) -> Path:
    """Build and publish one index version; the same inputs again return the one that is there.

    Raises: NotEnoughDataError when the split has no database, or the sample is too small for the PCA; ContractError for
    a model whose descriptors are not compared by L2.
    """
    work = index_work(dataset, request)
    existing = existing_version(request, work)
    if existing is not None and adopt(request.out, existing.name):
        return existing
    phases = Phases()
    model = index_model(request.run, request.model_from)
    transform = fit_transform(model, dataset, request, work.sample, progress, phases)
    held = (
        held_out(dataset, request.protocol, request.split, work.database, request.seed)
        if auto.measures(request.kind, work.database.height)
        else None
    )
    queries = None
    if held is not None:
        told = stage(progress, "describe held-out queries")
        with phases.timed("describe queries"):
            queries = describe(model, dataset, held.windows, device=request.device, progress=told)
    blocks = describe_blocks(
        model, dataset, work.described, device=request.device, progress=stage(progress, "describe database")
    )
    return indexer.build(
        request.out,
        blocks=blocks,
        places=dataset.places(work.database),
        transform=transform,
        inputs=work.inputs,
        normalise=work.normalise,
        kind=request.kind,
        queries=queries,
        queries_of="" if held is None else held.queries_of,
        origin=work.origin,
        seconds=phases,
    )


def existing_version(request: IndexRequest, work: IndexWork) -> Path | None:
    """The finished version of a request, also under the id that it had when the run's name was part of it, or None."""
    for inputs in (work.inputs, {**work.inputs, **work.origin}):
        found = indexer.find_version(request.out, inputs, normalise=work.normalise, kind=request.kind)
        if found is not None:
            return found
    return None


def index_work(dataset: Dataset, request: IndexRequest) -> IndexWork:
    """The windows of a request and everything that their vectors depend on.

    Raises: NotEnoughDataError when the split has no database.
    """
    protocol = request.protocol
    database = dataset.sequences(protocol, request.split, "database")
    if not database.height:
        raise NotEnoughDataError(
            f"protocol {protocol.name}, split {request.split}: no database window in this dataset; "
            f"its splits are {', '.join(protocol.splits)}"
        )
    count = None if request.pca is None else request.sample
    sampled_split, sample = pca_sample(dataset, protocol, request.split, count, request.seed)
    inputs = _inputs(dataset, request, database, sampled_split, sample)
    wanted = request.normalise
    if wanted is None:
        wanted = request.pca is not None and not of_papers(inputs["model"]["name"])
    origin = {"run": request.run.resolve().name}
    return IndexWork(database, as_described(database, inputs), sample, inputs, wanted, origin)


def of_papers(model: str) -> bool:
    """Whether a model's name is that of one of the papers' presets."""
    return any(model == method or model.startswith(f"{method}-") for method in PAPERS)


def as_described(database: pl.DataFrame, inputs: Mapping[str, Any]) -> pl.DataFrame:
    """Database windows as an index with these inputs describes them: last frame first where it is reversed."""
    return reversed_windows(database) if inputs.get("reversed") else database


def index_model(run: Path, model_from: str | None) -> SequenceModel:
    """The run's model. Raises: ContractError when its descriptors are not compared by L2."""
    model = load_model(run, model_from)
    if model.distance != "l2":
        raise ContractError(f"{run}: its descriptors are compared frame by frame, which an index cannot do")
    return model


def _inputs(
    dataset: Dataset, request: IndexRequest, database: pl.DataFrame, sampled_split: str, sample: pl.DataFrame
) -> dict[str, Any]:
    """Everything the vectors depend on; its hash names the version."""
    weights = checkpoint_stem(request.run)
    fitted = {
        "dimensions": request.pca,
        "whiten": request.whiten,
        "split": sampled_split,
        "windows": table_key(sample),
        "seed": request.seed,
    }
    # What is at its default stays out, so that older versions keep their names.
    pixels = dataset.manifest.settings.model_dump(include={"short_side", "quality"}, exclude_defaults=True)
    return {
        **pixels,
        **({"reversed": True} if request.reverse else {}),
        "dataset": dataset.id,
        "protocol": request.protocol.model_dump(mode="json"),
        "protocol_hash": request.protocol.hash,
        "split": request.split,
        "windows": table_key(database),
        "keep_png": dataset.manifest.settings.keep_png,
        "frame_size": frame_size(dataset, database),
        "model": read_json(weights.parent / f"{weights.name}.json")["model"],
        "checkpoint": checkpoint_hash(request.run),
        "pca": fitted if request.pca is not None else None,
    }


def frame_size(dataset: Dataset, database: pl.DataFrame) -> list[int] | None:
    """[H, W] of the database's frames, None when they differ: images to search for are brought to it."""
    sizes = dataset.frame_columns("height", "width")[np.unique(dataset.frame_rows(database))].unique()
    return [int(side) for side in sizes.row(0)] if sizes.height == 1 else None


def fit_transform(
    model: SequenceModel,
    dataset: Dataset,
    request: IndexRequest,
    sample: pl.DataFrame,
    progress: Progress | None,
    phases: Phases,
) -> Transform | None:
    """The PCA of the sampled windows, None where none is asked for. Raises: NotEnoughDataError."""
    if request.pca is None:
        return None
    size = model.descriptor_size(request.protocol.length)
    usable = min(sample.height - 1, size)
    if request.pca > usable:
        raise NotEnoughDataError(
            f"--pca {request.pca}: {sample.height} descriptors of {size} dimensions to fit on, more than {request.pca} "
            f"descriptors and as many dimensions are needed; --pca {usable} would work"
        )
    told = stage(progress, "describe PCA sample")
    with (
        phases.timed("describe sample"),
        described(model, dataset, sample, request.out, device=request.device, progress=told) as vectors,
        phases.timed("fit"),
    ):
        return pca.fit(vectors, request.pca, whiten=request.whiten, seed=request.seed)


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """A progress call of one stage."""
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)

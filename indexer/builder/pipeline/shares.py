"""An index described in shares (array jobs, a pool of processes, Ray), merged into the version of a plain build."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from indexer.builder import share_plan as plans
from indexer.builder import shares
from indexer.builder.pipeline.request import (
    IndexRequest,
    IndexWork,
    arithmetic_of,
    check_distance,
    existing_version,
    index_work,
    version_of,
)
from indexer.builder.pipeline.sample import describe_sample, fit_transform
from indexer.builder.pipeline.samples import HELD_OUT, held_out
from indexer.builder.share_plan import Trained
from indexer.describer import Describer, blocks_to_project
from indexer.evaluation.truth import table_key
from indexer.pca.project import project
from indexer.search import kinds
from indexer.search.pools import threads
from indexer.selection.held_out import NOT_A_ROW
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.parallel import Engine, StageProgress, run_jobs, stage_progress


@dataclass(frozen=True)
class ShareJob:
    """Share `number` (from 1) of `of` of one request over version `version` of the dataset at `dataset`.

    `threads`: how many the process that runs it may use.
    """

    dataset: str
    version: int
    describer: Describer
    request: IndexRequest
    number: int
    of: int
    threads: int

    def run(self) -> int:
        """Describe and encode the share in whatever process this is; return its windows.

        Errors are those of `write_share`.
        """
        describer = self.describer.as_worker(self.number, self.threads)
        dataset = open_dataset(self.dataset, version=self.version)
        return write_share(dataset, describer, self.request, self.number, self.of)


def write_share(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    number: int,
    of: int,
    progress: StageProgress | None = None,
) -> int:
    """Describe and encode one share of the database; a share that is there already stays as it is.

    Shares describe the sample of the PCA together; it is fitted by the one that comes first, while the others wait.

    Args:
        dataset: Dataset whose windows are indexed.
        describer: The model.
        request: What to index and how; the same for every share.
        number: Which share, from 1.
        of: Shares in all.
        progress: Called with the stage and its windows.

    Returns:
        Windows of the share.

    Raises:
        ContractError: If the kind of index needs the whole database at once; as `build_index`.
    """
    _check_kind(request)
    work = index_work(dataset, describer, request)
    rows = shares.share(work.database.height, number, of)
    if existing_version(request, work) is not None:
        return len(rows)
    check_distance(describer)
    _write_share(dataset, describer, request, work, number, of, progress)
    return len(rows)


def _write_share(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    work: IndexWork,
    number: int,
    of: int,
    progress: StageProgress | None,
) -> None:
    """Write one share of what a request comes to."""
    rows = shares.share(work.database.height, number, of)
    # Before the lock of the plan: every share describes some of the sample, and none waits while one describes all.
    if not (plans.parts_folder(request.out, version_of(request, work)) / plans.PLAN).is_file():
        describe_sample(dataset, describer, request, work, progress)
    plan = plans.prepare(
        request.out,
        work.database.height,
        work.inputs,
        lambda: _train(dataset, describer, request, work, progress),
        normalise=work.normalise,
        settings=request.kind.settings(),
        origin=work.origin,
        arithmetic=arithmetic_of(request),
    )
    blocks = blocks_to_project(
        describer,
        dataset,
        work.described[rows.start : rows.stop],
        stage_progress(progress, f"describe share {number}/{of}"),
    )
    shares.write_part(request.out, plan, number, of, blocks)


def build_in_parts(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    work: IndexWork,
    parts: int,
    progress: StageProgress | None = None,
) -> Path:
    """Describe the database part by part in this process, then join the parts; a killed build goes on with its parts.

    Args:
        dataset: Dataset whose windows are indexed.
        describer: The model.
        request: What to index and how; of a kind that can be merged.
        work: What it comes to.
        parts: Parts in all.
        progress: Called with the stage and its windows.

    Returns:
        The folder of the version.

    Raises:
        SeqdataError: As `write_share`.
    """
    for number in range(1, parts + 1):
        _write_share(dataset, describer, request, work, number, parts, progress)
    return shares.merge(request.out, version_of(request, work), dataset.places(work.database))


def _check_kind(request: IndexRequest) -> None:
    """Refuse what shares cannot give before anything is described. Raises: ContractError."""
    # What a factory string makes is known when its index is there; `indexer.builder.share_plan` refuses it then.
    if request.kind.name in kinds.KINDS and request.kind.name not in kinds.MERGEABLE:
        raise ContractError(
            f"--kind {request.kind.name} needs the whole database at once: use {', '.join(kinds.MERGEABLE)}, or build "
            "it without shares"
        )


def _train(
    dataset: Dataset, describer: Describer, request: IndexRequest, work: IndexWork, progress: StageProgress | None
) -> Trained:
    """Fit PCA, and for kinds with a quantiser that too, on the windows of the database that a plain build trains on."""
    spec, size = request.kind, describer.descriptor_size(request.protocol.length)
    total = work.database.height
    transform = fit_transform(dataset, describer, request, work, progress, Phases())
    stored_size = size if transform is None else transform.output_size
    factory = spec.factory or kinds.factory_string(spec.kind, total, stored_size)
    trained = Trained(transform, size, storage=spec.name, factory=factory)

    def project_windows(windows: pl.DataFrame, what: str) -> Float32Array:
        """Vectors (n, stored_size), projected block by block: a large sample before PCA would not fit into memory."""
        blocks = blocks_to_project(describer, dataset, windows, stage_progress(progress, f"describe {what}"))
        return np.concatenate([project(block, transform, work.normalise) for block in blocks])

    if spec.name == "flat":
        return trained
    if spec.name == "fp16":
        rows = kinds.spread_rows(total, HELD_OUT, spec.seed + 1)
        return replace(trained, held_out=(rows, project_windows(work.described[rows], "held-out queries")))
    index = kinds.create(factory, stored_size, check=spec.factory is not None)
    rows = kinds.training_rows(index, total, spec.seed)
    sample = project_windows(work.described[rows], "training sample")
    kinds.train(index, sample, spec.seed, factory)
    # The number of threads stands in the plan: k-means of FAISS adds up in another order with another number.
    trained = replace(trained, index=index, seed=spec.seed, threads=threads())
    queries = held_out(dataset, request.protocol, request.split, work.database, request.seed)
    if queries is None:
        # `seed + 1`: another draw than the quantiser's training rows.
        spread = kinds.spread_rows(len(rows), HELD_OUT, spec.seed + 1)
        return replace(trained, held_out=(rows[spread], sample[spread]))
    vectors = project_windows(queries.windows, "held-out queries")
    return replace(trained, held_out=(np.full(len(vectors), NOT_A_ROW), vectors), queries_of=queries.queries_of)


def merge_shares(dataset: Dataset, index: Path, identifier: str) -> Path:
    """Merge the shares of a version into it.

    Args:
        dataset: The dataset that the shares were described from.
        index: Folder of the index.
        identifier: The version's id.

    Returns:
        The folder of the version.

    Raises:
        ContractError: If the dataset cuts other windows now, or shares are missing (they are named).
    """
    folder = plans.parts_folder(index, identifier)
    plan = plans.read_plan(folder)
    protocol = protocols.parse(plan.inputs["protocol"], folder / plans.PLAN)
    database = dataset.sequences(protocol, plan.inputs["split"], "database")
    if table_key(database) != plan.inputs["windows"]:
        raise ContractError(f"{dataset.location}: cuts other windows than the shares of {identifier} hold")
    return shares.merge(index, identifier, dataset.places(database))


def build_in_shares(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    engine: Engine,
    workers: int,
    progress: StageProgress | None = None,
) -> Path:
    """Describe `workers` shares at once, then merge them.

    Args:
        dataset: Dataset whose windows are indexed.
        describer: The model; it is pickled to the workers, each loads its own.
        request: What to index and how.
        engine: What runs the workers, "pool" or "ray".
        workers: Shares, and processes at once.
        progress: Called with the stage and its windows.

    Returns:
        The folder of the version.

    Raises:
        OutputError: If a worker dies; otherwise as `build_index`.
    """
    _check_kind(request)
    work = index_work(dataset, describer, request)
    existing = existing_version(request, work)
    if existing is not None and adopt(request.out, existing.name):
        return existing
    # Workers share the cores: more threads than cores would only take turns.
    threads = max(1, (os.cpu_count() or 1) // workers)
    request = replace(request, out=request.out.resolve())
    jobs = [
        ShareJob(dataset.address, dataset.manifest.version, describer, request, number, workers, threads)
        for number in range(1, workers + 1)
    ]
    finished = 0
    for windows in run_jobs(jobs, engine, workers, on_devices=True):
        finished += windows
        if progress is not None:
            progress("describe in shares", finished, work.database.height)
    return shares.merge(request.out, version_of(request, work), dataset.places(work.database))

"""An index described in shares (array jobs, a pool of processes, Ray), merged into the version of a plain build."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

import indexer
import seqdata
from indexer.builder import share_plan as plans
from indexer.builder import shares as sharded
from indexer.builder.share_plan import Trained
from indexer.evaluation.scoring import table_key
from indexer.pca.project import project
from indexer.search import kinds
from indexer.search.pools import threads
from indexer.selection.held_out import NOT_A_ROW
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.geometry import Float32Array
from seqdata.parallel import Engine, run_jobs
from train.data.describe import describe_blocks
from train.models.base import SequenceModel
from train.stages.index.build import (
    IndexRequest,
    IndexWork,
    Progress,
    existing_version,
    fit_transform,
    index_model,
    index_work,
    stage,
)
from train.stages.index.samples import HELD_OUT, held_out

NOT_MERGED = ("hnsw", "pq", "auto")


@dataclass(frozen=True)
class ShareJob:
    """Share `number` (from 1) of `of` of one request over version `version` of the dataset at `dataset`."""

    dataset: str
    version: int
    request: IndexRequest
    number: int
    of: int
    threads: int

    def run(self) -> int:
        """Describe and encode the share, in whatever process this is; its windows. Raises: as `write_share`."""
        import torch

        torch.set_num_threads(self.threads)
        return write_share(seqdata.open(self.dataset, version=self.version), self.request, self.number, self.of)


def write_share(dataset: Dataset, request: IndexRequest, number: int, of: int, progress: Progress | None = None) -> int:
    """Describe and encode one share of the database; how many windows it has. A share that is there already is kept.

    PCA is fitted by whichever share comes first, while the others wait.
    Raises: as `train.stages.index.build.build_index`.
    """
    _check_kind(request)
    work = index_work(dataset, request)
    rows = sharded.share(work.database.height, number, of)
    if existing_version(request, work) is not None:
        return len(rows)
    model = index_model(request.run, request.model_from)

    plan = plans.prepare(
        request.out,
        work.database.height,
        work.inputs,
        lambda: _train(model, dataset, request, work, progress),
        normalise=work.normalise,
        settings=request.kind.settings(),
        origin=work.origin,
    )
    blocks = describe_blocks(
        model,
        dataset,
        work.described[rows.start : rows.stop],
        device=request.device,
        progress=stage(progress, f"describe share {number}/{of}"),
    )
    sharded.write_part(request.out, plan, number, of, blocks)
    return len(rows)


def _check_kind(request: IndexRequest) -> None:
    """Refuse what shares cannot give before anything is described. Raises: ContractError."""
    if request.kind.name in NOT_MERGED:
        raise ContractError(
            f"--kind {request.kind.name} needs the whole database at once: use flat, fp16, ivf or imi, or build it "
            "without shares"
        )


def _train(
    model: SequenceModel, dataset: Dataset, request: IndexRequest, work: IndexWork, progress: Progress | None
) -> Trained:
    """PCA, and for kinds with a quantiser that too, on the windows of the database that a plain build trains it on."""
    spec, size = request.kind, model.descriptor_size(request.protocol.length)
    total = work.database.height
    transform = fit_transform(model, dataset, request, work.sample, progress, Phases())
    stored = size if transform is None else transform.output_size
    factory = spec.factory or kinds.factory_string(spec.kind, total, stored)
    trained = Trained(transform, size, storage=spec.name, factory=factory)

    def vectors_of(windows: pl.DataFrame, what: str) -> Float32Array:
        """Projected block by block: before PCA the sample of a large index would not fit into memory."""
        told = stage(progress, f"describe {what}")
        blocks = describe_blocks(model, dataset, windows, device=request.device, progress=told)
        return np.concatenate([project(block, transform, work.normalise) for block in blocks])

    if spec.name == "flat":
        return trained
    if spec.name == "fp16":
        rows = kinds.spread_rows(total, HELD_OUT, spec.seed + 1)
        return replace(trained, held=(rows, vectors_of(work.described[rows], "held-out queries")))
    index = kinds.create(factory, stored, check=spec.factory is not None)
    rows = kinds.training_rows(index, total, spec.seed)
    sample = vectors_of(work.described[rows], "training sample")
    kinds.train(index, sample, spec.seed, factory)
    trained = replace(trained, index=index, seed=spec.seed, threads=threads())
    queries = held_out(dataset, request.protocol, request.split, work.database, request.seed)
    if queries is None:
        spread = kinds.spread_rows(len(rows), HELD_OUT, spec.seed + 1)
        return replace(trained, held=(rows[spread], sample[spread]))
    asked = vectors_of(queries.windows, "held-out queries")
    return replace(trained, held=(np.full(len(asked), NOT_A_ROW), asked), queries_of=queries.queries_of)


def merge_shares(dataset: Dataset, index: Path, identifier: str) -> Path:
    """Merge the shares of a version into it; its folder.

    Raises: ContractError when the dataset cuts other windows now; as `indexer.builder.shares.merge`.
    """
    plan = plans.read_plan(plans.parts_folder(index, identifier))
    protocol = protocols.parse(plan.inputs["protocol"], plans.parts_folder(index, identifier) / plans.PLAN)
    database = dataset.sequences(protocol, plan.inputs["split"], "database")
    if table_key(database) != plan.inputs["windows"]:
        raise ContractError(f"{dataset.location}: cuts other windows than the shares of {identifier} hold")
    return sharded.merge(index, identifier, dataset.places(database))


def build_in_shares(
    dataset: Dataset, request: IndexRequest, engine: Engine, workers: int, progress: Progress | None = None
) -> Path:
    """Describe `workers` shares at once by an engine, then merge them; the folder of the version.

    Raises: as `train.stages.index.build.build_index`; OutputError when a worker dies.
    """
    import os

    _check_kind(request)
    work = index_work(dataset, request)
    existing = existing_version(request, work)
    if existing is not None and adopt(request.out, existing.name):
        return existing
    threads = max(1, (os.cpu_count() or 1) // workers)
    here = replace(request, run=request.run.resolve(), out=request.out.resolve())
    version = dataset.manifest.version
    jobs = [ShareJob(dataset.address, version, here, number, workers, threads) for number in range(1, workers + 1)]
    done = 0
    for windows in run_jobs(jobs, engine, workers):
        done += windows
        if progress is not None:
            progress("describe in shares", done, work.database.height)
    identifier = indexer.version_id(work.inputs, normalise=work.normalise, settings=request.kind.settings())
    return sharded.merge(request.out, identifier, dataset.places(work.database))

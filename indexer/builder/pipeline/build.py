"""From a dataset and a model to an index version: describe a PCA sample of the training database, fit, describe, build.

The chosen split's database is described and projected in one stream, so raw vectors are never stored.
"""

from pathlib import Path
from shutil import rmtree

from indexer.builder.build import build
from indexer.builder.pipeline.request import (
    IndexRequest,
    arithmetic_of,
    check_distance,
    existing_version,
    index_work,
    version_of,
)
from indexer.builder.pipeline.sample import fit_transform
from indexer.builder.pipeline.samples import held_out
from indexer.builder.pipeline.shares import build_in_parts
from indexer.builder.share_plan import parts_folder
from indexer.describer import Describer, blocks_to_project
from indexer.selection import choose
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt
from seqdata.dataset.dataset import Dataset
from seqdata.parallel import StageProgress, stage_progress

PART_ROWS = 65_536
"""Windows of a part: what a kill costs, some minutes of describing."""


def build_index(
    dataset: Dataset, describer: Describer, request: IndexRequest, progress: StageProgress | None = None
) -> Path:
    """Build and publish one index version; the same inputs again return the version that is there.

    A killed build of an exact index finds again what it has described, a part of 65,536 windows at a time; of other
    kinds, the sample of its PCA.

    Args:
        dataset: Dataset whose windows are indexed.
        describer: The model; its weights are loaded only when the version is not there yet.
        request: What to index and how.
        progress: Called with the stage and its windows.

    Returns:
        The folder of the version.

    Raises:
        NotEnoughDataError: If the split has no database, or the sample is too small for the PCA.
        ContractError: If the model's descriptors are not compared by L2.
    """
    work = index_work(dataset, describer, request)
    existing = existing_version(request, work)
    if existing is not None and adopt(request.out, existing.name):
        return existing
    phases = Phases()
    # Only here are the weights loaded: an existing version needs none.
    check_distance(describer)
    if request.kind.name == "flat" and work.database.height > PART_ROWS:
        return build_in_parts(dataset, describer, request, work, -(-work.database.height // PART_ROWS), progress)
    transform = fit_transform(dataset, describer, request, work, progress, phases)
    held_out_queries = (
        held_out(dataset, request.protocol, request.split, work.database, request.seed)
        if choose.measures(request.kind, work.database.height)
        else None
    )
    queries = None
    if held_out_queries is not None:
        with phases.timed("describe queries"):
            queries = describer.vectors(
                dataset, held_out_queries.windows, stage_progress(progress, "describe held-out queries")
            )
    version = build(
        request.out,
        blocks=blocks_to_project(describer, dataset, work.described, stage_progress(progress, "describe database")),
        places=dataset.places(work.database),
        transform=transform,
        inputs=work.inputs,
        normalise=work.normalise,
        kind=request.kind,
        queries=queries,
        queries_of="" if held_out_queries is None else held_out_queries.queries_of,
        origin=work.origin,
        seconds=phases,
        arithmetic=arithmetic_of(request),
    )
    # The sample, which a killed build would have found again.
    rmtree(parts_folder(request.out, version_of(request, work)), ignore_errors=True)
    return version

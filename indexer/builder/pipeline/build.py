"""From a dataset and a model to an index version: describe a PCA sample of the training database, fit, describe, build.

The chosen split's database is described and projected in one stream, so raw vectors are never stored.
"""

from pathlib import Path

import polars as pl

from indexer.builder.build import build
from indexer.builder.pipeline.request import IndexRequest, check_distance, existing_version, index_work
from indexer.builder.pipeline.sample_vectors import sample_vectors
from indexer.builder.pipeline.samples import held_out
from indexer.describer import Describer
from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from indexer.selection import choose
from indexer.selection.timing import Phases
from indexer.versions.folders import adopt
from seqdata.dataset.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.parallel import StageProgress, stage_progress


def build_index(
    dataset: Dataset, describer: Describer, request: IndexRequest, progress: StageProgress | None = None
) -> Path:
    """Build and publish one index version; the same inputs again return the version that is there.

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
    transform = fit_transform(dataset, describer, request, work.sample, progress, phases)
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
    return build(
        request.out,
        blocks=describer.blocks(dataset, work.described, stage_progress(progress, "describe database")),
        places=dataset.places(work.database),
        transform=transform,
        inputs=work.inputs,
        normalise=work.normalise,
        kind=request.kind,
        queries=queries,
        queries_of="" if held_out_queries is None else held_out_queries.queries_of,
        origin=work.origin,
        seconds=phases,
    )


def fit_transform(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    sample: pl.DataFrame,
    progress: StageProgress | None,
    phases: Phases,
) -> Transform | None:
    """Fit the PCA of a request on a sample of windows.

    Args:
        dataset: The dataset that the windows were cut from.
        describer: The model.
        request: Holds the number of dimensions, whitening and seed.
        sample: Windows to fit on.
        progress: Called with the stage and its windows.
        phases: Where the seconds are counted.

    Returns:
        The transform; None for a request without a PCA.

    Raises:
        NotEnoughDataError: If the sample or the descriptor has fewer dimensions than the PCA, with the greatest
            number that would work.
    """
    if request.pca is None:
        return None
    size = describer.descriptor_size(request.protocol.length)
    # n centred descriptors span at most n − 1 dimensions.
    usable = min(sample.height - 1, size)
    if request.pca > usable:
        raise NotEnoughDataError(
            f"--pca {request.pca}: {sample.height} descriptors of {size} dimensions to fit on, more than {request.pca} "
            f"descriptors and as many dimensions are needed; --pca {usable} would work"
        )
    stage = stage_progress(progress, "describe PCA sample")
    with phases.timed("describe sample"):
        vectors = sample_vectors(describer, dataset, sample, request.out, stage)
    with phases.timed("fit"):
        return pca.fit(vectors, request.pca, whiten=request.whiten, seed=request.seed)

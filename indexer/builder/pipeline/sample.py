"""The PCA of a request: its sample described in parts by whichever job comes, and the fit."""

from indexer.builder.pipeline.request import IndexRequest, IndexWork, version_of
from indexer.builder.share_plan import parts_folder
from indexer.describer import Describer
from indexer.pca import fit as pca
from indexer.pca.sample_parts import SampleParts
from indexer.pca.transform import Transform
from indexer.selection.timing import Phases
from seqdata.dataset.dataset import Dataset
from seqdata.errors import NotEnoughDataError
from seqdata.geometry import Float32Array
from seqdata.parallel import StageProgress, stage_progress


def sample_parts(describer: Describer, request: IndexRequest, work: IndexWork) -> SampleParts:
    """The PCA sample of a request, in parts beside those of its version; nothing is described yet."""
    folder = parts_folder(request.out, version_of(request, work)) / "sample"
    return SampleParts(folder, work.sample.height, describer.descriptor_size(request.protocol.length))


def describe_sample(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    work: IndexWork,
    progress: StageProgress | None = None,
) -> None:
    """Describe those parts of the PCA sample that nobody has described yet; nothing for a request without a PCA.

    Args:
        dataset: The dataset.
        describer: The model.
        request: The request.
        work: What it comes to.
        progress: Called with the stage and its windows.

    Raises:
        NotEnoughDataError: If the sample or the descriptor has fewer dimensions than the PCA, with the greatest number
            that would work.
    """
    if request.pca is None:
        return
    size = describer.descriptor_size(request.protocol.length)
    # n centred descriptors span at most n − 1 dimensions.
    usable = min(work.sample.height - 1, size)
    if request.pca > usable:
        raise NotEnoughDataError(
            f"--pca {request.pca}: {work.sample.height} descriptors of {size} dimensions to fit on, more than "
            f"{request.pca} descriptors and as many dimensions are needed; --pca {usable} would work"
        )

    def describe(rows: range) -> Float32Array:
        stage = stage_progress(progress, f"describe PCA sample from window {rows.start:,} of {work.sample.height:,}")
        return describer.vectors(dataset, work.sample[rows.start : rows.stop], stage)

    sample_parts(describer, request, work).complete(describe)


def fit_transform(
    dataset: Dataset,
    describer: Describer,
    request: IndexRequest,
    work: IndexWork,
    progress: StageProgress | None,
    phases: Phases,
) -> Transform | None:
    """Fit the PCA of a request on its sample.

    Args:
        dataset: The dataset that the windows were cut from.
        describer: The model.
        request: Holds the number of dimensions, whitening and seed.
        work: What it comes to.
        progress: Called with the stage and its windows.
        phases: Where the seconds are counted.

    Returns:
        The transform; None for a request without a PCA.

    Raises:
        NotEnoughDataError: As `describe_sample`.
    """
    if request.pca is None:
        return None
    with phases.timed("describe sample"):
        describe_sample(dataset, describer, request, work, progress)
    with phases.timed("fit"):
        route: pca.Route = "exact" if request.exact_pca else "auto"
        sample = sample_parts(describer, request, work).data()
        return pca.fit(sample, request.pca, whiten=request.whiten, seed=request.seed, route=route)

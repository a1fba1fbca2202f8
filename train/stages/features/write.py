"""Write a feature dataset: every frame is described once, and heads train from the stored vectors.

In one process, in a share of the parts that a job of an array writes, or in parts on several processors; the bytes are
the same.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from seqdata.dataset.dataset import open as open_dataset
from seqdata.geometry import IntArray
from seqdata.parallel import Engine, ShardRange, run_jobs
from train.data.feature_files import FeatureManifest
from train.data.feature_parts import FeaturePlan, finish_features, sealed_part
from train.models.frame_model import FrameModel
from train.stages.features.begin import begin_features
from train.stages.features.request import FeatureRequest
from train.stages.features.work import FeatureWork

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


def write_features(
    model: FrameModel,
    dataset: "Dataset",
    out: str | Path,
    request: FeatureRequest,
    frames: IntArray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureManifest:
    """Describe frames of a dataset into a folder, each frame once.

    Killed or interrupted and started again with the same arguments, it keeps the parts that are whole and goes on; a
    finished folder of the same request stays as it is.

    Args:
        model: A model of single frames and a fusion; its fusion is left out.
        dataset: Holds the frames.
        out: The new folder.
        request: Level, type and PCA of the stored vectors, and where to compute.
        frames: Frame rows int64 (n,), rising; None for all of the dataset.
        progress: Called with frames finished and frames in all.

    Returns:
        The manifest, which is written last.

    Raises:
        OutputError: If `out` holds something else.
        ContractError: If the model has no per-frame features, or the request has a PCA at token level.
        NotEnoughDataError: If there are too few frames for the PCA.
    """
    work = begin_features(model, dataset, out, request, frames)
    if isinstance(work, FeatureManifest):
        return work
    for number in range(work.plan.parts):
        work.write(number, progress)
    return finish_features(work.folder)


def write_feature_share(
    model: FrameModel,
    dataset: "Dataset",
    out: str | Path,
    request: FeatureRequest,
    share: ShardRange,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Describe one job's share of the parts into a folder that all jobs have in common; `finish_features` ends it.

    Args:
        model: As for `write_features`, as the other arguments; every job takes the same ones.
        dataset: Holds the frames.
        out: The folder.
        request: What is stored.
        share: Which job this is, of how many.
        progress: Called with frames finished and frames in all.

    Returns:
        The number of parts of the share.

    Raises:
        SeqdataError: As `write_features`.
    """
    work = begin_features(model, dataset, out, request)
    if isinstance(work, FeatureManifest):
        return len(share.select(work.parts))
    numbers = share.select(range(work.plan.parts))
    for number in numbers:
        work.write(number, progress)
    return len(numbers)


def write_features_on(
    engine: Engine,
    workers: int,
    model: FrameModel,
    dataset: "Dataset",
    out: str | Path,
    request: FeatureRequest,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureManifest:
    """Describe the parts in several processes at once.

    Args:
        engine: "pool" for processes of this machine, "ray" for one actor a GPU of a cluster, or a CPU without any.
        workers: Processes, or CPUs of a cluster that is started here.
        model: As for `write_features`, as the other arguments.
        dataset: Holds the frames.
        out: The folder; of a cluster, on a disk that all its machines share.
        request: What is stored.
        progress: Called with frames finished and frames in all, after each part.

    Returns:
        The manifest.

    Raises:
        OutputError: If a process dies; otherwise as `write_features`.
    """
    folder = Path(out).resolve()
    # Workers share the cores: more threads than cores would only take turns.
    threads = max(1, (os.cpu_count() or 1) // workers)
    begin = BeginJob(dataset.address, dataset.manifest.version, model, folder, request, threads)
    # In a process of its own: on a cluster a card may be elsewhere only, and threads are set there.
    plan = next(iter(run_jobs([begin], engine, 1 if engine == "pool" else workers, on_devices=True)))
    if plan is None:
        return finish_features(folder)
    todo = [number for number in range(plan.parts) if sealed_part(folder, plan, number) is None]
    finished = plan.rows - sum(len(plan.rows_of(number)) for number in todo)
    jobs = [PartJob(dataset.address, dataset.manifest.version, folder, request, number, threads) for number in todo]
    for rows in run_jobs(jobs, engine, workers, on_devices=True):
        finished += rows
        if progress is not None:
            progress(finished, plan.rows)
    return finish_features(folder)


@dataclass(frozen=True)
class BeginJob:
    """Settles what all parts have in common, where the model can be loaded."""

    dataset: str
    version: int
    model: FrameModel
    folder: Path
    request: FeatureRequest
    threads: int

    def run(self) -> FeaturePlan | None:
        """Begin; return the plan, None where the features are finished."""
        torch.set_num_threads(self.threads)
        dataset = open_dataset(self.dataset, version=self.version)
        work = begin_features(self.model, dataset, self.folder, self.request)
        return work.plan if isinstance(work, FeatureWork) else None


@dataclass(frozen=True)
class PartJob:
    """Part `number` of an unfinished feature dataset over version `version` of the dataset at `dataset`."""

    dataset: str
    version: int
    folder: Path
    request: FeatureRequest
    number: int
    threads: int

    def run(self) -> int:
        """Describe the part in whatever process this is; return its rows."""
        torch.set_num_threads(self.threads)
        return _opened(self.dataset, self.version, self.folder, self._request()).write(self.number).rows

    def _request(self) -> FeatureRequest:
        """The request, on one of the cards that this process sees."""
        device = self.request.settings.torch_device
        if device.type != "cuda" or device.index is not None:
            return self.request
        card = f"cuda:{self.number % torch.cuda.device_count()}"
        return replace(self.request, settings=replace(self.request.settings, device=card))


@lru_cache
def _opened(dataset: str, version: int, folder: Path, request: FeatureRequest) -> FeatureWork:
    """Open what a process writes parts of; the model is loaded once, and once a card."""
    return FeatureWork.reopen(folder, open_dataset(dataset, version=version), request)

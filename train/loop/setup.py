"""What a run is made of, put together from its settings, and the record that says so."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqdata.contracts.protocol import Protocol
from seqdata.storage.hashing import xxh3_file
from train.data.features import FeatureSource, create_head, open_features
from train.data.frames import FrameSource, native_size
from train.loop import optimizers as optimisers
from train.loop.distributed import Ranks
from train.loop.signals import Stop
from train.loop.step import StepModel, check_batch_norm, compiled
from train.loop.trainer import Progress, Trainer
from train.losses.distances import frames_of
from train.models import registry as models
from train.models.base import SequenceModel
from train.runs import checkpoint
from train.runs.folder import RunFolder, environment
from train.sampling import regimes
from train.sampling.pairs import Radii
from train.sampling.windows import TrainData
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


def assemble(
    dataset: "Dataset",
    protocol: Protocol,
    settings: TrainSettings,
    folder: RunFolder,
    progress: Progress,
    ranks: Ranks,
    device: torch.device,
    stop: Stop,
    other_frames: NDArray[np.int64],
    restoring: bool = False,
) -> Trainer:
    """Model, data, regime and optimiser of the settings; `other_frames`: rows that are read besides the training ones.

    With `restoring` a checkpoint will fill the model, which then needs no weights of its own.
    Raises: ContractError for settings that do not fit, NotEnoughDataError without windows, and what weights raise.
    """
    model, stored = _model(dataset, settings, restoring)
    model = model.to(device)
    if settings.checkpointing or ranks.size > 1:
        check_batch_norm(model, "checkpointing" if settings.checkpointing else "training on several processes")
    data = (
        TrainData.of(dataset, protocol, shift=settings.shift_positives)
        if settings.epochs
        else TrainData.untrained(dataset, protocol)
    )
    radii = Radii.of(protocol, settings.positive_radius, settings.negative_radius, settings.heading_max)
    rows = np.concatenate([data.frame_rows.ravel(), other_frames.ravel()])
    source = stored or FrameSource(dataset, native_size(dataset, rows, model.size), settings.cache_bytes)
    return Trainer(
        dataset=dataset,
        protocol_hash=protocol.hash,
        data=data,
        model=model,
        describe_step=compiled(StepModel(model, source, settings.checkpointing), settings.compile),
        regime=regimes.create(dataset, data, radii, settings, frames_of(model, protocol.length)),
        optimizer=optimisers.create(model, settings),
        settings=settings,
        source=source,
        device=device,
        folder=folder,
        progress=progress,
        ranks=ranks,
        stop=stop,
    )


def _model(dataset: "Dataset", settings: TrainSettings, restoring: bool) -> tuple[SequenceModel, FeatureSource | None]:
    """The model, from pixels or as a head on stored features, and those features."""
    if settings.features is None:
        weights = "random" if restoring else settings.weights
        model = models.create(settings.model, weights=weights, seed=settings.seed, **settings.options)
        model.config = {**model.config, "weights": settings.weights}
        return model, None
    stored = open_features(settings.features, dataset)
    return create_head(stored, settings.model, settings.seed, settings.options), stored


def _weights_hash(settings: TrainSettings) -> str | None:
    """XXH3-128 of the file of weights; None where there is none."""
    if settings.features is not None or not Path(settings.weights).is_file():
        return None
    return xxh3_file(settings.weights)


def describe_run(protocol: Protocol, trainer: Trainer, restoring: bool = False) -> dict[str, Any]:
    """run.json: what was asked for, resolved, and what it ran on; `restoring` as in `assemble`."""
    dataset, source = trainer.dataset, trainer.source
    return {
        "format": checkpoint.FORMAT,
        "dataset": dataset.id,
        "dataset_path": dataset.address,
        "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        "settings": trainer.settings.model_dump(mode="json"),
        "course": trainer.settings.same_course(),
        "features": source.files.manifest.id if isinstance(source, FeatureSource) else None,
        "model": trainer.model.config,
        "weights_hash": None if restoring else _weights_hash(trainer.settings),
        "descriptor_size": trainer.model.descriptor_size(protocol.length),
        "windows": {"query": len(trainer.data.queries), "database": len(trainer.data.database)},
        "environment": {
            **environment(),
            "processes": str(trainer.ranks.size),
            "device": str(trainer.device),
        },
        "later_environments": [],
        "finished": False,
    }

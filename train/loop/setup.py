"""What a run is made of, put together from its settings, and the record that says so."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from seqdata.contracts.protocol import Protocol
from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from seqdata.storage.hashing import xxh3_file
from train.data.device_frames import DeviceFrames
from train.data.feature_files import check_hashes
from train.data.features import FeatureSource, create_head, open_features
from train.data.frames import FrameSource, native_size
from train.loop import optimizers
from train.loop.context import RunContext
from train.loop.step import StepModel, check_batch_norm, compiled
from train.loop.trainer import Trainer
from train.losses.distances import aligned_length
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.frame_model import FrameModel
from train.runs import checkpoint
from train.runs.folder import environment
from train.sampling import regimes
from train.sampling.pairs import Radii
from train.sampling.windows import TrainData
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


def assemble(context: RunContext, other_frames: IntArray, restoring: bool = False) -> Trainer:
    """Put together model, data, regime and optimiser of the settings.

    Args:
        context: The run.
        other_frames: Frame rows (of any shape) that are read besides the training ones.
        restoring: Whether a checkpoint will fill the model, which then needs no weights of its own.

    Raises:
        ContractError: For settings that do not fit.
        NotEnoughDataError: Without windows.
    """
    dataset, protocol, settings = context.dataset, context.protocol, context.settings
    model, features = _model(context, restoring)
    model = model.to(context.device)
    if settings.checkpointing or context.ranks.size > 1:
        check_batch_norm(model, "checkpointing" if settings.checkpointing else "training on several processes")
    data = _data(dataset, protocol, settings)
    radii = Radii.from_protocol(protocol, settings.positive_radius, settings.negative_radius, settings.heading_max)

    # Validation's frames count too: one source reads both, so one size must hold for both.
    def rows() -> IntArray:
        return np.concatenate([data.frame_rows.ravel(), other_frames.ravel()])

    source = features or _frames(context, rows, native_size(dataset, rows, model.size))
    regime = regimes.create(
        dataset, data, radii, settings, aligned_length(model, protocol.length), _vector_size(model, protocol.length)
    )
    return Trainer(
        context=context,
        data=data,
        model=model,
        describe_step=compiled(StepModel(model, source, settings.checkpointing), settings.compile),
        regime=regime,
        optimizer=optimizers.create(model, settings, _head(regime, context)),
        source=source,
    )


def _vector_size(model: SequenceModel, length: int) -> int | None:
    """Numbers of a frame's own vector where windows of `length` frames have as many, else None."""
    if not isinstance(model, FrameModel) or model.vlad_sums:
        return None
    return model.feature_size if model.descriptor_size(length) == model.feature_size else None


def _head(regime: regimes.Regime, context: RunContext) -> nn.Module | None:
    """What the regime's loss trains beside the model, on the run's device."""
    if regime.head is None:
        return None
    for parameter in regime.head.to(context.device).parameters():
        # Every process computes the whole loss, and gradients are added up: right for the model, of which each process
        # has the gradient of its own share alone, but not for this.
        parameter.register_hook(lambda gradient: gradient / context.ranks.size)  # type: ignore[no-untyped-call]
    return regime.head


def _frames(context: RunContext, rows: Callable[[], IntArray], size: tuple[int, int] | None) -> FrameSource:
    """The frames of windows (`rows` gives theirs, of any shape), decoded where the settings say."""
    settings = context.settings
    replace_among = None if settings.strict else rows
    is_cuda = context.device.type == "cuda"
    if is_cuda and settings.decode_device != "cpu":
        return DeviceFrames(context.dataset, size, device=context.device, replace_among=replace_among)
    return FrameSource(
        context.dataset,
        size,
        settings.cache_bytes,
        replace_among=replace_among,
        threads=settings.decode_threads,
        device=settings.decode_device,
        channels_last=is_cuda,
        kernel=settings.resize,
    )


def _model(context: RunContext, restoring: bool) -> tuple[SequenceModel, FeatureSource | None]:
    """The model, from pixels or as a head on stored features, and those features, checked against their hashes."""
    settings = context.settings
    if settings.features is None and restoring:
        # As it was recorded, not as its preset is by now: what exists keeps its numbers.
        config = context.folder.read()["model"]
        # Only the name in the settings was compared with --model-from, and this one decides which code runs.
        if not isinstance(config, dict) or config.get("name") != settings.model:
            raise ContractError(f"{context.folder.path / 'run.json'}: field 'model' is not that of its settings")
        model = models.restore({**config, "weights": "random"})
        model.config = config
        return model, None
    if settings.features is None:
        return models.create(settings.model, weights=settings.weights, seed=settings.seed, **settings.options), None
    features = open_features(settings.features, context.dataset)
    # A flipped bit in a feature file would train silently: on stored features nothing is decoded that could fail.
    context.ranks.lead(lambda: check_hashes(features.files.folder))
    return create_head(features, settings.model, settings.seed, settings.options), features


def _data(dataset: "Dataset", protocol: Protocol, settings: TrainSettings) -> TrainData:
    """The split "train"; a model that is not trained takes its VLAD words from whatever windows there are."""
    if settings.epochs:
        return TrainData.from_split(dataset, protocol, "train", settings.shift_positives)
    return TrainData.from_any_split(dataset, protocol)


def _weights_hash(settings: TrainSettings) -> str | None:
    """XXH3-128 of the file of weights; None where there is none."""
    # Named weights ("pretrained") are fixed by the encoder's tag, and features by the hash of their manifest.
    if settings.features is not None or not Path(settings.weights).is_file():
        return None
    return xxh3_file(settings.weights)


def describe_run(trainer: Trainer, restoring: bool = False) -> dict[str, Any]:
    """Make run.json: the settings, resolved, and what it ran on; `restoring` as in `assemble`."""
    context, source = trainer.context, trainer.source
    dataset, protocol, settings = context.dataset, context.protocol, context.settings
    return {
        "format": checkpoint.FORMAT,
        "dataset": dataset.id,
        "dataset_path": dataset.address,
        "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        "settings": settings.model_dump(mode="json"),
        "course": settings.same_course(),
        "features": source.files.manifest.id if isinstance(source, FeatureSource) else None,
        "model": trainer.model.config,
        "weights_hash": None if restoring else _weights_hash(settings),
        "descriptor_size": trainer.model.descriptor_size(protocol.length),
        "windows": {"query": len(trainer.data.queries), "database": len(trainer.data.database)},
        "environment": {
            **environment(),
            "processes": str(context.ranks.size),
            "device": str(context.device),
        },
        "later_environments": [],
        "finished": False,
    }

"""The training loop: one thin loop over epochs, on one machine, resumable after every epoch."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqdata.protocols import Protocol
from train import checkpoint, models, regimes
from train.board import log_epoch, open_board
from train.data import TrainData
from train.devices import pick_device
from train.distances import frames_of
from train.feature_source import FeatureSource, create_head, open_features
from train.frames import FrameSource, native_size
from train.relations import Radii
from train.runs import RunFolder, environment
from train.settings import TrainSettings
from train.starting import initialise_vlad
from train.trainer import Progress, Trainer
from train.validation import Validator

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from seqdata.dataset import Dataset

log = logging.getLogger(__name__)


@dataclass
class Course:
    """How far a run has come: epochs done, the best epoch with its recalls, epochs since."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] | None = None
    since_best: int = 0

    def note(self, epoch: int, recalls: dict[str, float] | None) -> bool:
        """Enter an epoch's recalls; whether it is the best so far (by R@5, then R@1; without validation, the last)."""
        self.epoch = epoch
        better = recalls is None or self.best is None or _merit(recalls) > _merit(self.best)
        if better:
            self.best_epoch, self.best, self.since_best = epoch, recalls, 0
        else:
            self.since_best += 1
        return better


def _merit(recalls: Mapping[str, float]) -> tuple[float, float]:
    return recalls["r5"], recalls["r1"]


def _silent(phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
    """The progress callback of those who give none."""


def fit(
    dataset: "Dataset",
    settings: TrainSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = False,
) -> Path:
    """Train a model and write the run folder `out`; returns its path.

    `progress(phase, done, total, values)` is called with phase "train", "mine", "validate" or "epoch"; values hold
    epoch, loss and recalls. With `resume` an interrupted run goes on after its last finished epoch, to the same losses
    as an unbroken one. With 0 epochs the untrained model is written as a run.
    Raises: OutputError when `out` holds something else, ContractError for settings that do not fit (or differ on
    resume), NotEnoughDataError without positives, DivergedError on a loss that is not finite, and what weights raise.
    """
    protocol = dataset.load_protocol(settings.protocol)
    devices = [torch.device(settings.device)] if settings.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices if torch.cuda.is_available() else []):
        torch.manual_seed(settings.seed)
        return _fit(dataset, protocol, settings, RunFolder(Path(out)), progress or _silent, resume)


def _fit(
    dataset: "Dataset", protocol: Protocol, settings: TrainSettings, folder: RunFolder, progress: Progress, resume: bool
) -> Path:
    validator = Validator(dataset, protocol)
    trainer = _trainer(dataset, protocol, settings, folder, progress, validator)
    record = _record(dataset, protocol, settings, trainer)
    resume = resume and (folder.path / "run.json").is_file()
    folder.open(record, resume)
    course = Course()
    if resume and folder.started:
        course = _restore(trainer)
    else:
        initialise_vlad(trainer.model, trainer.data, trainer.source, settings)
        _finish_epoch(trainer, validator, course, 0, [], None)
    writer = open_board(folder, course.epoch)
    try:
        while course.epoch < settings.epochs and course.since_best < settings.patience:
            losses = trainer.epoch(course.epoch + 1)
            _finish_epoch(trainer, validator, course, course.epoch + 1, losses, writer)
    finally:
        writer.close()
    folder.write({**record, "finished": True, "course_done": asdict(course)})
    return folder.path


def _trainer(
    dataset: "Dataset",
    protocol: Protocol,
    settings: TrainSettings,
    folder: RunFolder,
    progress: Progress,
    validator: Validator,
) -> Trainer:
    """Model, data, regime and optimiser of the settings."""
    device = pick_device(settings.device)
    stored = None if settings.features is None else open_features(settings.features, dataset)
    if stored is None:
        model = models.create(settings.model, weights=settings.weights, seed=settings.seed, **settings.options)
    else:
        model = create_head(stored, settings.model, settings.seed, settings.options)
    model = model.to(device)
    data = TrainData.of(dataset, protocol, _split(protocol, settings), settings.shift_positives)
    radii = Radii.of(protocol, settings.positive_radius, settings.negative_radius)
    rows = np.concatenate([data.frame_rows.ravel(), validator.frame_rows().ravel()])
    source = stored or FrameSource(dataset, native_size(dataset, rows, model.size), settings.cache_bytes)
    regime = regimes.create(dataset, data, radii, settings, frames_of(model, protocol.length))
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = kind(wanted or [torch.zeros(1)], lr=settings.lr, weight_decay=settings.weight_decay)
    return Trainer(dataset, data, model, regime, optimizer, settings, source, device, folder, progress)


def _split(protocol: Protocol, settings: TrainSettings) -> str:
    """The split "train"; a model that is not trained may take its VLAD words from whatever split there is."""
    return "train" if settings.epochs or "train" in protocol.splits else next(iter(protocol.splits))


def _record(dataset: "Dataset", protocol: Protocol, settings: TrainSettings, trainer: Trainer) -> dict[str, Any]:
    """run.json: what was asked for, resolved, and what it ran on."""
    return {
        "format": checkpoint.FORMAT,
        "dataset": dataset.id,
        "dataset_path": dataset.location,
        "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        "settings": settings.model_dump(mode="json"),
        "course": settings.same_course(),
        "features": trainer.source.files.manifest.id if isinstance(trainer.source, FeatureSource) else None,
        "model": trainer.model.config,
        "descriptor_size": trainer.model.descriptor_size(protocol.length),
        "windows": {"query": len(trainer.data.queries), "database": len(trainer.data.database)},
        "environment": environment(),
        "finished": False,
    }


def _finish_epoch(
    trainer: Trainer,
    validator: Validator,
    course: Course,
    epoch: int,
    losses: list[float],
    writer: "SummaryWriter | None",
) -> None:
    """Validate, note, save: best when it is, then last, whose optimiser JSON marks the epoch as done."""
    recalls = None
    if validator.usable:
        recalls = validator(
            trainer.model,
            device=str(trainer.device),
            batch_size=trainer.settings.frame_batch,
            source=trainer.source,
            progress=lambda done, total: trainer.progress("validate", done, total, {"epoch": epoch}),
        )
    better = course.note(epoch, recalls)
    entry: dict[str, Any] = {"epoch": epoch, "steps": len(losses), "val": recalls}
    if losses:
        entry |= {"loss": float(np.mean(losses)), "losses": losses, "lr": trainer.optimizer.param_groups[0]["lr"]}
    trainer.folder.add_metrics(entry)
    details = {"epoch": epoch, "val": recalls, "dataset": trainer.dataset.id}
    if better:
        checkpoint.save_model(trainer.folder.best, trainer.model, details)
    checkpoint.save_model(trainer.folder.last, trainer.model, details)
    checkpoint.save_optimizer(trainer.folder.last, trainer.optimizer, {"course": asdict(course)})
    values = {"epoch": float(epoch), **({"loss": entry["loss"]} if losses else {}), **(recalls or {})}
    if writer is not None:
        log_epoch(writer, epoch, entry)
    trainer.progress("epoch", epoch, trainer.settings.epochs, values)
    log.info("epoch %d: %s", epoch, values)


def _restore(trainer: Trainer) -> Course:
    """Weights, optimiser and course of the last finished epoch."""
    stem = trainer.folder.last
    tensors = stem.parent / "last.safetensors"
    checkpoint.fill(trainer.model, checkpoint.read_tensors(tensors), tensors)
    course = Course(**checkpoint.load_optimizer(stem, trainer.optimizer)["course"])
    trainer.folder.take_up(course.epoch)
    return course

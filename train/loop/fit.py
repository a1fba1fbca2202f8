"""The training loop: one thin loop over epochs, on one process or many, resumable between any two updates."""

import logging
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqdata.errors import DivergedError, Interrupted, Terminated
from train.devices import arithmetic, pick_device, to_host
from train.loop import optimizers
from train.loop.context import EpochProgress, RunContext
from train.loop.distributed import joined
from train.loop.setup import assemble, describe_run
from train.loop.signals import Stop, Stopped
from train.loop.tensorboard import log_epoch, open_board
from train.loop.trainer import Trainer
from train.loop.validation import Validator
from train.loop.vlad_init import initialise_vlad
from train.losses.distances import aligned_length
from train.runs import checkpoint
from train.runs import state as run_state
from train.runs.folder import RunFolder
from train.runs.record import recorded_protocol
from train.runs.state import Course, Position, State
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset
    from seqdata.storage.files import GrowingFile

log = logging.getLogger(__name__)
REPORTED = ("loss", "active", "hardness", "wait")
"""Fields of an epoch's metrics that its line shows."""


def _silent(phase: str, count: int, total: int, values: Mapping[str, float]) -> None:
    """The progress callback of those who give none, and of every rank but the first."""


def fit(
    dataset: "Dataset",
    settings: TrainSettings,
    out: str | Path,
    *,
    progress: EpochProgress | None = None,
    resume: bool = False,
) -> Path:
    """Train a model and write its run folder.

    Ctrl-C and SIGTERM save the run, then stop it. Under `torchrun` the processes share each batch; all need to see
    `out`, only the first one writes there. A damaged frame shows its nearest good neighbour and is counted in
    metrics.jsonl; with `settings.strict` it ends the run.

    Args:
        dataset: An opened dataset.
        settings: What to train, and how; with 0 epochs the untrained model is written as a run.
        out: The run folder, new or to resume.
        progress: Called with a phase ("train", "mine", "validate" or "epoch"), items finished, items in all, and a
            mapping of values: epoch, epochs (but at "epoch"), loss and recalls.
        resume: Continue an interrupted run where it was last saved, to the same numbers as an unbroken one (on CUDA
            with `settings.deterministic`); it needs no file and no download of weights again.

    Returns:
        Path of the run folder.

    Raises:
        OutputError: If `out` holds something else.
        ContractError: For settings that do not fit, or differ on resume; for a damaged frame of a strict run.
        NotEnoughDataError: Without positives, or without negatives.
        DivergedError: On a loss, gradient or descriptor that is not finite.
        Interrupted: On Ctrl-C or SIGTERM, once the run is saved.

    Example:
        >>> import seqdata, train
        >>> settings = train.TrainSettings.create("triplet", protocol="own", epochs=1)  # doctest: +SKIP
        >>> run = train.fit(seqdata.open("DATASET"), settings, "RUN")  # doctest: +SKIP
    """
    folder = RunFolder(Path(out))
    resume = resume and folder.recorded
    protocol = dataset.load_protocol(settings.protocol)
    if resume and folder.read()["protocol"]["name"] == protocol.name:
        protocol = recorded_protocol(dataset, folder.read())
    device = pick_device(settings.device)
    # The caller's random numbers are theirs: seeding below must not change what a notebook draws next.
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    computing = arithmetic(device, settings.precision, deterministic=settings.deterministic)
    with joined(device) as ranks, computing, forked:
        if ranks.size > 1:
            dataset.share_tables()
        question = f"{out} {settings.model_dump_json()} {dataset.id} {resume}"
        ranks.agree(zlib.crc32(question.encode()), "settings, dataset or --out")
        torch.manual_seed(settings.seed)
        report = progress if progress is not None and ranks.first else _silent
        try:
            with Stop() as stop:
                context = RunContext(dataset, protocol, settings, folder, report, ranks, device, stop)
                return _Run(context, resume).go()
        except (Interrupted, DivergedError) as error:
            if ranks.first:
                raise
            raise SystemExit(error.exit_code) from error


class _Run:
    """One run: what it is made of, its state, and the order in which things are written."""

    def __init__(self, context: RunContext, resume: bool) -> None:
        self.context = context
        self.resume = resume
        self.validator = Validator(context.dataset, context.protocol)
        restoring = resume and run_state.has_saved_state(context.folder.checkpoints)
        self.trainer = assemble(context, self.validator.frame_rows(), restoring)
        self.record = describe_run(self.trainer, restoring)
        self.state = State(Course(), Position())
        self.saved_steps = 0
        self.board: GrowingFile | None = None

    def go(self) -> Path:
        """Start or resume, train, and end with a record that says so."""
        context = self.context
        context.ranks.lead(self._open)
        try:
            self._begin()
            self._epochs()
        except Stopped as stopped:
            ended = Terminated if context.ranks.any(context.stop.is_termination) else Interrupted
            raise ended(self._leave()) from stopped
        finally:
            if self.board is not None:
                self.board.close()
        record = {**self.record, "finished": True, "course_done": asdict(self.state.course)}
        context.ranks.lead(lambda: context.folder.write(record))
        return context.folder.path

    def _open(self) -> None:
        """What the first rank alone writes to."""
        self.record = self.context.folder.open(self.record, self.resume)
        self.board = open_board(self.context.folder)

    def _begin(self) -> None:
        """The saved state, or that of an untrained model, which is epoch 0."""
        trainer, folder = self.trainer, self.context.folder
        head = trainer.regime.head
        restored = (
            run_state.restore(folder.checkpoints, trainer.model, trainer.optimizer, head) if self.resume else None
        )
        if restored is None:
            initialise_vlad(trainer.model, trainer.data, trainer.source, self.context.settings)
            self.context.ranks.same_weights(trainer.model)
            self._finish_epoch(0)
            return
        self.state = restored
        self.saved_steps = len(restored.position.losses)
        folder.take_up(restored.course.epoch - (restored.entry is not None))
        self._export()

    def _epochs(self) -> None:
        settings, course = self.context.settings, self.state.course
        while course.epoch < settings.epochs and course.since_best < settings.patience:
            self.trainer.epoch(self.state.position, self._between_updates)
            self._finish_epoch(self.state.position.epoch)

    def _between_updates(self) -> None:
        """Stop after a signal to any rank; save every `save_every` steps."""
        if self.context.ranks.any(self.context.stop.requested):
            raise Stopped
        every, steps = self.context.settings.save_every, len(self.state.position.losses)
        if every and steps - self.saved_steps >= every:
            self._save()
            self.saved_steps = steps

    def _save(self) -> None:
        trainer, checkpoints = self.trainer, self.context.folder.checkpoints
        trainer.readings.settle()
        head = trainer.regime.head
        self.context.ranks.lead(lambda: run_state.save(checkpoints, self.state, trainer.model, trainer.optimizer, head))

    def _leave(self) -> str:
        """Save a run that a signal stops; returns the message."""
        folder = self.context.folder
        if not folder.started:
            return f"{folder.path}: interrupted before the first epoch; run the same command with --resume"
        self._save()
        position = self.state.position
        steps = f"{len(position.losses)} of {self.trainer.regime.steps} steps"
        return (
            f"{folder.path}: interrupted in epoch {position.epoch} after {steps}; the same command with --resume goes "
            "on"
        )

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, save the state as one whole, then write the files that others read."""
        state, trainer = self.state, self.trainer
        recalls = self._recalls(epoch)
        trainer.count_replaced(state.position)
        state.course.note(epoch, recalls)
        state.entry = entry = _entry(epoch, recalls, state.position, trainer)
        state.position, self.saved_steps = Position(epoch=epoch + 1), 0
        # The whole state first: a kill while the files below are written then loses no epoch.
        self._save()
        self._export()
        values: dict[str, float] = {"epoch": float(epoch)}
        values |= {name: entry[name] for name in REPORTED if name in entry} | (recalls or {})
        if entry.get("replaced"):
            values["replaced"] = entry["replaced"]
        self.context.progress("epoch", epoch, self.context.settings.epochs, values)
        log.info("epoch %d: %s", epoch, values)

    def _recalls(self, epoch: int) -> dict[str, float] | None:
        """Validation recalls; the first rank's count, so that all ranks stop at the same epoch."""
        if not self.validator.usable or (epoch == 0 and not self.context.settings.validate_start):
            return None
        frames = aligned_length(self.trainer.model, self.context.protocol.length)
        ranks = self.context.ranks
        # Frames of validation would push those of the training out of the cache, and be needed an epoch later only.
        with self.trainer.source.passing():
            recalls = self.validator(
                lambda table: to_host(self.trainer.describe_windows(table, "validate", epoch)),
                frames,
                ranks,
                self.context.device,
            )
        values: list[float] = ranks.from_first(np.array(list(recalls.values()))).tolist()
        return dict(zip(recalls, values, strict=True))

    def _export(self) -> None:
        """Write the files of an epoch that was finished but is not among them yet."""
        entry, self.state.entry = self.state.entry, None
        if entry is not None:
            self.context.ranks.lead(lambda: self._write(entry))

    def _write(self, entry: dict[str, Any]) -> None:
        """Metrics, best where it is the best, then last, whose optimiser JSON marks the epoch as finished."""
        course, trainer, folder = self.state.course, self.trainer, self.context.folder
        steps_before = folder.steps
        folder.add_metrics(entry)
        if self.board is not None:
            log_epoch(self.board, entry, steps_before)
        details = {"epoch": course.epoch, "val": entry["val"], "dataset": self.context.dataset.id}
        if course.best_epoch == course.epoch:
            checkpoint.save_model(folder.best, trainer.model, details)
        checkpoint.save_model(folder.last, trainer.model, details)
        checkpoint.save_optimizer(folder.last, trainer.optimizer, {"course": asdict(course)}, trainer.regime.head)
        run_state.clear(folder.checkpoints)


def _entry(epoch: int, recalls: dict[str, float] | None, position: Position, trainer: Trainer) -> dict[str, Any]:
    """A line of metrics.jsonl; `wait` is the share of training time spent waiting for data."""
    entry: dict[str, Any] = {"epoch": epoch, "steps": len(position.losses), "val": recalls}
    if position.replaced or position.losses:
        entry["replaced"] = position.replaced
    if not position.losses:
        return entry
    rates = optimizers.rates(trainer.optimizer, trainer.context.settings)
    means = {name: float(np.mean(getattr(position, name))) for name in ("active", "hardness")}
    seconds = position.waited + position.trained
    return {
        **entry,
        **means,
        "loss": float(np.mean(position.losses)),
        "losses": position.losses,
        "lr": rates[optimizers.BASE],
        "rates": rates,
        "mined_frames": position.mined_frames,
        "wait": position.waited / max(seconds, 1e-9),
        "seconds": seconds,
    }

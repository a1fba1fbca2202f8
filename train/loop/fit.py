"""The training loop: one thin loop over epochs, on one process or many, resumable between any two updates."""

import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqdata.contracts.protocol import Protocol
from seqdata.errors import DivergedError, Interrupted
from train.devices import pick_device
from train.loop import optimizers as optimisers
from train.loop.distributed import Ranks, joined, local_device
from train.loop.setup import assemble, describe_run
from train.loop.signals import Stop, Stopped
from train.loop.tensorboard import log_epoch, open_board
from train.loop.trainer import Progress, Trainer
from train.loop.validation import Validator
from train.loop.vlad_init import initialise_vlad
from train.losses.distances import frames_of
from train.runs import checkpoint
from train.runs import state as course
from train.runs.folder import RunFolder
from train.runs.state import Course, Position, State
from train.settings import TrainSettings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from seqdata.dataset.dataset import Dataset

log = logging.getLogger(__name__)
SHOWN = ("loss", "active", "hardness", "wait")


def _silent(phase: str, done: int, total: int, values: Mapping[str, float]) -> None:
    """The progress callback of those who give none, and of every rank but the first."""


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
    epoch, epochs (but at "epoch"), loss and recalls. With `resume` an interrupted run goes on where it was last saved,
    to the same numbers as an unbroken one; it needs no file and no download of weights again. With 0 epochs the
    untrained model is written as a run. Ctrl-C and SIGTERM save, then stop. Under `torchrun` the processes share each
    batch; all need to see `out`, only the first one writes there.
    Raises: OutputError when `out` holds something else, ContractError for settings that do not fit (or differ on
    resume), NotEnoughDataError without positives, DivergedError on a loss or gradient that is not finite, Interrupted
    when asked to stop, and what weights raise.
    """
    protocol = dataset.load_protocol(settings.protocol)
    folder = RunFolder(Path(out))
    resume = resume and folder.recorded
    device = local_device(pick_device(settings.device))
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with joined(device) as ranks, _repeatable(device), forked:
        what = f"{out} {settings.model_dump_json()} {dataset.id} {resume}"
        ranks.agree(zlib.crc32(what.encode()), "settings, dataset or --out")
        torch.manual_seed(settings.seed)
        try:
            with Stop() as stop:
                run = _Run(dataset, protocol, settings, folder, progress, ranks, device, stop, resume)
                return run.go()
        except (Interrupted, DivergedError) as error:
            if ranks.first:
                raise
            raise SystemExit(error.exit_code) from error


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA, kernels that give the same numbers every time, as a CPU's do anyway; else nothing.

    Left to itself cuDNN picks the fastest kernel by trying, and some of those add up in any order. Where an operation
    has no such kernel PyTorch warns and goes on.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, before = torch.backends.cudnn, torch.get_deterministic_debug_mode()
    kept = cudnn.deterministic, cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; without it sums may differ
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = kept
        torch.set_deterministic_debug_mode(before)


class _Run:
    """One run: what it is made of, its state, and the order in which things are kept."""

    def __init__(
        self,
        dataset: "Dataset",
        protocol: Protocol,
        settings: TrainSettings,
        folder: RunFolder,
        progress: Progress | None,
        ranks: Ranks,
        device: torch.device,
        stop: Stop,
        resume: bool,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.ranks = ranks
        self.progress = progress if progress is not None and ranks.first else _silent
        self.validator = Validator(dataset, protocol)
        self.resume = resume
        restoring = resume and course.begun(folder.checkpoints)
        others = self.validator.frame_rows()
        self.trainer = assemble(
            dataset, protocol, settings, folder, self.progress, ranks, device, stop, others, restoring
        )
        self.record = describe_run(protocol, self.trainer, restoring)
        self.frames = frames_of(self.trainer.model, protocol.length)
        self.state = State(Course(), Position())
        self.saved = 0
        self.board: SummaryWriter | None = None

    def go(self) -> Path:
        """Start or take up, train, and end with a record that says so."""
        self.ranks.lead(self._open)
        try:
            self._begin()
            self._epochs()
        except Stopped as stopped:
            raise Interrupted(self._leave()) from stopped
        finally:
            if self.board is not None:
                self.board.close()
        ended = {**self.record, "finished": True, "course_done": asdict(self.state.course)}
        self.ranks.lead(lambda: self.folder.write(ended))
        return self.folder.path

    def _open(self) -> None:
        """What the first rank alone writes to."""
        self.record = self.folder.open(self.record, self.resume)
        self.board = open_board(self.folder)

    def _begin(self) -> None:
        """The saved state, or that of an untrained model, which is epoch 0."""
        trainer = self.trainer
        found = course.restore(self.folder.checkpoints, trainer.model, trainer.optimizer) if self.resume else None
        if found is None:
            initialise_vlad(trainer.model, trainer.data, trainer.source, self.settings)
            self.ranks.same_weights(trainer.model)
            self._finish_epoch(0)
            return
        self.state = found
        self.saved = len(found.position.losses)
        self.folder.take_up(found.course.epoch - (found.entry is not None))
        self._export()

    def _epochs(self) -> None:
        state = self.state
        while state.course.epoch < self.settings.epochs and state.course.since_best < self.settings.patience:
            self.trainer.epoch(state.position, self._rest)
            self._finish_epoch(state.position.epoch)

    def _rest(self) -> None:
        """Between two updates: stop where that is asked for, save where it is time."""
        if self.ranks.any(self.trainer.stop.asked):
            raise Stopped
        every, done = self.settings.save_every, len(self.state.position.losses)
        if every and done - self.saved >= every:
            self._save()
            self.saved = done

    def _save(self) -> None:
        trainer = self.trainer
        self.ranks.lead(lambda: course.save(self.folder.checkpoints, self.state, trainer.model, trainer.optimizer))

    def _leave(self) -> str:
        """Save a run that was asked to stop; returns what to tell."""
        if not self.folder.started:
            return f"{self.folder.path}: interrupted before the first epoch; run the same command with --resume"
        self._save()
        at = self.state.position
        done = f"{len(at.losses)} of {self.trainer.regime.steps} steps"
        return (
            f"{self.folder.path}: interrupted in epoch {at.epoch} after {done}; the same command with --resume goes on"
        )

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, note, keep the state as one whole, then write the files that others read."""
        state, trainer = self.state, self.trainer
        recalls = self._recalls(epoch)
        state.course.note(epoch, recalls)
        state.entry = entry = _entry(epoch, recalls, state.position, trainer)
        state.position, self.saved = Position(epoch=epoch + 1), 0
        self._save()
        self._export()
        shown: dict[str, float] = {name: entry[name] for name in SHOWN if name in entry}
        values = {"epoch": float(epoch), **shown, **(recalls or {})}
        self.progress("epoch", epoch, self.settings.epochs, values)
        log.info("epoch %d: %s", epoch, values)

    def _recalls(self, epoch: int) -> dict[str, float] | None:
        """Validation recalls; the first rank's count, so that all ranks stop at the same epoch."""
        if not self.validator.usable:
            return None
        found = self.validator(lambda table: self.trainer.described(table, "validate", epoch), self.frames)
        values: list[float] = self.ranks.from_first(np.array(list(found.values()))).tolist()
        return dict(zip(found, values, strict=True))

    def _export(self) -> None:
        """Write the files of an epoch that was finished but is not among them yet."""
        entry, self.state.entry = self.state.entry, None
        if entry is not None:
            self.ranks.lead(lambda: self._write(entry))

    def _write(self, entry: dict[str, Any]) -> None:
        """Metrics, best where it is the best, then last, whose optimiser JSON marks the epoch as done."""
        state, trainer, folder = self.state, self.trainer, self.folder
        before = folder.steps
        folder.add_metrics(entry)
        if self.board is not None:
            log_epoch(self.board, entry, before)
        details = {"epoch": state.course.epoch, "val": entry["val"], "dataset": trainer.dataset.id}
        if state.course.best_epoch == state.course.epoch:
            checkpoint.save_model(folder.best, trainer.model, details)
        checkpoint.save_model(folder.last, trainer.model, details)
        checkpoint.save_optimizer(folder.last, trainer.optimizer, {"course": asdict(state.course)})
        course.clear(folder.checkpoints)


def _entry(epoch: int, recalls: dict[str, float] | None, at: Position, trainer: Trainer) -> dict[str, Any]:
    """A line of metrics.jsonl; `wait` is the share of training time spent waiting for data."""
    entry: dict[str, Any] = {"epoch": epoch, "steps": len(at.losses), "val": recalls}
    if not at.losses:
        return entry
    rates = optimisers.rates(trainer.optimizer, trainer.settings)
    means = {name: float(np.mean(getattr(at, name))) for name in ("active", "hardness")}
    wait = at.waited / max(at.waited + at.trained, 1e-9)
    return {
        **entry,
        **means,
        "loss": float(np.mean(at.losses)),
        "losses": at.losses,
        "lr": rates[optimisers.BASE],
        "rates": rates,
        "mined_frames": at.mined_frames,
        "wait": wait,
        "seconds": at.waited + at.trained,
    }

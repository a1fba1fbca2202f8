"""Epochs of optimisation: mine, read, describe, loss, update; between two updates a run can be left and resumed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import ContractError, DivergedError
from seqdata.frames.prefetch import prefetch
from seqdata.geometry import IntArray
from seqdata.storage.files import write_json_atomic
from train.data.augment import Augment
from train.data.describe import describe_in_place
from train.data.frames import WindowFrames, WindowSource
from train.data.upload import Sent, Upload
from train.devices import autocast
from train.loop import memory, optimizers
from train.loop.context import RunContext
from train.loop.distributed import GradientSum
from train.loop.readings import Readings
from train.loop.signals import Stopped
from train.loop.step import StepFunction
from train.models.base import SequenceModel
from train.runs.checkpoint import weights_hash
from train.runs.state import Position
from train.sampling import mined_files
from train.sampling.mining import Triplets
from train.sampling.regimes import Regime, Round, Step
from train.sampling.windows import TrainData, drive_groups


@dataclass(frozen=True)
class Loaded:
    """A rank's share of a step with its frames (M, …), on their way to the device.

    `groups` (N,): drives that the distinct frames of the whole step belong to; `positions` (M,): where the share's
    frames stand among those; `windows`: how many rows of the share are windows, single frames follow them.
    """

    step: Step
    share: WindowFrames
    frames: Sent
    index: Sent
    groups: IntArray
    positions: IntArray
    windows: int


@dataclass
class Trainer:
    """A run's model with all that its epochs need; `describe_step` is the model's `StepModel`, compiled or not."""

    context: RunContext
    data: TrainData
    model: SequenceModel
    describe_step: StepFunction
    regime: Regime
    optimizer: torch.optim.Optimizer
    source: WindowSource

    @cached_property
    def readings(self) -> Readings:
        """Losses and gradients that the host has not looked at yet."""
        return Readings(self.context.device)

    @cached_property
    def upload(self) -> Upload:
        """The way of frames to the device."""
        return Upload(self.context.device)

    @cached_property
    def sum_gradients(self) -> GradientSum:
        """Adds up the gradients of all processes."""
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return GradientSum(self.context.ranks, parameters)

    def epoch(self, position: Position, between_updates: Callable[[], None]) -> None:
        """Train the rest of an epoch.

        Args:
            position: Where the epoch stands; it moves along.
            between_updates: Called after every update that is not the epoch's last: a place to save, or to stop by
                `Stopped`.

        Raises:
            DivergedError: If a loss, a gradient or a mined descriptor is not finite.
            Stopped: From `between_updates`, or while descriptors are computed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        while position.round < self.regime.rounds:
            current = self.regime.round(position.epoch, position.round, self._mined(position))
            self.model.train()
            self._train(current, position, between_updates)
            position.next_round()

    def _mined(self, position: Position) -> Triplets | None:
        """The round's tuples: mined with the present weights, or those on disk when the round has begun."""
        if position.step:
            if position.weights is None:
                return None
            return mined_files.load(self.context.folder.mined, self._origin(position, position.weights))
        described_frames = 0

        def describe_rows(windows: IntArray) -> Tensor:
            nonlocal described_frames
            described_frames += len(np.unique(self.data.frame_rows[windows]))
            return self.describe_windows(self.data.pixel_windows(windows), "mine", position.epoch)

        mined = self.regime.mine(position.epoch, position.round, describe_rows, self.context.ranks)
        if mined is None:
            return None
        weights = weights_hash(self.model)
        origin = self._origin(position, weights)
        self.context.ranks.lead(lambda: mined_files.save(self.context.folder.mined, mined, origin))
        position.weights = weights
        position.mined_frames += self.context.ranks.total(described_frames)
        self.count_replaced(position)
        return mined

    def _origin(self, position: Position, weights: str) -> mined_files.Origin:
        context = self.context
        return mined_files.Origin(context.dataset.id, context.protocol.hash, weights, position.epoch, position.round)

    def count_replaced(self, position: Position) -> None:
        """Add the frames that described windows showed in the place of damaged ones to the epoch's count."""
        position.replaced += self.context.ranks.total(self.source.replaced)
        self.source.replaced = 0

    def describe_windows(self, table: pl.DataFrame, phase: str, epoch: int) -> Tensor:
        """Describe windows in eval mode, each rank its own; all must call, and where one ends, all do.

        Args:
            table: Window table.
            phase: What is reported to `progress`.
            epoch: What is reported to `progress`.

        Returns:
            Descriptors (n, D) in table order, on the model's device where there is room.

        Raises:
            Stopped: If a signal to stop comes meanwhile, to any rank.
            DivergedError: If a descriptor is not finite, on every rank.
        """
        context, ranks = self.context, self.context.ranks
        values = {"epoch": epoch, "epochs": context.settings.epochs}
        ending: Stopped | DivergedError | None = None
        descriptors = torch.zeros(0, 0)
        try:
            descriptors = describe_in_place(
                self.model,
                context.dataset,
                table,
                device=str(context.device),
                batch_size=context.settings.frame_batch,
                source=self.source,
                precision=context.settings.precision,
                progress=lambda count, total: self._report_described(phase, count, total, values),
            )
        except (Stopped, DivergedError) as error:
            ending = error
        # A rank that ended alone would leave the others waiting for its share for ever: all end together.
        if ranks.any(isinstance(ending, DivergedError)):
            raise ending or DivergedError("descriptors hold NaN or infinity on another process: the model has diverged")
        if ranks.any(ending is not None):
            raise ending or Stopped
        return descriptors

    def _report_described(self, phase: str, count: int, total: int, values: Mapping[str, float]) -> None:
        self.context.progress(phase, count, total, values)
        self.context.stop.check()

    def _train(self, current: Round, position: Position, between_updates: Callable[[], None]) -> None:
        """The steps of a round that are left, `accumulate` an update."""
        accumulate, last_round = self.context.settings.accumulate, self.regime.rounds - 1
        ahead = prefetch(islice(current.steps, position.step, None), self._load)
        windows: list[IntArray] = []
        for loaded in _timed(ahead, position):
            # The last update of a round may have fewer steps than the others; each counts as its share of the update.
            steps_of_update = min(accumulate, current.count - position.step // accumulate * accumulate)
            try:
                self._backward(loaded, position, steps_of_update)
                is_full = False
            except torch.OutOfMemoryError:
                is_full = True
            if is_full:  # not within the except: its traceback would hold the step's tensors
                raise self._full_memory(loaded)
            windows.append(loaded.step.windows)
            position.step += 1
            if position.step % accumulate and position.step < current.count:
                continue
            self._update(position, windows)
            windows.clear()
            if position.step < current.count or position.round < last_round:
                between_updates()
        self.readings.settle()

    def _load(self, step: Step) -> Loaded:
        """Read the frames of this rank's share of a step (in the thread that reads ahead)."""
        rows, share = self.data.frame_rows[step.windows], self.context.ranks.share(step.count)
        # A single frame is read as a window that repeats it, so that one reader and one share hold for both.
        rows = np.concatenate([rows, np.repeat(step.frames[:, None], rows.shape[1], axis=1)])
        distinct, index = np.unique(rows, return_inverse=True)
        groups = drive_groups(index.reshape(rows.shape), len(distinct))
        frames = self.source.read_windows(rows[share])
        sent = self.upload.send(frames.frames), self.upload.send(frames.index)
        windows = min(max(len(step.windows) - share.start, 0), share.stop - share.start)
        return Loaded(step, frames, *sent, groups, np.searchsorted(distinct, frames.rows), windows)

    def _backward(self, loaded: Loaded, position: Position, steps_of_update: int) -> None:
        """Add the gradient of one step, one of `steps_of_update` that make an update."""
        context, number = self.context, len(position.losses)
        torch.manual_seed(_seed(context.settings.seed, position.epoch, number, context.ranks.rank))
        share = self._describe_batch(loaded, position.epoch, number)
        descriptors = context.ranks.gather(share, loaded.step.count)
        loss = loaded.step.loss(descriptors)
        # Losses are added to the history when they are known; on a card that is some steps later.
        for history in (position.losses, position.active, position.hardness):
            history.append(math.nan)
        values = torch.cat([loss.detach().view(1), loaded.step.statistics(descriptors.detach())])
        self.readings.add(values, partial(self._note_step, position, number, loaded.step.windows))
        if loss.requires_grad:
            (loss / steps_of_update).backward()  # type: ignore[no-untyped-call]
        position.replaced += context.ranks.total(loaded.share.replaced)

    def _note_step(self, position: Position, number: int, windows: IntArray, values: list[float]) -> None:
        """Take up loss, active share and hardness of a step. Raises: DivergedError for a loss that is not finite."""
        context = self.context
        if not math.isfinite(values[0]):
            self._diverged("loss", values[0], windows, position.epoch, number)
        for history, value in zip((position.losses, position.active, position.hardness), values, strict=True):
            history[number] = value
        report = {"epoch": position.epoch, "epochs": context.settings.epochs, "loss": values[0]}
        context.progress("train", number + 1, self.regime.steps, report)

    def _update(self, position: Position, steps: list[IntArray]) -> None:
        """One optimiser step, from the losses of the windows of `steps`, at the rates of the last of them."""
        number, windows = len(position.losses) - 1, np.concatenate(steps)
        self.sum_gradients()
        largest = optimizers.largest_gradient(self.optimizer)
        self.readings.add(largest, partial(self._check_gradient, position.epoch, number, windows))
        # Of this update nothing is waited for: the card always has one in work while the next is queued. Where it has
        # diverged, weights are spoilt by then, but none are written before all is settled.
        self.readings.settle(newest=len(steps) + 1)
        optimizers.set_rates(self.optimizer, self.context.settings, position.epoch, number, self.regime.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _check_gradient(self, epoch: int, number: int, windows: IntArray, values: list[float]) -> None:
        if not math.isfinite(values[0]):
            self._diverged("gradient", values[0], windows, epoch, number)

    def _describe_batch(self, loaded: Loaded, epoch: int, step: int) -> Tensor:
        """Descriptors of the share (b, D) with gradients; each distinct frame is encoded once."""
        settings, device = self.context.settings, self.context.device
        if len(loaded.share.index) == 0:
            return torch.zeros(0, self.model.descriptor_size(self.data.frame_rows.shape[1]), device=device)
        frames = self.upload.receive(loaded.frames)
        if self.source.pixels:
            augment = Augment(shift=settings.shift, light=settings.light, mirror=settings.mirror, erase=settings.erase)
            groups, positions = torch.from_numpy(loaded.groups), torch.from_numpy(loaded.positions)
            # Drawn for the frames of the whole step on every rank, so that any number of ranks changes them alike.
            changes = augment.draw(groups, torch.Generator().manual_seed(_seed(settings.seed, epoch, step)))
            frames = augment.apply(frames, groups[positions], changes.select(positions))
        with autocast(device, "bf16" if settings.amp else settings.precision):
            index = self.upload.receive(loaded.index)
            if not len(loaded.step.frames):
                return self.describe_step(frames, index)
            return self.describe_step(frames, index[: loaded.windows], index[loaded.windows :, 0])

    def _full_memory(self, loaded: Loaded) -> ContractError:
        """The error of a step that does not fit; two small steps are tried to learn what would."""
        settings, device = self.context.settings, self.context.device
        setting = "places" if settings.regime == "places" else "batch"
        count = getattr(settings, setting)
        self.optimizer.zero_grad(set_to_none=True)

        def peak(part: int) -> float:
            windows = loaded.share.index[: -(-len(loaded.share.index) * part // count)]
            rows, index = np.unique(windows, return_inverse=True)
            frames, index = loaded.share.frames[rows], index.reshape(windows.shape)
            return memory.cuda_peak(lambda: self._try_step(frames, index), device)

        return memory.full_memory(setting, count, peak, torch.cuda.mem_get_info(device)[1])

    def _try_step(self, frames: NDArray[Any] | Tensor, index: IntArray) -> None:
        """Forward and backward of some windows, without an update."""
        device = self.context.device
        with autocast(device, "bf16" if self.context.settings.amp else self.context.settings.precision):
            vectors = self.describe_step(torch.as_tensor(frames).to(device), torch.from_numpy(index).to(device))
        vectors.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)

    def _diverged(self, quantity: str, value: float, windows: IntArray, epoch: int, number: int) -> None:
        """End the run with the sequences behind a loss or gradient that is not finite."""
        ids = self.data.sequence_ids(windows)
        path = self.context.folder.path / "diverged.json"
        record = {"epoch": epoch, "step": number, quantity: str(value), "sequences": ids}
        self.context.ranks.lead(lambda: write_json_atomic(path, record))
        raise DivergedError(
            f"{quantity} is {value} at epoch {epoch}, step {number}, on sequences {', '.join(ids[:6])}"
            f"{' …' if len(ids) > 6 else ''} (all in {path}); lower the learning rate, or look at these frames"
        )


def _timed(items: Iterator[Loaded], position: Position) -> Iterator[Loaded]:
    """Pass items on; note the time spent waiting for them and the time between."""
    start = time.perf_counter()
    for loaded in items:
        position.waited += time.perf_counter() - start
        start = time.perf_counter()
        yield loaded
        position.trained += time.perf_counter() - start
        start = time.perf_counter()


def _seed(*parts: int) -> int:
    """A seed that is a pure function of its parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

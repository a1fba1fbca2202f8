"""Epochs of optimisation: mine, read, describe, loss, update; between two updates a run can be left and taken up."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import DivergedError
from seqdata.storage.files import write_json_atomic
from train.data.augment import Augment
from train.data.describe import describe
from train.data.frames import FrameSource
from train.data.prefetch import prefetch
from train.devices import autocast
from train.loop import optimizers as optimisers
from train.loop.distributed import Ranks
from train.loop.signals import Stop, Stopped
from train.models.base import SequenceModel
from train.runs.checkpoint import weights_hash
from train.runs.folder import RunFolder
from train.runs.state import Position
from train.sampling import mined_files as tuples
from train.sampling.mining import Triplets
from train.sampling.regimes import Regime, Round, Step
from train.sampling.windows import TrainData, drive_groups
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Loaded:
    """A rank's share of a step with its frames: uint8 `(M, 3, H, W)`, or stored features of each, `(M, ...)`.

    `inverse` `(B, L)`: rows of each window of the share into them. `groups` `(N,)`: drives that the distinct frames of
    the whole step belong to; `places` `(M,)`: where the share's frames stand among those.
    """

    step: Step
    frames: NDArray[Any]
    inverse: NDArray[np.int64]
    groups: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass
class Trainer:
    """What an epoch needs, held together; `describe_step` is the model's `StepModel`, compiled or not.

    `resting` is called after every update that is not an epoch's last: a place to save, or to stop by `Stopped`.
    """

    dataset: "Dataset"
    protocol_hash: str
    data: TrainData
    model: SequenceModel
    describe_step: Callable[[Tensor, Tensor], Tensor]
    regime: Regime
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    source: FrameSource
    device: torch.device
    folder: RunFolder
    progress: Progress
    ranks: Ranks
    stop: Stop

    def epoch(self, at: Position, resting: Callable[[], None]) -> None:
        """Train the rest of an epoch from `at`, which moves along. Raises: DivergedError, Stopped."""
        self.optimizer.zero_grad(set_to_none=True)
        while at.round < self.regime.rounds:
            a_round = self.regime.round(at.epoch, at.round, self._mined(at))
            self.model.train()
            self._train(a_round, at, resting)
            at.next_round()

    def _mined(self, at: Position) -> Triplets | None:
        """The round's tuples: mined with the present weights, or those on disk when the round has begun."""
        if at.step:
            return None if at.weights is None else tuples.load(self.folder.mined, self._origin(at, at.weights))
        described = 0

        def rows(windows: NDArray[np.int64]) -> NDArray[np.float32]:
            nonlocal described
            described = len(np.unique(self.data.frame_rows[windows]))
            return self.described(self.data.shown[windows], "mine", at.epoch)

        mined = self.regime.mine(at.epoch, at.round, rows)
        if mined is None:
            return None
        found = np.column_stack([mined.query, mined.positive, mined.negatives]).astype(np.float64)
        table = self.ranks.from_first(found).astype(np.int64)
        mined = Triplets(table[:, 0], table[:, 1], table[:, 2:])
        weights = weights_hash(self.model)
        self.ranks.lead(lambda: tuples.save(self.folder.mined, mined, self._origin(at, weights)))
        at.weights, at.mined_frames = weights, at.mined_frames + described
        return mined

    def _origin(self, at: Position, weights: str) -> tuples.Origin:
        return tuples.Origin(self.dataset.id, self.protocol_hash, weights, at.epoch, at.round)

    def described(self, table: pl.DataFrame, phase: str, epoch: int) -> NDArray[np.float32]:
        """Descriptors `(n, D)` of windows in eval mode, in table order; each rank does a stretch of every track.

        `phase` and `epoch` are what `progress` is told.

        Raises: Stopped when the run is asked to stop meanwhile.
        """
        told = {"epoch": epoch, "epochs": self.settings.epochs}
        order = table.with_row_index("_row").sort("track", "first")["_row"].to_numpy()
        mine = order[self.ranks.share(len(order))]
        try:
            share = describe(
                self.model,
                self.dataset,
                table[mine],
                device=str(self.device),
                batch_size=self.settings.frame_batch,
                source=self.source,
                progress=lambda done, total: self._described_some(phase, done, total, told),
            )
            stopped = False
        except Stopped:
            share, stopped = np.zeros((0, 0), np.float32), True
        if self.ranks.any(stopped):
            raise Stopped
        gathered = self.ranks.gather_rows(share, len(order))
        vectors = np.empty_like(gathered)
        vectors[order] = gathered
        return vectors

    def _described_some(self, phase: str, done: int, total: int, told: Mapping[str, float]) -> None:
        self.progress(phase, done, total, told)
        self.stop.check()

    def _train(self, a_round: Round, at: Position, resting: Callable[[], None]) -> None:
        """The steps of a round that are left, `accumulate` an update."""
        each, last = self.settings.accumulate, self.regime.rounds - 1
        left = prefetch(islice(a_round.steps, at.step, None), self._load)
        windows: list[NDArray[np.int64]] = []
        for loaded in self._waiting(left, at):
            together = min(each, a_round.count - at.step // each * each)
            self._backward(loaded, at, together)
            windows.append(loaded.step.windows)
            at.step += 1
            if at.step % each and at.step < a_round.count:
                continue
            self._update(at, np.concatenate(windows))
            windows.clear()
            if at.step < a_round.count or at.round < last:
                resting()

    def _waiting(self, items: Iterator[Loaded], at: Position) -> Iterator[Loaded]:
        """The items, while the time spent waiting for them and the time between are noted."""
        began = time.perf_counter()
        for loaded in items:
            at.waited += time.perf_counter() - began
            began = time.perf_counter()
            yield loaded
            at.trained += time.perf_counter() - began
            began = time.perf_counter()

    def _load(self, step: Step) -> Loaded:
        rows, share = self.data.frame_rows[step.windows], self.ranks.share(len(step.windows))
        distinct, whole = np.unique(rows, return_inverse=True)
        groups = drive_groups(whole.reshape(rows.shape), len(distinct))
        own, inverse = np.unique(rows[share], return_inverse=True)
        frames = self.source.read(own) if len(own) else np.zeros(0)
        return Loaded(step, frames, inverse.reshape(rows[share].shape), groups, np.searchsorted(distinct, own))

    def _backward(self, loaded: Loaded, at: Position, together: int) -> None:
        """Add the gradient of one step, one of `together` that make an update."""
        number = len(at.losses)
        torch.manual_seed(_seed(self.settings.seed, at.epoch, number, self.ranks.rank))
        share = self._describe_batch(loaded, at.epoch, number)
        descriptors = self.ranks.gather(share, len(loaded.step.windows))
        loss = loaded.step.loss(descriptors)
        if not bool(loss.isfinite()):
            self._diverged("loss", float(loss.detach()), loaded.step.windows, at.epoch, number)
        if loss.requires_grad:
            (loss / together).backward()  # type: ignore[no-untyped-call]
        values = torch.cat([loss.detach().view(1), loaded.step.notes(descriptors.detach())]).tolist()
        for kept, value in zip((at.losses, at.active, at.hardness), values, strict=True):
            kept.append(value)
        shown = {"epoch": at.epoch, "epochs": self.settings.epochs, "loss": values[0]}
        self.progress("train", len(at.losses), self.regime.steps, shown)

    def _update(self, at: Position, windows: NDArray[np.int64]) -> None:
        """One optimiser step, from the losses of `windows`, at the rates of its last step of training."""
        number = len(at.losses) - 1
        self.ranks.sum_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        largest = optimisers.largest_gradient(self.optimizer)
        if not math.isfinite(largest):
            self._diverged("gradient", largest, windows, at.epoch, number)
        optimisers.set_rates(self.optimizer, self.settings, at.epoch, number, self.regime.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _describe_batch(self, loaded: Loaded, epoch: int, step: int) -> Tensor:
        """Descriptors of the share `(b, D)` with gradients; each distinct frame is encoded once."""
        s = self.settings
        if len(loaded.inverse) == 0:
            return torch.zeros(0, self.model.descriptor_size(self.data.frame_rows.shape[1]), device=self.device)
        frames = torch.from_numpy(loaded.frames).to(self.device)
        if self.source.pixels:
            augment = Augment(shift=s.shift, light=s.light, mirror=s.mirror, erase=s.erase)
            groups, places = torch.from_numpy(loaded.groups), torch.from_numpy(loaded.places)
            changes = augment.draw(groups, torch.Generator().manual_seed(_seed(s.seed, epoch, step)))
            frames = augment.apply(frames, groups[places], changes.of(places))
        with autocast(self.device, s.amp):
            return self.describe_step(frames, torch.from_numpy(loaded.inverse).to(self.device))

    def _diverged(self, what: str, value: float, windows: NDArray[np.int64], epoch: int, number: int) -> None:
        """Leave with the sequences behind a loss or gradient that is not finite."""
        ids = self.data.sequence_ids(windows)
        path = self.folder.path / "diverged.json"
        record = {"epoch": epoch, "step": number, what: str(value), "sequences": ids}
        self.ranks.lead(lambda: write_json_atomic(path, record))
        raise DivergedError(
            f"{what} is {value} at epoch {epoch}, step {number}, on sequences {', '.join(ids[:6])}"
            f"{' …' if len(ids) > 6 else ''} (all in {path}); lower the learning rate, or look at these frames"
        )


def _seed(*parts: int) -> int:
    """A seed that is a pure function of its parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

"""One epoch of optimisation: frames of a step once each, descriptors, loss, update."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqdata.storage import write_json_atomic
from train.augment import Augment
from train.data import TrainData, drive_groups
from train.describing import describe
from train.devices import autocast
from train.errors import DivergedError
from train.frames import FrameSource
from train.prefetch import prefetch
from train.regimes import Regime, Step
from train.runs import RunFolder
from train.schedule import rate
from train.sequence_model import SequenceModel
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset import Dataset

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Loaded:
    """A step with its frames: uint8 `(M, 3, H, W)`, or stored features of each, `(M, ...)`.

    `inverse` `(B, L)`: rows of each window into them; `groups` `(M,)`: drives they belong to.
    """

    step: Step
    frames: NDArray[Any]
    inverse: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass
class Trainer:
    """What an epoch needs, held together; `epoch` runs one and returns its mean loss."""

    dataset: "Dataset"
    data: TrainData
    model: SequenceModel
    regime: Regime
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    source: FrameSource
    device: torch.device
    folder: RunFolder
    progress: Progress

    def epoch(self, epoch: int) -> list[float]:
        """Train epoch `epoch` (counted from 1); returns the loss of every step. Raises: DivergedError."""
        torch.manual_seed(_seed(self.settings.seed, epoch))
        losses: list[float] = []
        for steps in self.regime.rounds(epoch, self._describe):
            self.model.train()
            for loaded in prefetch(steps, self._load):
                losses.append(self._update(loaded, epoch, len(losses)))
                self.progress("train", len(losses), self.regime.steps, {"epoch": epoch, "loss": losses[-1]})
        return losses

    def _describe(self, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Descriptors of training windows in eval mode, for mining."""
        table = self.data.shown[windows]
        return describe(
            self.model,
            self.dataset,
            table,
            device=str(self.device),
            batch_size=self.settings.frame_batch,
            source=self.source,
            progress=lambda done, total: self.progress("mine", done, total, {}),
        )

    def _load(self, step: Step) -> Loaded:
        distinct, inverse = np.unique(self.data.frame_rows[step.windows], return_inverse=True)
        inverse = inverse.reshape(len(step.windows), -1)
        return Loaded(step, self.source.read(distinct), inverse, drive_groups(inverse, len(distinct)))

    def _update(self, loaded: Loaded, epoch: int, step: int) -> float:
        """One optimiser step; returns its loss."""
        s = self.settings
        done = (epoch - 1 + step / max(1, self.regime.steps)) / s.epochs
        total = (epoch - 1) * self.regime.steps + step
        for group in self.optimizer.param_groups:
            group["lr"] = rate(s.lr, s.schedule, done, total, s.warmup)
        loss = loaded.step.loss(self._describe_batch(loaded, epoch, step))
        if not bool(loss.isfinite()):
            self._diverged(loaded.step, epoch, step, float(loss.detach()))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def _describe_batch(self, loaded: Loaded, epoch: int, step: int) -> Tensor:
        """Descriptors `(B, D)` with gradients; each distinct frame is encoded once."""
        s = self.settings
        augment = Augment(shift=s.shift, light=s.light, mirror=s.mirror, erase=s.erase)
        generator = torch.Generator().manual_seed(_seed(s.seed, epoch, step))
        frames = torch.from_numpy(loaded.frames).to(self.device)
        if self.source.pixels:
            frames = augment(frames, torch.from_numpy(loaded.groups), generator)
        with autocast(self.device, s.amp):
            features = self.source.encode(self.model, frames)
            return self.model.fuse_rows(features, torch.from_numpy(loaded.inverse).to(self.device)).float()

    def _diverged(self, step: Step, epoch: int, number: int, loss: float) -> None:
        ids = self.data.sequence_ids(step.windows)
        path = self.folder.path / "diverged.json"
        write_json_atomic(path, {"epoch": epoch, "step": number, "loss": str(loss), "sequences": ids})
        raise DivergedError(
            f"loss is {loss} at epoch {epoch}, step {number}, on sequences {', '.join(ids[:6])}"
            f"{' …' if len(ids) > 6 else ''} (all in {path}); lower the learning rate, or look at these frames"
        )


def _seed(*parts: int) -> int:
    """A seed that is a pure function of its parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])

"""What every part of a training run shares: the dataset, the settings, the folder, and the process it runs in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from seqdata.contracts.protocol import Protocol
from train.devices.ranks import Ranks
from train.loop.signals import Stop
from train.runs.folder import RunFolder
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset

EpochProgress = Callable[[str, int, int, Mapping[str, float]], None]
"""A callback: phase ("train", "mine", "validate" or "epoch"), items finished, items in all, and named numbers."""


@dataclass(frozen=True)
class RunContext:
    """One run in one process; `device` is the model's, `ranks` the processes that train it together."""

    dataset: "Dataset"
    protocol: Protocol
    settings: TrainSettings
    folder: RunFolder
    progress: EpochProgress
    ranks: Ranks
    device: torch.device
    stop: Stop

"""Training regimes: which windows stand in a step, and what their loss is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqdata.errors import ContractError
from train.data import TrainData
from train.losses import ContrastiveLoss, PlaceLoss, TripletLoss
from train.mining import Triplets, mine
from train.places import PlaceBatch, PlaceSampler
from train.relations import Radii
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset import Dataset

Integers = NDArray[np.int64]
DescribeRows = Callable[[Integers], NDArray[np.float32]]


@dataclass(frozen=True)
class Step:
    """Windows of one optimiser step, rows `(B,)` of the training data, and the loss of their descriptors `(B, D)`."""

    windows: Integers
    loss: Callable[[Tensor], Tensor]


class Regime(Protocol):
    """A regime gives an epoch as rounds of steps; within a round the steps do not depend on the weights."""

    @property
    def steps(self) -> int:
        """Steps of an epoch (the most there can be)."""

    def rounds(self, epoch: int, describe: DescribeRows) -> Iterator[Iterable[Step]]:
        """The rounds of an epoch; `describe` gives descriptors with the present weights."""


def create(
    dataset: "Dataset", data: TrainData, radii: Radii, settings: TrainSettings, frames: int | None = None
) -> Regime:
    """The regime that the settings name; `frames` says how descriptors are compared (see `train.distances`).

    Raises: ContractError for place batches of descriptors that are compared frame by frame.
    """
    if settings.regime == "triplet":
        return TripletRegime(dataset, data, radii, settings, frames)
    if frames is not None:
        raise ContractError(f"model {settings.model} is compared frame by frame; train it with regime=triplet")
    return PlaceRegime(dataset, data, radii, settings)


class TripletRegime:
    """Triplets from P1's partial mining, drawn anew every round. Source: P1 section IV-A."""

    def __init__(
        self, dataset: "Dataset", data: TrainData, radii: Radii, settings: TrainSettings, frames: int | None = None
    ) -> None:
        self.dataset = dataset
        self.data = data
        self.radii = radii
        self.settings = settings
        self.frames = frames
        self.loss = TripletLoss(settings.margin, frames=frames, skip_easy=settings.skip_easy)

    @property
    def steps(self) -> int:
        """Steps of an epoch when every drawn query gives a triplet."""
        a_round = min(self.settings.round_queries, len(self.data.queries))
        return self.settings.rounds * -(-a_round // self.settings.batch)

    def rounds(self, epoch: int, describe: DescribeRows) -> Iterator[list[Step]]:
        """Mine and yield each round's steps."""
        for number in range(self.settings.rounds):
            triplets = mine(
                self.dataset,
                self.data.queries,
                self.data.database,
                self.radii,
                describe,
                size=self.settings.round_queries,
                negatives=self.settings.negatives,
                cap=self.settings.positives_cap,
                key=(self.settings.seed, epoch, number),
                frames=self.frames,
            )
            starts = range(0, len(triplets.query), self.settings.batch)
            yield [self._step(triplets, slice(start, start + self.settings.batch)) for start in starts]

    def _step(self, triplets: Triplets, part: slice) -> Step:
        """Windows in the order queries, positives, negatives."""
        query, positive, negatives = triplets.query[part], triplets.positive[part], triplets.negatives[part]
        count, each = negatives.shape
        offset = len(self.data.queries)

        def loss(descriptors: Tensor) -> Tensor:
            near, far = descriptors[: 2 * count], descriptors[2 * count :]
            result: Tensor = self.loss(near[:count], near[count:], far.view(count, each, -1))
            return result

        return Step(np.concatenate([query, offset + positive, offset + negatives.ravel()]), loss)


class PlaceRegime:
    """Place batches with geometric pair masks. Source: methods, "place-batch training"."""

    def __init__(self, dataset: "Dataset", data: TrainData, radii: Radii, settings: TrainSettings) -> None:
        self.sampler = PlaceSampler(
            dataset,
            data.queries,
            data.database,
            radii,
            places=settings.places,
            windows=settings.windows,
            run=settings.run,
            cross=settings.pairs == "cross",
            seed=settings.seed,
        )
        self._steps = settings.steps or -(-len(data.queries) // settings.places)
        contrastive = settings.loss == "contrastive"
        self.loss = ContrastiveLoss(settings.temperature) if contrastive else PlaceLoss()

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._steps

    def rounds(self, epoch: int, describe: DescribeRows) -> Iterator[Iterator[Step]]:
        """One round, an epoch long."""
        yield map(self._step, self.sampler.epoch(epoch, self._steps))

    def _step(self, batch: PlaceBatch) -> Step:
        def loss(descriptors: Tensor) -> Tensor:
            positive, negative = (
                torch.from_numpy(mask).to(descriptors.device) for mask in (batch.positive, batch.negative)
            )
            result: Tensor = self.loss(descriptors, positive, negative)
            return result

        return Step(batch.windows, loss)

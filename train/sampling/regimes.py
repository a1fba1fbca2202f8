"""Training regimes: which windows stand in a step, and what their loss is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from seqdata.errors import ContractError
from seqdata.geometry import IntArray
from train.devices import to_device
from train.devices.ranks import ALONE, Ranks
from train.losses.cosface import CosFaceLoss
from train.losses.multi_similarity import pair_statistics
from train.losses.registry import create_pair_loss
from train.losses.triplet import TripletLoss
from train.sampling.frame_classes import ClassGrid, FrameClasses
from train.sampling.mining import DescribeRows, RoundSizes, Triplets, mine
from train.sampling.pairs import FindPositives, Radii, positive_finder
from train.sampling.place_batches import PlaceBatch, PlaceSampler
from train.sampling.windows import TrainData
from train.settings import TrainSettings

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset


@dataclass(frozen=True)
class Step:
    """One step of training.

    Attributes:
        windows: Rows (B,) of the training data.
        loss: Maps their descriptors (B, D) to the loss.
        statistics: Maps them to (2,): the share of active triplets, and hardness, the mean distance by which the
            nearest negative lies farther than the positive.
        frames: Frame rows (n,) whose own vectors follow the descriptors in what `loss` and `statistics` get.
    """

    windows: IntArray
    loss: Callable[[Tensor], Tensor]
    statistics: Callable[[Tensor], Tensor]
    frames: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """Windows and single frames."""
        return len(self.windows) + len(self.frames)


@dataclass(frozen=True)
class Round:
    """`count` steps in order; they do not depend on the weights, and taking one reads no frames."""

    count: int
    steps: Iterable[Step]


class Regime(Protocol):
    """An epoch is `rounds` rounds of steps; each round has an address and can be taken up anywhere.

    Attributes:
        head: What the loss trains beside the model, such as vectors of classes; None for most.
    """

    head: nn.Module | None

    @property
    def rounds(self) -> int:
        """Rounds of an epoch."""

    @property
    def steps(self) -> int:
        """Steps of an epoch (the most there can be)."""

    def mine(self, epoch: int, number: int, describe: DescribeRows, ranks: Ranks = ALONE) -> Triplets | None:
        """What a round needs the present weights for; `describe` gives descriptors with them. None: nothing.

        The processes `ranks` all call, and all get the same.
        """

    def round(self, epoch: int, number: int, mined: Triplets | None) -> Round:
        """Round `number` (from 0) of epoch `epoch` (from 1): a pure function of these and the settings."""


def create(
    dataset: "Dataset",
    data: TrainData,
    radii: Radii,
    settings: TrainSettings,
    frames: int | None = None,
    vector_size: int | None = None,
) -> Regime:
    """Create the regime that the settings name.

    Args:
        dataset: The dataset.
        data: Windows to train on.
        radii: Which are positives and negatives of each other.
        settings: Names the regime and its numbers.
        frames: How descriptors are compared (see `train.losses.distances`).
        vector_size: Numbers of a frame's own vector, where a window's descriptor has as many; else None.

    Raises:
        ContractError: For place batches of descriptors that are compared frame by frame, and for joint training of a
            model whose frames have no such vector.
    """
    if settings.regime == "triplet":
        return TripletRegime(dataset, data, radii, settings, frames)
    # The masks of place batches compare whole descriptors in one product; frames would need it for each pair of them.
    if frames is not None:
        raise ContractError(f"model {settings.model} is compared frame by frame; train it with regime=triplet")
    if settings.regime == "places":
        return PlaceRegime(dataset, data, radii, settings)
    if vector_size is None:
        raise ContractError(
            f"model {settings.model}: regime=joint needs frames whose vectors are as long as a window's descriptor: "
            "fusion mean, gem or centre behind another pooling than vlad"
        )
    return JointRegime(dataset, data, radii, settings, vector_size)


class TripletRegime:
    """Triplets from partial mining, drawn anew every round (docs/methods.md#mining)."""

    head: nn.Module | None = None

    def __init__(
        self, dataset: "Dataset", data: TrainData, radii: Radii, settings: TrainSettings, frames: int | None = None
    ) -> None:
        self.dataset = dataset
        self.data = data
        self.radii = radii
        self.settings = settings
        self.frames = frames
        self.rounds = settings.rounds
        self.sizes = RoundSizes(
            settings.round_queries, settings.negative_cache, settings.negatives, settings.positives_cap
        )
        self.loss = TripletLoss(
            settings.margin, frames=frames, skip_easy=settings.skip_easy, violating_only=settings.violating_only
        )

    @property
    def steps(self) -> int:
        """Steps of an epoch when every drawn query gives a triplet."""
        a_round = min(self.settings.round_queries, len(self.data.queries))
        return self.settings.rounds * -(-a_round // self.settings.batch)

    def mine(self, epoch: int, number: int, describe: DescribeRows, ranks: Ranks = ALONE) -> Triplets:
        """The round's triplets with the present weights."""
        return mine(
            self.dataset,
            self.data.queries,
            self.data.database,
            self.radii,
            describe,
            self.sizes,
            key=(self.settings.seed, epoch, number),
            frames=self.frames,
            find=self._find_positives,
            ranks=ranks,
        )

    @cached_property
    def _find_positives(self) -> FindPositives:
        # Its trees, over all database windows, are the same in every round.
        return positive_finder(self.dataset, self.data.database, self.radii)

    def round(self, epoch: int, number: int, mined: Triplets | None) -> Round:
        """The mined triplets, `batch` a step."""
        assert mined is not None  # noqa: S101  (`mine` never gives None here)
        starts = range(0, len(mined.query), self.settings.batch)
        steps = (self._step(mined, slice(start, start + self.settings.batch)) for start in starts)
        return Round(len(starts), steps)

    def _step(self, triplets: Triplets, part: slice) -> Step:
        """Windows in the order queries, positives, negatives."""
        query, positive, negatives = triplets.query[part], triplets.positive[part], triplets.negatives[part]
        count, negatives_a_query = negatives.shape
        offset = len(self.data.queries)

        def parts(descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            left, middle, right = torch.split(descriptors, [count, count, count * negatives_a_query])
            return left, middle, right.view(count, negatives_a_query, -1)

        def loss(descriptors: Tensor) -> Tensor:
            result: Tensor = self.loss(*parts(descriptors))
            return result

        def statistics(descriptors: Tensor) -> Tensor:
            return self.loss.statistics(*parts(descriptors))

        return Step(np.concatenate([query, offset + positive, offset + negatives.ravel()]), loss, statistics)


class JointRegime(TripletRegime):
    """Triplets of windows and classed frames in one step (docs/methods.md#jist)."""

    def __init__(
        self, dataset: "Dataset", data: TrainData, radii: Radii, settings: TrainSettings, vector_size: int
    ) -> None:
        super().__init__(dataset, data, radii, settings)
        grid = ClassGrid(
            cell=settings.class_cell,
            heading=settings.class_heading,
            spacing=settings.class_spacing,
            heading_spacing=settings.class_heading_spacing,
            frames=settings.class_frames,
            groups=settings.class_groups,
        )
        self.classes = FrameClasses(dataset, np.unique(data.frame_rows), grid, settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.class_loss = CosFaceLoss(self.classes.sizes, vector_size)
        self.head = self.class_loss

    def round(self, epoch: int, number: int, mined: Triplets | None) -> Round:
        """The mined triplets, `batch` a step, each step with `class_batch` frames."""
        triplets = super().round(epoch, number, mined)
        first = number * (self.steps // self.rounds)
        steps = (self._with_frames(step, epoch, first + i) for i, step in enumerate(triplets.steps))
        return Round(triplets.count, steps)

    def _with_frames(self, step: Step, epoch: int, number: int) -> Step:
        """A step of triplets, with classed frames behind its windows."""
        rows, labels = self.classes.batch(epoch, number, self.settings.class_batch)
        group, windows = self.classes.group(epoch), len(step.windows)

        def loss(vectors: Tensor) -> Tensor:
            targets = to_device(torch.from_numpy(labels), vectors.device)
            of_frames: Tensor = self.class_loss(vectors[windows:], targets, group)
            return step.loss(vectors[:windows]) + self.settings.class_weight * of_frames

        return Step(step.windows, loss, lambda vectors: step.statistics(vectors[:windows]), rows)


class PlaceRegime:
    """Place batches with geometric pair masks; one round, an epoch long (docs/methods.md#multi-similarity)."""

    head: nn.Module | None = None
    rounds = 1

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
        # Enough batches for every query to be drawn about once.
        self.steps = settings.steps or -(-len(data.queries) // settings.places)
        self.loss = create_pair_loss(settings.loss, settings.temperature)

    def mine(self, epoch: int, number: int, describe: DescribeRows, ranks: Ranks = ALONE) -> None:
        """Place batches follow from geometry alone."""

    def round(self, epoch: int, number: int, mined: Triplets | None) -> Round:
        """All batches of the epoch."""
        return Round(self.steps, self._steps(epoch))

    def _steps(self, epoch: int) -> Iterator[Step]:
        return map(self._step, self.sampler.epoch(epoch, self.steps))

    def _step(self, batch: PlaceBatch) -> Step:
        @lru_cache(maxsize=1)
        def masks(device: torch.device) -> tuple[Tensor, Tensor]:
            positive, negative = (torch.from_numpy(mask) for mask in (batch.positive, batch.negative))
            return to_device(positive, device), to_device(negative, device)

        def loss(descriptors: Tensor) -> Tensor:
            result: Tensor = self.loss(descriptors, *masks(descriptors.device))
            return result

        def statistics(descriptors: Tensor) -> Tensor:
            return pair_statistics(descriptors, *masks(descriptors.device))

        return Step(batch.windows, loss, statistics)

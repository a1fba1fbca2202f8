"""Published counts of a cell's splits beside what the dataset holds."""

from collections.abc import Collection
from dataclasses import dataclass

from seqdata.contracts.protocol import Count, Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.info import split_counts
from seqdata.errors import SeqdataError
from seqdata.protocols import agrees
from train.experiments.measure.targets import SPLIT, Target
from train.experiments.measure.views import on_disk


@dataclass(frozen=True)
class Expected:
    """A published count of a split, and what was counted."""

    split: str
    name: str
    published: Count
    counted: int | None

    @property
    def is_met(self) -> bool:
        """Whether the count is the published one, or rounds to it."""
        return agrees(self.counted, self.published)

    def __str__(self) -> str:
        words = self.name.replace("_", " ")
        return f"{self.split} {words} {self.published}: {'unknown' if self.counted is None else self.counted}"


class ExpectedCounts:
    """Counts of targets; each split of a protocol in a dataset is counted once."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str, str], tuple[Expected, ...]] = {}

    def of_target(self, target: Target) -> tuple[Expected, ...]:
        """List the published counts that hold for a target: of its training protocol, and of what is tested."""
        dataset = on_disk(target.dataset)
        of_training = (name for name in target.trained.splits if name != SPLIT)
        parts = [self._of_split(dataset, target.trained, name) for name in of_training]
        return tuple(count for part in (*parts, self._of_split(dataset, target.tested, SPLIT)) for count in part)

    def _of_split(self, dataset: Dataset, protocol: Protocol, split: str) -> tuple[Expected, ...]:
        # Published counts are not part of a protocol's hash, so a protocol of one city and the whole one differ by it.
        key = dataset.id, protocol.hash, split
        if key not in self._counted:
            published = protocol.expected_counts.get(split, {})
            counts = _counts(dataset, protocol, split, published) if published else {}
            self._counted[key] = tuple(Expected(split, n, value, counts.get(n)) for n, value in published.items())
        return self._counted[key]


def _counts(dataset: Dataset, protocol: Protocol, split: str, names: Collection[str]) -> dict[str, int]:
    """Counts of a split; none where the dataset cannot be counted so, because the ledger's cells are there already."""
    try:
        return split_counts(dataset, protocol, split, names)
    except SeqdataError:
        return {}

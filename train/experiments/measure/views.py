"""The same dataset seen another way: database windows backward, or only windows at centres that all lengths share."""

from pathlib import Path
from typing import Any

import polars as pl

from seqdata.contracts.protocol import Protocol, Rule
from seqdata.dataset.dataset import Dataset
from seqdata.sequences.windows import reversed_windows


def on_disk(dataset: Dataset) -> Dataset:
    """The dataset behind a view; any other dataset itself."""
    if isinstance(dataset, Backward):
        return dataset.forward
    return dataset.whole if isinstance(dataset, SharedCentres) else dataset


class Backward(Dataset):
    """Windows of one role of one split hold their frames last first (see `windows.reversed_windows`)."""

    def __init__(self, forward: Dataset, split: str, role: str = "database") -> None:
        # A dataset of its own over the same files, so that everything that takes a dataset takes a view.
        super().__init__(forward.store, forward.manifest)
        self.forward = forward
        self.turned = (split, role)

    def sequences(
        self,
        protocol: str | Path | Protocol | None = None,
        split: str | None = None,
        role: str | None = None,
        *arguments: Any,
        **options: Any,
    ) -> pl.DataFrame:
        """As of the dataset, with the split's windows of the role turned round."""
        table = self.forward.sequences(protocol, split, role, *arguments, **options)
        return reversed_windows(table) if (split, role) == self.turned else table

    def protocol_positives(
        self, protocol: str | Path | Protocol, split: str, radius: float | None = None, rule: Rule | None = None
    ) -> pl.DataFrame:
        """The positives of the forward windows: rows are the same."""
        return self.forward.protocol_positives(protocol, split, radius, rule)


class SharedCentres(Dataset):
    """Of one split only windows whose centre frame is the centre of a window of `length` frames too.

    With a protocol that judges at the centre, queries, database and truth are then the same at every length up to it.
    Source: docs/methods.md#windows (lengths compared at fixed query centres).
    """

    def __init__(self, whole: Dataset, split: str, length: int) -> None:
        super().__init__(whole.store, whole.manifest)
        self.whole = whole
        self.shared_split = split
        self.longest = length

    def sequences(
        self,
        protocol: str | Path | Protocol | None = None,
        split: str | None = None,
        role: str | None = None,
        *arguments: Any,
        **options: Any,
    ) -> pl.DataFrame:
        """As of the dataset, with the split's windows at other centres left out."""
        table = self.whole.sequences(protocol, split, role, *arguments, **options)
        if split != self.shared_split or protocol is None:
            return table
        # A window of any length is found by its centre frame, which is the same row for all of them.
        longest = self.load_protocol(protocol).model_copy(update={"length": self.longest})
        centres = self.whole.sequences(longest, split, role)["centre"]
        return table.filter(pl.col("centre").is_in(centres.implode()))

    def protocol_positives(
        self, protocol: str | Path | Protocol, split: str, radius: float | None = None, rule: Rule | None = None
    ) -> pl.DataFrame:
        """The positives among these windows, computed: stored pairs count rows of the whole tables."""
        loaded = self.load_protocol(protocol)
        query, database = (self.sequences(loaded, split, role) for role in ("query", "database"))
        within = loaded.radius if radius is None else radius
        return self.positives(query, database, within, rule or loaded.rule, loaded.unit, loaded.heading_max)


def shared_centres(protocol: Protocol, longest: int) -> Protocol:
    """The protocol under which windows of `SharedCentres` are judged: at their centres, by a name that says so."""
    change = {"rule": "centre", "name": f"{protocol.name}-centres{longest}", "expected_counts": {}}
    return protocol.model_copy(update=change)

"""Cells of tables of counts: what a protocol counts in a dataset, without a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.info import split_counts
from seqdata.errors import ContractError
from seqdata.sequences.sequencer import ROLES
from train.experiments.grid import Grid, Group, Subject
from train.experiments.measure.cells import Measured
from train.experiments.measure.targets import are_papers, dataset_of, own_protocol

LENGTHS = (5, 10, 15)
"""Sequence lengths of Mereu et al. 2022, Table I."""


@dataclass(frozen=True)
class Count:
    """Windows, frames or images of one split, by role: what a cell of a table of counts holds."""

    dataset: Dataset
    protocol: Protocol
    split: str
    counted: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its counts in a protocol's `expected_counts`, database first."""
        return tuple(f"{role}{self.counted}" for role in ROLES)

    def inputs(self) -> dict[str, Any]:
        """What decides its numbers."""
        decides = {"protocol": self.protocol.hash, "split": self.split, "counted": self.counted}
        return {"kind": "counts", "dataset": self.dataset.id, **decides}

    def measure(self) -> Mapping[str, Any]:
        """Count. Returns fields of a `Cell`.

        Raises:
            ContractError: If the protocol lacks the split, or the dataset lacks what it names.
        """
        counts = split_counts(self.dataset, self.protocol, self.split, self.names)
        values = {role: Measured(value=counts[name]) for role, name in zip(ROLES, self.names, strict=True)}
        return {"values": values, "protocol": self.protocol.label}


def on_datasets(grid: Grid, datasets: Sequence[Dataset], protocol: str | None) -> Grid:
    """The grid with rows of the datasets' own protocols, where the datasets are none of the paper's.

    Args:
        grid: A table of counts.
        datasets: What is counted.
        protocol: Protocol in place of the datasets' own.

    Returns:
        The grid: the paper's rows, or a row a length (groups name the split) or a split (they do not).

    Raises:
        ContractError: For a dataset without a protocol, or a mixture of the paper's datasets and others.
    """
    if are_papers(grid, datasets, protocol):
        return grid
    # Table I of Mereu et al. has columns of splits and rows of lengths, that of Zhang et al. rows of splits.
    by_split = any(group.split is not None for group in grid.groups)
    subjects = {}
    for dataset in datasets:
        own = own_protocol(dataset, protocol)
        for part in LENGTHS if by_split else own.splits:
            length, split = (part, None) if isinstance(part, int) else (None, part)
            name = f"L = {part}" if by_split else str(part)
            subject = Subject(dataset=own.name, name=name, protocol=own.name, length=length, split=split,
                              counted="" if by_split else "_images")  # fmt: skip
            subjects[f"{own.name}-{part}"] = subject
    title = grid.own_title or grid.title
    return grid.model_copy(update={"title": title, "rows": tuple(subjects), "subjects": subjects})


def bind(grid: Grid, row: str, group: Group, datasets: Sequence[Dataset], protocol: str | None) -> Count:
    """Bind a row and a group of columns to a dataset.

    Raises:
        ContractError: If none of the datasets has the row's protocol, or the protocol no such split.
    """
    subject = grid.subjects[row]
    dataset = dataset_of(subject.protocol, datasets, protocol)
    if dataset is None:
        raise ContractError(f"no {protocols.load(subject.protocol).source} dataset given")
    own = own_protocol(dataset, protocol)
    judge = own if own.name == subject.protocol else dataset.load_protocol(subject.protocol)
    split = group.split or subject.split or ""
    judge.split(split)
    return Count(dataset, judge.variant(length=subject.length), split, subject.counted)

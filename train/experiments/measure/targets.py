"""Targets of an experiment: dataset, training protocol and test protocol of each group of columns."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, NotEnoughDataError
from train.experiments.grid import Grid, Group
from train.experiments.measure.views import Backward, SharedCentres, shared_centres

SPLIT = "test"
# What a protocol's name may not hold: it becomes part of file names.
NOT_IN_NAMES = r"[^A-Za-z0-9_.-]"


@dataclass(frozen=True)
class Target:
    """A group bound to a dataset: `trained` and `tested` are protocols, `dataset` may be a view of the one on disk."""

    label: str
    group: Group
    dataset: Dataset
    trained: Protocol
    tested: Protocol

    def inputs(self) -> dict[str, Any]:
        """What of it decides numbers."""
        return {
            "dataset": self.dataset.id,
            "trained": self.trained.hash,
            "tested": self.tested.hash,
            "centres": self.group.centres,
            "backward": self.group.backward,
        }


@dataclass(frozen=True)
class Missing:
    """A group that cannot be measured here, and why."""

    label: str
    group: Group
    reason: str


def bind(grid: Grid, datasets: Sequence[Dataset], protocol: str | None = None) -> list[Target | Missing]:
    """The grid's groups on these datasets: the paper's, where they are the paper's datasets, else its own form of them.

    `protocol` names the one to test under in place of the dataset's own.

    Raises:
        ContractError: For a dataset without a protocol, or a mixture of the paper's datasets and others.
    """
    own = {dataset.location: _protocol(dataset, protocol) for dataset in datasets}
    paper_datasets = [dataset for dataset in datasets if own[dataset.location].name in grid.protocols]
    if paper_datasets and len(paper_datasets) < len(datasets):
        other = next(dataset for dataset in datasets if dataset not in paper_datasets)
        raise ContractError(
            f"{other.location}: protocol {own[other.location].name} is no column of {grid.paper}; run it alone"
        )
    if paper_datasets:
        by_source = {own[dataset.location].source: dataset for dataset in datasets}
        return [_paper_target(group, by_source) for group in grid.groups]
    groups = grid.own or (grid.groups if not grid.protocols else (Group(label=""),))
    return [
        target
        for dataset in datasets
        for group in groups
        for target in _own_targets(group, dataset, own[dataset.location], several=len(datasets) > 1)
    ]


def _protocol(dataset: Dataset, name: str | None) -> Protocol:
    if name is not None:
        return dataset.load_protocol(name)
    protocol = dataset.manifest.protocol
    if protocol is None:
        raise ContractError(f"{dataset.location}: built without a protocol; name one with --protocol")
    return protocol


def _paper_target(group: Group, by_source: Mapping[str, Dataset]) -> Target | Missing:
    base = protocols.load(group.protocol or "")
    dataset = by_source.get(base.source)
    if dataset is None:
        return Missing(group.label, group, f"no {base.source} dataset given")
    return _target(group, dataset, dataset.load_protocol(group.protocol or ""), group.label, group.city)


def _own_targets(group: Group, dataset: Dataset, base: Protocol, *, several: bool) -> list[Target | Missing]:
    """A group on any dataset; city "each" makes one for each test city where there are several."""
    prefix = f"{base.name}: " if several else ""
    if group.city != "each":
        return [_target(group, dataset, base, prefix + (group.label or base.name), None)]
    cities = sorted(dataset.sequences(base, SPLIT, "database")["city"].unique().to_list())
    if len(cities) < 2:
        return [_target(group, dataset, base, prefix + (group.label or base.name), None)]
    return [_target(group, dataset, base, prefix + city, city) for city in cities]


def _target(group: Group, dataset: Dataset, base: Protocol, label: str, city: str | None) -> Target | Missing:
    """Bind one group: narrow the training or the test cities, change the length, choose the view."""
    try:
        trained = base if group.train_city is None else _largest_city(dataset, base)
    except NotEnoughDataError as error:
        return Missing(label, group, f"NotEnoughDataError: {error}")
    tested = trained if city is None else narrowed(trained, SPLIT, city)
    tested = tested.variant(length=group.length)
    view = dataset
    if group.centres is not None:
        view, tested = SharedCentres(dataset, SPLIT, group.centres), shared_centres(tested, group.centres)
    if group.backward:
        view, tested = Backward(dataset, SPLIT), tested.model_copy(update={"name": f"{tested.name}-backward"})
    return Target(label, group, view, trained, tested)


def narrowed(protocol: Protocol, split: str, city: str) -> Protocol:
    """The protocol with one split limited to one city, under a name that says so."""
    fewer = protocol.split(split).model_copy(update={"cities": (city,)})
    name = f"{protocol.name}-{split}-{re.sub(NOT_IN_NAMES, '_', city)}"
    return protocol.model_copy(
        update={"name": name, "splits": {**protocol.splits, split: fewer}, "expected_counts": {}}
    )


def _largest_city(dataset: Dataset, protocol: Protocol) -> Protocol:
    """Training on the city with most database windows alone.

    Raises: NotEnoughDataError where the training split has fewer than two cities.
    """
    if "train" not in protocol.splits:
        raise NotEnoughDataError(f"protocol {protocol.name} has no train split")
    counts = dataset.sequences(protocol, "train", "database")["city"].value_counts().sort("count", "city")
    if counts.height < 2:
        raise NotEnoughDataError(
            f"protocol {protocol.name}: its train split has {counts.height} city here, not several"
        )
    # Sorted by count, then by name: of equally large cities the last by name, on every machine.
    return narrowed(protocol, "train", str(counts["city"][-1]))


def protocol_toml(protocol: Protocol) -> str:
    """The protocol as a file that `seqdata.protocols.load` reads back to the same hash."""
    return _toml(protocol.model_dump(mode="json", exclude_none=True), ())


def _toml(values: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """TOML text of values, below the table `path`."""
    # JSON's strings, numbers, booleans and lists are valid TOML. Plain values come first: after a table's head they
    # would belong to that table.
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    head = [f"\n[{'.'.join(json.dumps(part) for part in path)}]"] if path else []
    tables = [_toml(value, (*path, key)) for key, value in values.items() if isinstance(value, Mapping)]
    return "\n".join([*head, *plain, *tables]) + ("" if path else "\n")

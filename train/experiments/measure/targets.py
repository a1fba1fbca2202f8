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
from train.experiments.grid import Grid, Group, paper_protocols
from train.experiments.measure.views import Backward, SharedCentres, shared_centres

SPLIT = "test"
# What a protocol's name may not hold: it becomes part of file names.
NOT_IN_NAMES = r"[^A-Za-z0-9_.-]"


@dataclass(frozen=True)
class Target:
    """A group bound to a dataset: `trained` and `tested` are protocols, `dataset` may be a view of the one on disk.

    `base`: the protocol before its cities, length or rule were changed for the group.
    """

    label: str
    group: Group
    dataset: Dataset
    trained: Protocol
    tested: Protocol
    base: Protocol

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
    if are_papers(grid, datasets, protocol):
        return [_paper_target(grid, group, datasets, protocol) for group in grid.groups]
    is_bound = any(group.protocol is not None for group in grid.groups)
    groups = grid.own or ((Group(label=""),) if is_bound else grid.groups)
    return [
        target
        for dataset in datasets
        for group in groups
        for target in _own_targets(group, dataset, own_protocol(dataset, protocol), several=len(datasets) > 1)
    ]


def are_papers(grid: Grid, datasets: Sequence[Dataset], protocol: str | None = None) -> bool:
    """Whether datasets are the paper's: of one of the grid's protocols, or of another experiment's.

    Args:
        grid: The experiment.
        datasets: The datasets.
        protocol: Protocol in place of the datasets' own; then only the grid's protocols make them the paper's.

    Raises:
        ContractError: For a dataset without a protocol, or a mixture of the paper's datasets and others.
    """
    names = {dataset.location: own_protocol(dataset, protocol).name for dataset in datasets}
    # A dataset built for one of the papers' tables serves the others of its dump, unless a protocol is named.
    papers = frozenset(grid.protocols) | (paper_protocols() if protocol is None and grid.protocols else frozenset())
    others = [location for location, name in names.items() if name not in papers]
    if others and len(others) < len(names):
        raise ContractError(f"{others[0]}: protocol {names[others[0]]} is no column of {grid.paper}; run it alone")
    return not others


def own_protocol(dataset: Dataset, name: str | None) -> Protocol:
    """The protocol `name`, or the dataset's own. Raises: ContractError where it has none."""
    if name is not None:
        return dataset.load_protocol(name)
    protocol = dataset.manifest.protocol
    if protocol is None:
        raise ContractError(f"{dataset.location}: built without a protocol; name one with --protocol")
    return protocol


def dataset_of(name: str, datasets: Sequence[Dataset], protocol: str | None = None) -> Dataset | None:
    """Look up the dataset that one of the paper's protocols is for.

    Args:
        name: Name of a shipped protocol, or of a dataset's own.
        datasets: Datasets to choose from.
        protocol: Protocol in place of the datasets' own.

    Returns:
        The dataset whose own protocol it is, else the last one of its dump; None without any.
    """
    by_name = {own_protocol(dataset, protocol).name: dataset for dataset in datasets}
    by_source = {own_protocol(dataset, protocol).source: dataset for dataset in datasets}
    return by_name[name] if name in by_name else by_source.get(protocols.load(name).source)


def _paper_target(grid: Grid, group: Group, datasets: Sequence[Dataset], protocol: str | None) -> Target | Missing:
    name = grid.protocol_of(group) or ""
    dataset = dataset_of(name, datasets, protocol)
    if dataset is None:
        return Missing(group.label, group, f"no {protocols.load(name).source} dataset given")
    return _target(group, dataset, dataset.load_protocol(name), group.label, group.city)


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
    return Target(label, group, view, trained, tested, base)


def narrowed(protocol: Protocol, split: str, city: str) -> Protocol:
    """The protocol with one split limited to one city, under a name that says so.

    Published counts are left for the splits whose counts hold for the city.
    """
    fewer = protocol.split(split).model_copy(update={"cities": (city,)})
    name = f"{protocol.name}-{split}-{re.sub(NOT_IN_NAMES, '_', city)}"
    of_city = {
        key.removesuffix(f"_{city}"): count
        for key, count in protocol.expected_counts.get(split, {}).items()
        if key.endswith(f"_{city}")
    }
    expected = {**protocol.expected_counts, split: of_city}
    return protocol.model_copy(
        update={"name": name, "splits": {**protocol.splits, split: fewer}, "expected_counts": expected}
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

"""Every cell of an experiment beside the paper's: value, interval, difference, protocol, counts, what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from train.experiments import grid as grids
from train.experiments.grid import Grid, Group
from train.experiments.ledger.differences import known_differences
from train.experiments.ledger.expected import Expected, ExpectedCounts
from train.experiments.ledger.published import Key, Published, published
from train.experiments.measure.cells import Cell, Measured
from train.experiments.measure.targets import Target
from train.experiments.run import Result
from train.experiments.table.table import PAIR, lengths

UNITS = {
    "dimension": "numbers", "memory": "GB", "difference": "%", "database": "windows", "query": "windows", "p50": "ms",
    "p95": "ms", "fusion": "ms", "ms": "ms", "megabytes": "MB", "agreement": "share",
}  # fmt: skip
"""Units of quantities that the papers do not print; recalls are in per cent."""
FACTORS = {("memory", "GB"): 1e-9, ("p50", "ms"): 1e3, ("p95", "ms"): 1e3, ("fusion", "ms"): 1e3}
"""From a stored value to a unit; recalls are stored as shares."""
NOT_THE_PAPERS = "not measured: a cell of the paper's own datasets and sizes"
NO_VALUE = "the cell holds no such value"
LENGTH = 5
"""Frames of a window in both papers, except where a column names another length."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        key: Row, column and quantity.
        unit: Unit of all its numbers.
        printed: What the paper prints, None where it prints nothing.
        paper: The paper's number, None where it has none.
        ours: What was measured, None where nothing was.
        interval: Ends of its 95 % interval, where it has one.
        cell: What stands behind it.
        counts: Published counts of the cell's splits beside what was counted.
        differs: What is known to differ from the paper, a sentence each.
        reason: Why nothing was measured.
    """

    key: Key
    unit: str
    printed: Published | None = None
    paper: float | None = None
    ours: float | None = None
    interval: tuple[float, float] | None = None
    cell: Cell | None = None
    counts: tuple[Expected, ...] = ()
    differs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; None where one of them is missing."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper

    @property
    def are_counts_met(self) -> bool | None:
        """Whether all published counts are met; None where there are none."""
        return all(count.is_met for count in self.counts) if self.counts else None


def entries(result: Result) -> list[Entry]:
    """Make the ledger of a result: the grid's cells in its order, then values of the paper that none of them is for.

    A cell under another protocol than the paper's has no value of the paper beside it, and no difference.
    """
    grid = grids.load(result.request.name)
    printed = {key: value for key, value in published(result.request.name).items() if key.row in grid.rows}
    measured = list(_Maker(result, grid, printed).entries())
    beside = {entry.key for entry in measured if entry.printed is not None}
    of_columns = {group.label: group.length or LENGTH for group in grid.groups}
    others = (
        Entry(key, value.unit, value, value.value(of_columns.get(key.column, LENGTH)), reason=NOT_THE_PAPERS)
        for key, value in printed.items()
        if key not in beside
    )
    return [*measured, *others]


class _Maker:
    """Makes the entries of one result; `grid` is the paper's, of which the result's may be another form."""

    def __init__(self, result: Result, grid: Grid, printed: dict[Key, Published]) -> None:
        self.result = result
        self.paper = grid
        self.printed = printed
        self.lengths = [length or LENGTH for length in lengths(result)]
        counts = ExpectedCounts()
        self.counts = [counts.of_target(t) if isinstance(t, Target) else () for t in result.targets]

    def entries(self) -> Iterator[Entry]:
        """Entries row by row: facts, then values by target, then differences."""
        for row, cells in self.result.cells.items():
            first = next((number for number, cell in enumerate(cells) if cell.facts), 0)
            for fact in self.result.grid.facts:
                value = cells[first].facts.get(fact)
                yield self._entry(Key(row, "", fact), first, None if value is None else Measured(value=float(value)))
            for number, cell in enumerate(cells):
                for quantity in self.result.grid.values:
                    key = Key(row, self.result.labels[number], quantity)
                    yield self._entry(key, number, cell.values.get(quantity))
            if self.result.grid.difference:
                yield from self._differences(row, cells)

    def _differences(self, row: str, cells: tuple[Cell, ...]) -> Iterator[Entry]:
        """Each second target against the one before, relative."""
        quantity = self.result.grid.values[0]
        for number in range(1, len(cells), PAIR):
            first, second = (cell.values.get(quantity) for cell in (cells[number - 1], cells[number]))
            change = second.value / first.value - 1 if first and second and first.value else None
            label = "" if len(cells) == PAIR else self.result.labels[number]
            yield self._entry(Key(row, label, "difference"), number, None if change is None else Measured(value=change))

    def _entry(self, key: Key, number: int, measured: Measured | None) -> Entry:
        """The entry of one value of the target `number`."""
        target, cell = self.result.targets[number], self.result.cells[key.row][number]
        paper_protocol = self._paper_protocol(key.row, target.group)
        is_comparable = self._is_papers(key.row, number, paper_protocol)
        printed = self.printed.get(key) if is_comparable else None
        unit = self._unit(key, printed)
        factor = _factor(key.quantity, unit)
        counts = self.counts[number]
        paper = None if printed is None else printed.value(self.lengths[number])
        if self.result.grid.kind == "counts" and printed is not None and measured is not None:
            counts = (_of_count(printed, key, measured),)
        return Entry(
            key, unit, printed, paper,
            None if measured is None else measured.value * factor,
            None if measured is None or measured.interval is None
            else (measured.interval[0] * factor, measured.interval[1] * factor),
            cell, counts,
            tuple(known_differences(self.result.request.name, key.row, key.quantity, paper_protocol, cell)),
            "" if measured is not None else cell.reason or NO_VALUE,
        )  # fmt: skip

    def _paper_protocol(self, row: str, group: Group) -> str | None:
        """Name of the paper's protocol of a cell, None where there is none."""
        if group not in self.paper.groups:
            return None
        subject = self.result.grid.subjects.get(row)
        return subject.protocol if subject is not None else self.result.grid.protocol_of(group)

    def _is_papers(self, row: str, number: int, name: str | None) -> bool:
        """Whether a cell is the paper's: of its columns and rows, and, on a dataset, under its protocol."""
        target = self.result.targets[number]
        if isinstance(target, Target):
            return name is not None and target.base.hash == _shipped(name).hash
        if row in self.result.grid.subjects:
            judge = self.result.cells[row][number].protocol
            length = self.result.grid.subjects[row].length
            return name in self.paper.protocols and judge in (None, _shipped(name).variant(length=length).label)
        # Without a dataset, and with none given for a column, the column is the paper's.
        return target.group in self.paper.groups

    def _unit(self, key: Key, printed: Published | None) -> str:
        if printed is not None:
            return printed.unit
        if key.quantity in ("database", "query"):
            subject = self.result.grid.subjects.get(key.row)
            return "images" if subject is not None and subject.counted else "windows"
        # A paper keeps to one unit, so a cell that it does not print has that of its neighbours.
        units = (value.unit for other, value in self.printed.items() if other.quantity == key.quantity)
        return next(units, UNITS.get(key.quantity, "%"))


@cache
def _shipped(name: str) -> Protocol:
    return protocols.load(name)


def _factor(quantity: str, unit: str) -> float:
    if unit == "%":
        return 100.0
    return FACTORS.get((quantity, unit), 1.0)


def _of_count(printed: Published, key: Key, measured: Measured) -> Expected:
    """A count that is itself a published one."""
    text = printed.text
    return Expected(key.column, key.quantity, int(text) if text.isdecimal() else text, round(measured.value))

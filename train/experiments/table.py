"""An experiment's cells as a table in the paper's own shape, ready to be written in any form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from train.experiments import grid as grids
from train.experiments.cells import Cell, Measured
from train.experiments.grid import Fact, Value
from train.experiments.run import Result
from train.experiments.scale import SMALL_PCA
from train.match_profiling import ENGINES

WORDS: dict[Value, str] = {
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "p50": "ms, median",
    "p95": "ms, 95th percentile",
    "fusion": "ms, fusion",
    "ms": "ms a query",
    "megabytes": "MB",
    "agreement": "agreement",
}
SCALES: dict[Value, tuple[float, str]] = {
    "r1": (100, ".1f"),
    "r5": (100, ".1f"),
    "r10": (100, ".1f"),
    "p50": (1000, ".1f"),
    "p95": (1000, ".1f"),
    "fusion": (1000, ".2f"),
    "ms": (1, ".3f"),
    "megabytes": (1, ".1f"),
    "agreement": (1, ".3f"),
}
"""What a stored value is multiplied with to stand under its word, and how it is written."""
FACTS: dict[Fact, tuple[str, float, str]] = {
    "dimension": ("Dimension", 1, ".0f"),
    "memory": ("Memory, MB", 1e-6, ".1f"),
}
COUNTS = ("protocol", "queries", "left out", "database")
"""What stands beside the numbers of a group."""
EMPTY = "–"


@dataclass(frozen=True)
class Entry:
    """One number as it is written, with its interval; or the mark of the footnote that says why there is none."""

    text: str
    low: str = ""
    high: str = ""
    mark: str = ""

    def __str__(self) -> str:
        if self.mark:
            return f"{EMPTY} ({self.mark})"
        return f"{self.text} [{self.low}, {self.high}]" if self.low else self.text


@dataclass(frozen=True)
class Line:
    """One row: `lead` words and facts, then an entry a column; `under` holds the counts of each group, see `COUNTS`."""

    name: str
    lead: tuple[str, ...]
    entries: tuple[Entry, ...]
    under: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Column:
    """One column: its group's label and the value's word."""

    group: str
    value: str

    def __str__(self) -> str:
        return f"{self.group} {self.value}".strip()


@dataclass(frozen=True)
class Table:
    """A whole table: `legend` says what each group was measured on, `footnotes` why cells are empty."""

    title: str
    paper: str
    scale: str
    lead: tuple[str, ...]
    groups: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, str], ...]
    footnotes: dict[str, str]
    notes: tuple[str, ...]


def make_table(result: Result) -> Table:
    """The table of a result. Numbers are ours alone: a paper's figures stand nowhere in it."""
    marks = _marks(cell.reason for row in result.cells.values() for cell in row)
    columns = [Column(label, WORDS[value]) for label in result.labels for value in result.grid.values]
    if result.grid.difference:
        columns.append(Column("", "Diff."))
    lines = tuple(_line(result, row, cells, marks) for row, cells in result.cells.items())
    return Table(
        title=result.grid.title,
        paper=result.grid.paper,
        scale=_scale_words(result),
        lead=(*_words(result), *(FACTS[fact][0] for fact in result.grid.facts)),
        groups=result.labels,
        columns=tuple(columns),
        lines=lines,
        legend=tuple(_legend(result)),
        footnotes={mark: reason for reason, mark in marks.items()},
        notes=tuple(_notes(result)),
    )


def _scale_words(result: Result) -> str:
    if result.request.scale == "full":
        return "full scale: the paper's models and recipes"
    return "smoke scale: small models, a few training steps; it shows that the grid runs, not what the methods can do"


def _words(result: Result) -> tuple[str, ...]:
    """Headings of what a row is called."""
    if result.grid.kind == "matching":
        return ("Engine",)
    backbone = any(grids.method(row).backbone for row in result.cells)
    return ("Category", "Method", "Backbone") if backbone else ("Category", "Method")


def _line(result: Result, row: str, cells: Sequence[Cell], marks: dict[str, str]) -> Line:
    entries = [_entry(cell, value, marks) for cell in cells for value in result.grid.values]
    if result.grid.difference:
        entries.append(_difference(cells, result.grid.values[0]))
    facts = [_fact(cells, fact) for fact in result.grid.facts]
    return Line(row, (*_names(row, result), *facts), tuple(entries), tuple(_counts(cell) for cell in cells))


def _counts(cell: Cell) -> tuple[str, ...]:
    found = (cell.protocol, cell.queries, cell.left_out, cell.database)
    return tuple("" if value is None else str(value) for value in found)


def _names(row: str, result: Result) -> tuple[str, ...]:
    if result.grid.kind == "matching":
        return (ENGINES[row],)
    method = grids.method(row)
    names = (method.category, method.method)
    if len(_words(result)) == 2:
        return names
    return (*names, grids.backbones()[method.backbone].label if method.backbone else EMPTY)


def _fact(cells: Sequence[Cell], fact: Fact) -> str:
    """A fact of a row from its first finished cell."""
    _, factor, form = FACTS[fact]
    known = [cell.facts[fact] for cell in cells if fact in cell.facts]
    return format(float(known[0]) * factor, form) if known else EMPTY


def _entry(cell: Cell, value: Value, marks: dict[str, str]) -> Entry:
    if cell.reason is not None:
        return Entry(EMPTY, mark=marks[cell.reason])
    found = cell.values.get(value)
    if found is None:
        return Entry(EMPTY)
    return _number(found, *SCALES[value])


def _number(found: Measured, factor: float, form: str) -> Entry:
    low, high = (format(bound * factor, form) for bound in found.interval) if found.interval else ("", "")
    return Entry(format(found.value * factor, form), low, high)


def _difference(cells: Sequence[Cell], value: Value) -> Entry:
    """The second group's value against the first's, relative, as P1 Table III gives it."""
    first, second = (cell.values.get(value) for cell in cells[:2]) if len(cells) > 1 else (None, None)
    if first is None or second is None or first.value == 0:
        return Entry(EMPTY)
    return Entry(f"{100 * (second.value / first.value - 1):+.1f} %")


def _marks(reasons: Iterable[str | None]) -> dict[str, str]:
    """A letter for each distinct reason, in order of first appearance."""
    distinct = list(dict.fromkeys(reason for reason in reasons if reason is not None))
    return {reason: _letters(number) for number, reason in enumerate(distinct)}


def _letters(number: int) -> str:
    head, last = divmod(number, 26)
    return (_letters(head - 1) if head else "") + ascii_lowercase[last]


def _legend(result: Result) -> Iterable[tuple[str, str]]:
    """For each group: protocol, conditions, counts; rows that differ from each other are told apart."""
    for number, label in enumerate(result.labels):
        said: dict[str, list[str]] = {}
        for row, cells in result.cells.items():
            cell = cells[number]
            if cell.protocol is not None:
                text = (
                    f"{cell.protocol}, {cell.conditions}; {cell.queries} queries counted, {cell.left_out} left out, "
                    f"{cell.database} database windows; 95 % intervals: {cell.interval_method}"
                )
                said.setdefault(text, []).append(row)
        for text, rows in said.items():
            whom = f" ({', '.join(rows)})" if len(said) > 1 else ""
            yield f"{label}{whom}", text


def _notes(result: Result) -> Iterable[str]:
    yield from result.grid.notes
    if result.grid.difference:
        yield "Diff.: second column against the first, relative; judge it by the intervals of both."
    machines = dict.fromkeys(
        f"{cell.facts['device']}, {cell.facts['threads']} threads"
        for cells in result.cells.values()
        for cell in cells
        if "device" in cell.facts
    )
    yield from (f"Measured on {machine}." for machine in machines)
    if any((cell.reason or "").startswith("MissingDependencyError") for row in result.cells.values() for cell in row):
        yield "Weights: name a folder that holds a file for each encoder with --weights, or take --weights random."
    if result.request.scale == "smoke" and result.grid.kind != "matching":
        yield from _stand_ins(result)
    if "memory" in result.grid.facts:
        yield "Memory: what torch holds at the most while one sequence is described, weights included."


def _stand_ins(result: Result) -> Iterable[str]:
    """What really stands behind the backbones' names at smoke scale."""
    used = dict.fromkeys(grids.method(row).backbone for row in result.cells)
    named = {name: each for name, each in grids.backbones().items() if name in used}
    said = [f"{each.label} is {each.small['encoder']}{_cut(each.small)}" for each in named.values()]
    if said:
        yield f"Small stand-ins: {', '.join(said)}; 4096 dimensions are {SMALL_PCA}."


def _cut(options: dict[str, Any]) -> str:
    return f" to {options['cut']}" if "cut" in options else ""

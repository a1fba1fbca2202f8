"""An experiment's cells as a table in the paper's own shape, ready to be written in any form."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from indexer.evaluation.recall import SHORT_RANKS
from train.experiments import grid as grids
from train.experiments.grid import Fact, Kind, Value
from train.experiments.measure.cells import Cell, Measured
from train.experiments.measure.scale import Scale
from train.experiments.measure.targets import Target
from train.experiments.run import DIMENSIONS, Result
from train.experiments.table.notes import legend, notes
from train.profiling.matching import BY_FRAME, ENGINES

WORDS: dict[Value, str] = {
    **{f"r{n}": f"R@{n}" for n in SHORT_RANKS},
    "database": "database",
    "query": "queries",
    "p50": "ms, median",
    "p95": "ms, 95th percentile",
    "fusion": "ms, fusion",
    "ms": "ms a query",
    "megabytes": "MB",
    "agreement": "agreement",
}
SCALES: dict[Value, tuple[float, str]] = {
    **{f"r{n}": (100.0, ".1f") for n in SHORT_RANKS},
    "database": (1, ",.0f"),
    "query": (1, ",.0f"),
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
PAIR = 2
"""Groups that a difference is taken of."""
COUNTS = ("protocol", "queries", "left out", "database")
"""What stands beside the numbers of a group."""
OF_SCALE: dict[Kind, dict[Scale, str]] = {
    "recall": {
        "full": "the paper's models and recipes",
        "smoke": "small models, a few training steps; it shows that the grid runs, not what the methods can do",
    },
    "counts": {"full": "counted, nothing is trained", "smoke": "counted, nothing is trained"},
    "extraction": {"full": "the paper's models", "smoke": "small models; it shows that the grid runs"},
    "matching": {
        "full": f"vectors of {DIMENSIONS['full']} dimensions",
        "smoke": f"small databases, vectors of {DIMENSIONS['smoke']} dimensions; it shows that the grid runs",
    },
}
COUNTED = {"": "", "_frames": ", frames", "_images": ", images"}
"""What a count's ending in a protocol says of it, behind its name; windows go without saying."""
EMPTY = "–"
SHALLOW = "the test database holds fewer windows than this rank, without those that share frames with the query"
OF_NOTHING = "there is no relative difference to 0"


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
    """A whole table: `legend` says what each group was measured on, `footnotes` why cells are empty, by mark."""

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
    seed: int

    @property
    def origin(self) -> str:
        """Whose form it has, and whose numbers."""
        return f"The grid of {self.paper}. Every number was measured by this program; none is the paper's."


class _Marks(dict[str, str]):
    """A letter for each distinct reason, assigned at its first use."""

    # dict calls this for an absent key, so that letters follow the order in which reasons occur.
    def __missing__(self, reason: str) -> str:
        self[reason] = _letters(len(self))
        return self[reason]


def make_table(result: Result) -> Table:
    """Make the table of a result. All numbers were measured here: a paper's figures stand nowhere in it."""
    marks = _Marks()
    columns = [Column(label, WORDS[value]) for label in result.labels for value in result.grid.values]
    if result.grid.difference:
        columns += [Column(label, "Diff.") for label in _pair_labels(result)]
    lines = tuple(_line(result, row, cells, marks) for row, cells in result.cells.items())
    return Table(
        title=result.title,
        paper=result.grid.paper,
        scale=scale_words(result),
        lead=(*_words(result), *(FACTS[fact][0] for fact in result.grid.facts)),
        groups=result.labels,
        columns=tuple(columns),
        lines=lines,
        legend=tuple(legend(result)),
        footnotes={mark: reason for reason, mark in marks.items()},
        notes=tuple(notes(result)),
        seed=result.request.seed,
    )


def _pair_labels(result: Result) -> list[str]:
    """What stands over each difference: nothing where there is one, else the label of the group that is compared."""
    return [""] if len(result.labels) == PAIR else list(result.labels[1::PAIR])


def scale_words(result: Result) -> str:
    """The scale, and what it means for the experiment's kind."""
    return f"{result.request.scale} scale: {OF_SCALE[result.grid.kind][result.request.scale]}"


def _words(result: Result) -> tuple[str, ...]:
    """Headings of what a row is called."""
    if result.grid.kind == "matching":
        return ("Engine",)
    if result.grid.kind == "counts":
        return ("Dataset", "Counted")
    backbone = any(grids.method(row).backbone for row in result.cells)
    return ("Category", "Method", "Backbone") if backbone else ("Category", "Method")


def _line(result: Result, row: str, cells: Sequence[Cell], marks: _Marks) -> Line:
    entries = [_entry(cell, value, marks) for cell in cells for value in result.grid.values]
    if result.grid.difference:
        value = result.grid.values[0]
        entries += [_difference(*pair, value, marks) for pair in zip(cells[::PAIR], cells[1::PAIR], strict=True)]
    facts = [_fact(cells, lengths(result), fact, marks) for fact in result.grid.facts]
    return Line(row, (*row_words(row, result), *facts), tuple(entries), tuple(_counts(cell) for cell in cells))


def _counts(cell: Cell) -> tuple[str, ...]:
    counts = (cell.protocol, cell.queries, cell.left_out, cell.database)
    return tuple("" if value is None else str(value) for value in counts)


def row_words(row: str, result: Result) -> tuple[str, ...]:
    """What a row is called: a word for each heading of `_words`."""
    if result.grid.kind == "matching":
        engine, length = grids.engine(row)
        return (f"{ENGINES[engine]}, L = {length}" if engine in BY_FRAME else ENGINES[engine],)
    if result.grid.kind == "counts":
        subject = result.grid.subjects[row]
        return (subject.dataset, f"{subject.name}{COUNTED[subject.counted[:7]]}")
    method = grids.method(row)
    names = (method.category, method.method)
    if len(_words(result)) == 2:
        return names
    return (*names, grids.backbones()[method.backbone].label if method.backbone else EMPTY)


def lengths(result: Result) -> list[int | None]:
    """Frames of the windows of each target; None where no dataset is behind it."""
    return [target.tested.length if isinstance(target, Target) else target.group.length for target in result.targets]


def _fact(cells: Sequence[Cell], lengths: Sequence[int | None], fact: Fact, marks: _Marks) -> str:
    """A fact of a row from its first finished cell; "256 · SL" where it grows with the sequence length."""
    _, factor, form = FACTS[fact]
    values = [
        (float(cell.facts[fact]), length) for cell, length in zip(cells, lengths, strict=True) if fact in cell.facts
    ]
    if not values:
        return str(_empty(cells[0], marks))
    a_frame = {value / length for value, length in values if length}
    grows = len({value for value, _ in values}) > 1 and len(a_frame) == 1
    return f"{a_frame.pop() * factor:.0f} · SL" if grows else format(values[0][0] * factor, form)


def _entry(cell: Cell, value: Value, marks: _Marks) -> Entry:
    return _number(cell.values[value], *SCALES[value]) if value in cell.values else _empty(cell, marks)


def _empty(cell: Cell, marks: _Marks) -> Entry:
    """The entry of a value that a cell does not hold."""
    return Entry(EMPTY, mark=marks[cell.reason or SHALLOW])


def _number(measured: Measured, factor: float, form: str) -> Entry:
    low, high = (format(bound * factor, form) for bound in measured.interval) if measured.interval else ("", "")
    return Entry(format(measured.value * factor, form), low, high)


def _difference(first: Cell, second: Cell, value: Value, marks: _Marks) -> Entry:
    """The second cell's value against the first's, relative, as Table III of Mereu et al. 2022 gives it."""
    for cell in (first, second):
        if value not in cell.values:
            return _empty(cell, marks)
    if first.values[value].value == 0:
        return Entry(EMPTY, mark=marks[OF_NOTHING])
    return Entry(f"{100 * (second.values[value].value / first.values[value].value - 1):+.1f} %")


def _letters(number: int) -> str:
    """Letters of a number from 0: a, b, …, z, aa, ab and so on."""
    head, last = divmod(number, 26)
    return (_letters(head - 1) if head else "") + ascii_lowercase[last]

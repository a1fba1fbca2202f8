"""A table as one offline HTML page, with the figure where the experiment is one."""

from dataclasses import dataclass
from itertools import groupby

from indexer.report.html import render
from train.experiments.run import Result
from train.experiments.table.chart import make_chart
from train.experiments.table.table import Line, Table, make_table


@dataclass(frozen=True)
class _Row:
    """A line whose category is written only where it begins."""

    lead: tuple[str, ...]
    line: Line
    begins: bool


def to_html(result: Result, table: Table | None = None) -> str:
    """The page of a result; every name is escaped, and nothing is loaded from elsewhere."""
    complete = table or make_table(result)
    head = [(label, len(list(columns))) for label, columns in groupby(column.group for column in complete.columns)]
    facts = len(result.grid.facts)
    return render(
        "experiment",
        table=complete,
        head=head,
        words=len(complete.lead) - facts,
        rows=_rows(complete),
        chart=make_chart(result),
    )


def _rows(table: Table) -> list[_Row]:
    rows = []
    before = None
    for line in table.lines:
        # Rows stand by category in the grids, so a category is written once, where it begins.
        begins = line.lead[0] != before
        before = line.lead[0]
        rows.append(_Row(line.lead if begins or len(table.lead) == 1 else ("", *line.lead[1:]), line, begins))
    return rows

"""A table as text for a terminal, CSV and Markdown."""

import csv
import io
from collections.abc import Iterator, Sequence

from train.experiments.table.table import COUNTS, EMPTY, Line, Table

GAP = "  "


def to_text(table: Table, width: int = 120) -> str:
    """Write plain text; columns that do not fit into `width` characters go below, with the rows' names again."""
    headers = [*table.lead, *map(str, table.columns)]
    cells = [[*line.lead, *map(str, line.entries)] for line in table.lines]
    widths = [max(len(row[column]) for row in [headers, *cells]) for column in range(len(headers))]
    blocks = [
        "\n".join(_row(row, block, widths, len(table.lead)) for row in [headers, *cells])
        for block in _chunks(widths, len(table.lead), width)
    ]
    head = f"{table.title}\n{table.origin}\n{table.scale.capitalize()}."
    return "\n\n".join([head, *blocks, "\n".join(_below(table))])


def _chunks(widths: Sequence[int], lead: int, width: int) -> Iterator[list[int]]:
    """Columns of each block: all lead columns, then as many as fit, one at least."""
    names = list(range(lead))
    # Every block repeats the lead columns, so their width counts for each.
    used = sum(widths[column] + len(GAP) for column in names)
    block: list[int] = []
    for column in range(lead, len(widths)):
        if block and used + sum(widths[other] + len(GAP) for other in [*block, column]) > width:
            yield names + block
            block = []
        block.append(column)
    yield names + block


def _row(row: Sequence[str], block: Sequence[int], widths: Sequence[int], lead: int) -> str:
    return GAP.join(row[column].ljust(widths[column]) for column in block).rstrip()


def to_markdown(table: Table) -> str:
    """Write a Markdown document: title, table, notes."""
    headers = [*table.lead, *map(str, table.columns)]
    rows = [[*line.lead, *map(str, line.entries)] for line in table.lines]
    grid = [headers, ["---"] * len(headers), *rows]
    lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in grid]
    below = [f"- {_escaped(line)}" for line in _below(table)]
    head = [f"## {table.title}", "", f"{table.origin} {table.scale.capitalize()}.", ""]
    return "\n".join([*head, *lines, "", *below, ""])


def _escaped(text: str) -> str:
    """Text without Markdown's own characters; the backslash first, or it would escape the escapes."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _below(table: Table) -> Iterator[str]:
    """Lines below a table: what each group was measured on, reasons of empty cells, notes."""
    yield from (f"{label}: {text}" for label, text in table.legend)
    yield from (f"({mark}) {reason}" for mark, reason in table.footnotes.items())
    yield from table.notes


def to_csv(table: Table) -> str:
    """Write CSV: the same columns, each number followed by both ends of its interval.

    Then follow each group's protocol and counts, and the reasons of empty cells.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = [name for column in table.columns for name in (str(column), f"{column} low", f"{column} high")]
    under = [f"{group} {word}".strip() for group in table.groups for word in COUNTS]
    writer.writerow(["row", *table.lead, *ends, *under, "seed", "reasons"])
    for line in table.lines:
        counts = [value for group in line.under for value in group]
        writer.writerow([line.name, *line.lead, *_numbers(line), *counts, table.seed, "; ".join(_reasons(table, line))])
    return out.getvalue()


def _numbers(line: Line) -> Iterator[str]:
    for entry in line.entries:
        yield from ("" if entry.text == EMPTY else entry.text, entry.low, entry.high)


def _reasons(table: Table, line: Line) -> list[str]:
    """Why groups of a row are empty, each once."""
    pairs = zip(table.columns, line.entries, strict=True)
    said = (f"{column.group}: {table.footnotes[entry.mark]}" for column, entry in pairs if entry.mark)
    return list(dict.fromkeys(text.removeprefix(": ") for text in said))

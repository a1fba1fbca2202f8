"""The ledger on disk: one CSV with every cell, and one page."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.report.html import render
from seqdata.storage.files import write_bytes_atomic
from train.experiments.ledger.entries import Entry, entries
from train.experiments.run import Result
from train.experiments.table.notes import notes
from train.experiments.table.table import WORDS, row_words, scale_words

COLUMNS = (
    "experiment", "row", "column", "quantity", "unit", "table", "paper_row", "published", "ours", "low", "high",
    "difference", "protocol", "queries", "left_out", "database", "expected", "met", "differs", "reason",
)  # fmt: skip
"""Columns of the CSV; docs/results.md says what they hold."""
DECIMALS = {"%": 1, "share": 3, "GB": 2, "ms": 2, "MB": 1}
"""Decimals that a unit is written with; counts and dimensions have none."""
MET = {None: "", True: "yes", False: "no"}


def write_ledger(result: Result) -> list[Path]:
    """Write `<name>-<scale>-ledger.csv` and `.html` into the experiments' folder.

    Raises:
        OutputError: If they cannot be written.
    """
    lines = entries(result)
    stem = result.request.out / f"{result.request.name}-{result.request.scale}-ledger"
    texts = {".csv": to_csv(result.request.name, lines), ".html": to_html(result, lines)}
    for suffix, text in texts.items():
        write_bytes_atomic(stem.with_suffix(suffix), text.encode())
    return [stem.with_suffix(suffix) for suffix in texts]


def to_csv(experiment: str, lines: Sequence[Entry]) -> str:
    """Write a line for every entry; numbers are in the entry's unit, what is missing is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in lines:
        cell, printed = entry.cell, entry.printed
        low, high = entry.interval or (None, None)
        numbers = [_number(value, entry.unit) for value in (entry.ours, low, high)]
        counted = ["", "", "", ""] if cell is None else [cell.protocol, cell.queries, cell.left_out, cell.database]
        writer.writerow(
            [
                experiment, entry.key.row, entry.key.column, entry.key.quantity, entry.unit,
                *(("", "", "") if printed is None else (printed.table, printed.row, printed.text)),
                *numbers, _signed(entry.difference, entry.unit), *counted, "; ".join(map(str, entry.counts)),
                MET[entry.are_counts_met], " ".join(entry.differs), entry.reason,
            ]
        )  # fmt: skip
    return out.getvalue()


def to_html(result: Result, lines: Sequence[Entry]) -> str:
    """Write the page: the paper's cells and ours, what differs as numbered notes, counts by column."""
    numbers: dict[str, int] = {}
    rows = [_page_row(result, entry, numbers) for entry in lines]
    counts = {entry.key.column or "all columns": entry.counts for entry in lines if entry.counts}
    protocols = {entry.cell.protocol: entry.cell.conditions for entry in lines if entry.cell and entry.cell.protocol}
    return render(
        "ledger",
        title=result.title,
        paper=result.grid.paper,
        scale=scale_words(result),
        rows=rows,
        counts=counts,
        protocols=protocols,
        differences={number: text for text, number in numbers.items()},
        notes=list(notes(result)),
        summary=_summary(lines),
    )


def _summary(lines: Sequence[Entry]) -> str:
    """How many of the paper's values have one of ours beside them."""
    printed = [entry for entry in lines if entry.paper is not None]
    both = sum(entry.ours is not None for entry in printed)
    ours = sum(entry.ours is not None for entry in lines)
    return f"{len(printed)} values of the paper, {both} with one of ours beside them; {ours} values of ours."


def _page_row(result: Result, entry: Entry, numbers: dict[str, int]) -> dict[str, Any]:
    """What the template shows of an entry; texts that repeat are numbered in `numbers`."""
    notes = sorted(numbers.setdefault(text, len(numbers) + 1) for text in (*entry.differs, entry.reason) if text)
    low, high = entry.interval or (None, None)
    name, mark, digest = (entry.cell.protocol or "" if entry.cell else "").partition("@")
    met = sum(count.is_met for count in entry.counts)
    printed = entry.printed
    return {
        # Rows of the paper that the result's own form of the grid lacks are called as in the paper.
        "row": printed.row if printed and entry.cell is None else " · ".join(row_words(entry.key.row, result)),
        "place": "" if printed is None else f"{printed.table}, {printed.row}",
        "column": entry.key.column,
        "quantity": WORDS.get(entry.key.quantity, entry.key.quantity),
        "unit": entry.unit,
        "published": "" if printed is None else printed.text,
        "ours": _number(entry.ours, entry.unit),
        "interval": "" if low is None else f"{_number(low, entry.unit)} – {_number(high, entry.unit)}",
        "difference": _signed(entry.difference, entry.unit),
        "protocol": name,
        "hash": f"{mark}{digest}",
        "counts": f"{met} of {len(entry.counts)}" if entry.counts else "",
        "notes": ", ".join(map(str, notes)),
    }


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.{DECIMALS.get(unit, 0)}f}"


def _signed(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:+.{DECIMALS.get(unit, 0)}f}"

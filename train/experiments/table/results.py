"""A result on disk: the table as Markdown, CSV and HTML, and everything behind it as JSON."""

from pathlib import Path
from typing import Any

from seqdata.storage.files import write_bytes_atomic, write_json_atomic
from train.experiments.run import Result
from train.experiments.table.formats import to_csv, to_markdown
from train.experiments.table.page import to_html
from train.experiments.table.table import Table


def write(result: Result, table: Table) -> list[Path]:
    """Write `<name>-<scale>.md`, `.csv`, `.html` and `.json` into the experiments' folder.

    Raises:
        OutputError: When it cannot be written.
    """
    stem = result.request.out / f"{result.request.name}-{result.request.scale}"
    texts = {".md": to_markdown(table), ".csv": to_csv(table), ".html": to_html(result, table)}
    for suffix, text in texts.items():
        write_bytes_atomic(stem.with_suffix(suffix), text.encode())
    write_json_atomic(stem.with_suffix(".json"), to_json(result))
    return [stem.with_suffix(suffix) for suffix in (*texts, ".json")]


def to_json(result: Result) -> dict[str, Any]:
    """Every cell with its inputs, numbers and counts, by row, in the order of the groups."""
    return {
        "experiment": result.request.name,
        "paper": result.grid.paper,
        "title": result.title,
        "scale": result.request.scale,
        "seed": result.request.seed,
        "weights": result.request.weights,
        "datasets": {dataset.location: dataset.id for dataset in result.request.datasets},
        "groups": list(result.labels),
        "computed": result.computed,
        "rows": {row: [cell.model_dump(mode="json") for cell in cells] for row, cells in result.cells.items()},
    }

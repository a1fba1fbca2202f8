"""Evaluations as `seqdata eval` and `baseline` print them: tables for people, JSON, CSV."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from cli.output import emit, note
from indexer.evaluation.comparison import Comparison
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.text_tables import Axis, flat_rows, format_against, format_comparison, format_table
from seqdata.storage.files import write_bytes_atomic

AXES: tuple[Axis, ...] = ("radius", "length", "size")


def print_evaluations(
    results: Sequence[Evaluation],
    *,
    series: Sequence[Evaluation] = (),
    comparisons: Sequence[Comparison] = (),
    axis: Axis | None = None,
    csv: Path | None = None,
    wide: bool = False,
    as_json: bool,
) -> None:
    """Print evaluations; in JSON a single evaluation is the whole result.

    Args:
        results: One evaluation for each method and protocol.
        series: The same at other radii or by fewer dimensions.
        comparisons: Paired comparisons.
        axis: A table of recall against it is added.
        csv: File for all figures.
        wide: Whether tables have a row a method, which needs 140 columns.
        as_json: Whether to print JSON.
    """
    everything = [*results, *series]
    parts = [format_table(results, wide=wide), *([format_against(everything, axis)] if axis else [])]
    parts += [format_comparison(comparison) for comparison in comparisons]
    if csv is not None:
        # Rows have different columns; with the whole list read, a column may begin with nulls and still be numbers.
        table = pl.DataFrame(flat_rows(everything), infer_schema_length=None)
        # A spreadsheet runs a cell that begins so as a formula; the quote makes it text.
        texts = pl.col(pl.String)
        is_formula = texts.str.contains("^[=+@-]")
        table = table.with_columns(pl.when(is_formula).then("'" + texts).otherwise(texts).name.keep())
        write_bytes_atomic(csv, table.write_csv().encode())
        note(f"figures: {csv}")
    # Pydantic writes NaN as null; json.dumps would print NaN, which is no JSON.
    rows = [json.loads(evaluation.model_dump_json()) for evaluation in everything]
    pairs = [json.loads(comparison.model_dump_json()) for comparison in comparisons]
    # Scripts that evaluate one method under one protocol read its fields at the top level.
    result = rows[0] if len(rows) == 1 and not pairs else {"evaluations": rows, "comparisons": pairs}
    emit(result, "\n\n".join(parts), as_json=as_json)

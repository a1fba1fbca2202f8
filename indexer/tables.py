"""Plain-text recall tables, one group a protocol: two protocols never share a column."""

from collections.abc import Sequence

from indexer.evaluation import Evaluation


def group_by_protocol(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Evaluations that may stand in one column together, in order of first appearance."""
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault((evaluation.label, evaluation.conditions), []).append(evaluation)
    return list(groups.values())


def format_share(share: float, interval: tuple[float, float]) -> str:
    """A recall with its interval in per cent: ` 81.7 [79.2, 84.0]`."""
    return f"{100 * share:5.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def format_table(evaluations: Sequence[Evaluation]) -> str:
    """The evaluations as text: a block a protocol with name@hash and conditions, a row a method.

    Each row: queries counted, left out, database windows, R@N in per cent with its 95 % interval. Below a
    block stands how the intervals were found.
    """
    return "\n\n".join(_format_group(group) for group in group_by_protocol(evaluations))


def _format_group(group: Sequence[Evaluation]) -> str:
    columns = sorted({n for evaluation in group for n in evaluation.recall})
    header = ["method", "queries", "left out", "database", *(f"R@{n}" for n in columns)]
    rows = [header, *(_row(evaluation, columns) for evaluation in group)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [f"{group[0].label}: {group[0].conditions}"]
    lines += ["  " + "  ".join(_pad(cell, i, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    return "\n".join([*lines, *_notes(group)])


def _row(evaluation: Evaluation, columns: Sequence[int]) -> list[str]:
    counts = [str(evaluation.queries), str(evaluation.left_out), str(evaluation.database)]
    shares = [
        format_share(evaluation.recall[n], evaluation.interval[n]) if n in evaluation.recall else "-" for n in columns
    ]
    return [evaluation.method, *counts, *shares]


def _pad(cell: str, column: int, width: int) -> str:
    """Names and shares flush left, counts flush right."""
    return cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)


def _notes(group: Sequence[Evaluation]) -> list[str]:
    methods = list(dict.fromkeys(evaluation.interval_method for evaluation in group))
    if len(methods) == 1:
        return [f"  95 % intervals: {methods[0]}"]
    return [f"  95 % interval of {evaluation.method}: {evaluation.interval_method}" for evaluation in group]

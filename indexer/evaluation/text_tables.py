"""Plain-text recall tables, one group a protocol: two protocols never share a column."""

import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

from indexer.evaluation.breakdowns import GroupRecall
from indexer.evaluation.comparison import Comparison, Gap
from indexer.evaluation.metrics import Measure
from indexer.evaluation.recall import Evaluation
from indexer.text import TEXT_COLUMNS, plural
from seqdata.errors import ContractError

Axis = Literal["radius", "length", "size"]


def group_by_protocol(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Group evaluations that may stand in one column together, in order of first appearance.

    They agree in protocol, conditions and dataset: a dataset whose images are stored otherwise gives other numbers.
    """
    groups: dict[tuple[str, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault((evaluation.heading, evaluation.conditions), []).append(evaluation)
    return list(groups.values())


def format_share(share: float, interval: tuple[float, float]) -> str:
    """Format a recall with its interval in per cent.

    Example:
        >>> format_share(0.817, (0.792, 0.84))
        ' 81.7 [79.2, 84.0]'
    """
    return f"{100 * share:5.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def format_table(evaluations: Sequence[Evaluation], *, wide: bool = False) -> str:
    """Format evaluations as text: a block a protocol with name@hash, dataset and conditions, and its methods.

    Each method: queries counted, left out, database windows, R@N in per cent with its 95 % interval; below it its
    groups of queries, where it was broken down, and the recall of a random order. Below a block stands how the
    intervals were computed, then the figures beside recall, where they were measured.

    Args:
        evaluations: What to show.
        wide: A row a method, about 140 columns; else two lines a method, at most 80 columns.
    """
    layout = _wide_rows if wide else _stacked_rows
    return "\n\n".join(_format_group(group, layout, wide=wide) for group in group_by_protocol(evaluations))


def format_against(evaluations: Sequence[Evaluation], axis: Axis) -> str:
    """Set recall against radius, length or descriptor size: a column each, by protocol and split; rows: method, N.

    Values rise from left to right. Two protocols or splits stand side by side, never in one column; methods of one name
    have a row each (see `distinct_methods`).

    Args:
        evaluations: What to show.
        axis: What the columns stand for.

    Raises:
        ContractError: If an evaluation lacks the axis's value.
    """
    places = [(_axis_value(row, axis), row.label, row.split) for row in evaluations]
    named = distinct_methods(evaluations, places)
    columns: dict[tuple[float, str, str], dict[str, Evaluation]] = {place: {} for place in sorted(places)}
    for place, row in zip(places, named, strict=True):
        columns[place][row.method] = row
    methods = list(dict.fromkeys(row.method for row in named))
    ranks = sorted({n for row in evaluations for n in row.recall})
    lines = [
        [axis, "", *(f"{value:g}" for value, _, _ in columns)],
        ["protocol", "", *(label for _, label, _ in columns)],
        ["split", "", *(split for _, _, split in columns)],
        # Methods of one column may have been counted over different queries: all counts are shown.
        ["queries", "", *("/".join(dict.fromkeys(str(e.queries) for e in c.values())) for c in columns.values())],
    ]
    for method in methods:
        lines += [[method, f"R@{n}", *(_cell(column.get(method), n) for column in columns.values())] for n in ranks]
    return "\n".join(_lines(lines))


def distinct_methods(evaluations: Sequence[Evaluation], columns: Sequence[Hashable]) -> list[Evaluation]:
    """Give evaluations of one method's name in one of `columns` (one an evaluation) different names.

    Such a name ends with the beginning of the index's id; what is still the same, with a number.
    """
    times = Counter((column, row.method) for column, row in zip(columns, evaluations, strict=True))
    repeated = {method for (_, method), count in times.items() if count > 1}
    numbers: Counter[tuple[Hashable, str]] = Counter()
    named = []
    for column, row in zip(columns, evaluations, strict=True):
        name = f"{row.method} [{row.index[:8]}]" if row.index and row.method in repeated else row.method
        numbers[column, name] += 1
        number = numbers[column, name]
        named.append(row.model_copy(update={"method": name if number == 1 else f"{name} #{number}"}))
    return named


def format_comparison(comparison: Comparison) -> str:
    """Format a paired comparison in words and numbers, a line for each N."""
    lines = [
        f"{comparison.label}, {comparison.split} split, {comparison.queries} queries: "
        f"{comparison.first} against {comparison.second}"
    ]
    lines += [f"  R@{n}: {_format_gap(gap)}" for n, gap in comparison.gaps.items()]
    return "\n".join([*lines, f"  95 % intervals of the difference: {comparison.method}"])


def flat_rows(evaluations: Sequence[Evaluation]) -> list[dict[str, object]]:
    """List a row an evaluation and group of queries, for CSV: what the number means first, then the number.

    Where there are several protocols or splits, each has columns of its own for numbers, `name@hash r1` and so on.
    """
    splits = {row.split for row in evaluations}
    several = len({(row.label, row.split) for row in evaluations}) > 1
    rows: list[dict[str, object]] = []
    for row in evaluations:
        head = "" if not several else f"{row.label} " if len(splits) == 1 else f"{row.label} {row.split} "
        rows.append({**_meaning(row, "", ""), **_counts(row.queries, row.left_out), **_headed(head, _numbers(row))})
        for breakdown, groups in row.by.items():
            for name, group in groups.items():
                numbers = _headed(head, _shares(group.recall, group.interval))
                rows.append({**_meaning(row, breakdown, name), **_counts(group.queries, group.left_out), **numbers})
    return rows


def _headed(head: str, numbers: dict[str, object]) -> dict[str, object]:
    return {head + name: number for name, number in numbers.items()}


def _axis_value(evaluation: Evaluation, axis: Axis) -> float:
    """Where an evaluation stands on the axis. Raises: ContractError when that is unknown."""
    value = getattr(evaluation, axis)
    if value is None:
        raise ContractError(f"{evaluation.method}: its {axis} is not known; these predictions cannot stand against it")
    return float(value)


def _cell(evaluation: Evaluation | GroupRecall | None, n: int) -> str:
    if evaluation is None or n not in evaluation.recall:
        return "-"
    return format_share(evaluation.recall[n], evaluation.interval[n])


def _format_gap(gap: Gap) -> str:
    verdicts = {True: "beyond chance", False: "may be chance", None: "too few units to tell"}
    interval = "" if gap.interval is None else f" [{100 * gap.interval[0]:+.1f}, {100 * gap.interval[1]:+.1f}]"
    return (
        f"{100 * gap.first:.1f} against {100 * gap.second:.1f}, difference {100 * gap.difference:+.1f}{interval}: "
        f"{verdicts[gap.beyond_chance]}; hits of one alone {gap.only_first} to {gap.only_second}; "
        f"units better {gap.better}, worse {gap.worse}, equal {gap.equal} (sign test p = {gap.sign_p:.2g})"
    )


_Layout = Callable[[Sequence[Evaluation], Sequence[int]], list[str]]


def _format_group(evaluations: Sequence[Evaluation], layout: _Layout, *, wide: bool) -> str:
    group = distinct_methods(evaluations, [0] * len(evaluations))
    columns = sorted({n for evaluation in group for n in evaluation.recall})
    lines = [f"{group[0].heading}: {group[0].conditions}", *layout(group, columns), *_notes(group), *_figures(group)]
    return "\n".join(lines if wide else [part for line in lines for part in _wrapped(line)])


def _wrapped(line: str) -> list[str]:
    """A line of text in parts of at most 80 columns; what belongs together is indented."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, TEXT_COLUMNS, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def _stacked_rows(group: Sequence[Evaluation], columns: Sequence[int]) -> list[str]:
    """Two lines a method: its name and counts, and below it the recalls."""
    lines = [_recall_line([f"R@{n}" for n in columns])]
    for row in group:
        counts = f"{plural(row.queries, 'query', 'queries')}, {row.left_out} left out"
        lines.append(f"  {row.method}: {counts}, {plural(row.database, 'database window')}")
        lines.append(_recall_line([_cell(row, n) for n in columns]))
        for breakdown, groups in row.by.items():
            for name, part in groups.items():
                left_out = f", {part.left_out} left out" if part.left_out else ""
                lines.append(f"    {breakdown} {name}: {plural(part.queries, 'query', 'queries')}{left_out}")
                lines.append(_recall_line([_cell(part, n) for n in columns]))
    lines += [
        line
        for name, chance in chances(group)
        for line in (f"  {name}:", _recall_line([_chance_cell(chance, n) for n in columns]))
    ]
    return lines


def _recall_line(cells: Sequence[str]) -> str:
    # Four shares with intervals fit 80 columns only with a bare 100.
    narrow = (cell.strip().replace("100.0", "100") for cell in cells)
    return "    " + " ".join(f"{cell:<18}" for cell in narrow).rstrip()


def chances(group: Sequence[Evaluation]) -> list[tuple[str, dict[int, float]]]:
    """The recalls of a random order, one where they agree, with what they are called; none of earlier programs."""
    different = list({tuple(row.chance.items()): row for row in group if row.chance}.values())
    if len(different) == 1:
        return [("chance (a random order)", different[0].chance)]
    return [(f"chance for {row.method}", row.chance) for row in different]


def _chance_cell(chance: Mapping[int, float], n: int) -> str:
    return f"{100 * chance[n]:5.1f}" if n in chance else "-"


def _wide_rows(group: Sequence[Evaluation], columns: Sequence[int]) -> list[str]:
    """A row a method."""
    rows = [["method", "queries", "left out", "database", *(f"R@{n}" for n in columns)]]
    for evaluation in group:
        rows.append(_row(evaluation, columns))
        rows += _group_rows(evaluation, columns)
    rows += [[name, "", "", "", *(_chance_cell(chance, n) for n in columns)] for name, chance in chances(group)]
    return _lines(rows, counts=3)


def _row(evaluation: Evaluation, columns: Sequence[int]) -> list[str]:
    counts = [str(evaluation.queries), str(evaluation.left_out), str(evaluation.database)]
    return [evaluation.method, *counts, *(_cell(evaluation, n) for n in columns)]


def _group_rows(evaluation: Evaluation, columns: Sequence[int]) -> list[list[str]]:
    return [
        [f"  {breakdown} {name}", str(group.queries), str(group.left_out), ""] + [_cell(group, n) for n in columns]
        for breakdown, groups in evaluation.by.items()
        for name, group in groups.items()
    ]


def _lines(rows: Sequence[Sequence[str]], counts: int = 0) -> list[str]:
    """Rows in columns: names and shares flush left, the `counts` columns after the first flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = [str.rjust if 1 <= column <= counts else str.ljust for column in range(len(widths))]
    padded = [[side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)] for row in rows]
    return ["  " + "  ".join(row).rstrip() for row in padded]


def remarks(group: Sequence[Evaluation]) -> list[str]:
    """Say what a reader must know of a group's numbers: excluded pairs, missing predictions, what gave the order."""
    lines = [f"{n} pairs of windows share a frame and never match" for n in {e.shared: 0 for e in group} if n]
    for row in group:
        if row.unanswered:
            misses = "a miss" if row.unanswered == 1 else "misses"
            lines.append(
                f"{row.method}: {row.queries} queries, {row.unanswered} of them without any prediction, {misses}"
            )
        if row.ranked_by:
            lines.append(f"{row.method}: ranked by {row.ranked_by}")
    return lines


def _notes(group: Sequence[Evaluation]) -> list[str]:
    """The remarks of a group, and how its intervals were computed."""
    notes = [f"  {line}" for line in remarks(group)]
    methods = list(dict.fromkeys(evaluation.interval_method for evaluation in group))
    if len(methods) == 1:
        return [*notes, f"  95 % intervals: {methods[0]}"]
    return [*notes, *(f"  95 % interval of {row.method}: {row.interval_method}" for row in group)]


def _figures(group: Sequence[Evaluation]) -> list[str]:
    """The figures beside recall, a line a method."""
    lines = []
    for evaluation in group:
        metrics = evaluation.metrics
        if metrics is None:
            continue
        parts = [
            _format_measure("mean rank", metrics.mean_rank, 1, f" (at most {metrics.depth + 1})"),
            _format_measure(f"mAP@{metrics.depth}", metrics.mean_average_precision, 100),
            _format_measure("AUC of precision-recall", metrics.auc, 100),
            _format_measure("recall at 100 % precision", metrics.recall_at_full_precision, 100),
        ]
        lines.append(f"  {evaluation.method}: {', '.join(parts)}; intervals: {metrics.interval_method}")
    return lines


def _format_measure(name: str, measure: Measure | None, scale: float, after: str = "") -> str:
    if measure is None:
        return f"{name} unknown (the predictions carry no distances)"
    low_high = "" if measure.interval is None else " [{:.1f}, {:.1f}]".format(*(scale * x for x in measure.interval))
    return f"{name} {scale * measure.value:.1f}{low_high}{after}"


def _meaning(evaluation: Evaluation, breakdown: str, group: str) -> dict[str, object]:
    """What a row's number means, by column."""
    return {
        "protocol": evaluation.protocol,
        "protocol_hash": evaluation.protocol_hash,
        "split": evaluation.split,
        "method": evaluation.method,
        "breakdown": breakdown or None,
        "group": group or None,
        "rule": evaluation.positive_rule,
        "radius": evaluation.radius,
        "unit": evaluation.unit,
        "length": evaluation.length,
        "size": evaluation.size,
        "dataset": evaluation.dataset,
        "index": evaluation.index,
        "database": evaluation.database,
        **{f"chance_r{n}": share for n, share in evaluation.chance.items()},
    }


def _counts(queries: int, left_out: int) -> dict[str, object]:
    return {"queries": queries, "left_out": left_out}


def _numbers(evaluation: Evaluation) -> dict[str, object]:
    """Recalls with their intervals, and the figures beside recall where they were measured."""
    numbers = _shares(evaluation.recall, evaluation.interval)
    if evaluation.metrics is None:
        return numbers
    names = ("mean_rank", "mean_average_precision", "auc", "recall_at_full_precision")
    for name in names:
        measure = getattr(evaluation.metrics, name)
        low, high = (measure.interval if measure is not None else None) or (None, None)
        numbers |= {name: measure and measure.value, f"{name}_low": low, f"{name}_high": high}
    return numbers


def _shares(recall: dict[int, float], interval: dict[int, tuple[float, float]]) -> dict[str, object]:
    return {
        key: value
        for n in sorted(recall)
        for key, value in ((f"r{n}", recall[n]), (f"r{n}_low", interval[n][0]), (f"r{n}_high", interval[n][1]))
    }

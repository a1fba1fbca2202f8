"""Answers of a search as text: how sequences were cut into windows, and the places of each window."""

from pathlib import Path
from typing import Any

from indexer.localizer.search import Answer
from indexer.text import TEXT_COLUMNS, elide, plural

# How a column of similarities is headed; docs/methods.md defines both.
_SIMILARITY = {"cosine": "cosine", "1/(1+distance)": "simil."}


def window_cuts(answers: list[Answer]) -> list[dict[str, Any]]:
    """How each sequence was cut into windows: frames, order, length, stride, and whether the last window was moved.

    Queries of a dataset and descriptors were cut before, so they are not listed.
    """
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.first is not None:
            groups.setdefault(answer.query, []).append(answer)
    cuts = []
    for name, windows in groups.items():
        length, last = len(windows[-1].frames), windows[-1].first or 0
        cuts.append({
            "query": name, "order": windows[0].order, "frames": last + length, "windows": len(windows),
            "length": length, "stride": length, "last_moved": last % length != 0,
        })  # fmt: skip
    return cuts


def cut_lines(cuts: list[dict[str, Any]]) -> list[str]:
    """One line for the sequences of each order: what was cut, how, and which windows were moved."""
    lines = []
    for order in dict.fromkeys(cut["order"] for cut in cuts):
        group = [cut for cut in cuts if cut["order"] == order]
        frames, windows, moved = (sum(cut[name] for cut in group) for name in ("frames", "windows", "last_moved"))
        lines.append(f"{plural(len(group), 'sequence')} of {plural(frames, 'frame')} in the order of {order}:")
        line = f"  {plural(windows, 'window')} of {group[0]['length']} frames, stride {group[0]['stride']}"
        if moved:
            line += f"; the last one of {plural(moved, 'sequence')} moved back to end with its last frame"
        lines.append(line)
    return lines


def answer_lines(answer: Answer) -> list[str]:
    """The table of one query's places, at most 80 columns wide."""
    names = answer.frames
    head = f"{names[0]} … {Path(names[-1]).name}" if names else answer.query
    has_truth = bool(answer.places) and "metres" in answer.places[0]
    kind = answer.places[0]["similarity_kind"] if answer.places else ""
    similarity, metres = _SIMILARITY.get(kind, kind), "   metres " if has_truth else ""
    title = f"      distance  {similarity:>6}   latitude   longitude {metres}place"
    rows = []
    for row in answer.places:
        start = (
            f"  {row['rank']:>3}  {row['distance']:7.4f}  {row['similarity']:6.3f} {row['latitude']:10.6f} "
            f"{row['longitude']:11.6f} {_metres_text(row)}"
        )
        position = f" #{row['position']}"
        rows.append(start + elide(row["trajectory"], max(TEXT_COLUMNS - len(start) - len(position), 12)) + position)
    return ["", head, title, *rows]


def _metres_text(place: dict[str, Any]) -> str:
    """The distance from the query where it is known, as a column."""
    if "metres" not in place:
        return ""
    return f"{'-' if place['metres'] is None else format(place['metres'], '.1f'):>8} "

"""The best epoch of a run: the checkpoint, the printed line and patience follow one rule."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.runs.best_epoch import best_epoch
from train.runs.record import run_summary
from train.runs.state import Course

CASES = [
    pytest.param([(0.1, 0.5), (0.3, 0.5)], 2, id="equal R@5: the greater R@1"),
    pytest.param([(0.9, 0.4), (0.1, 0.5)], 2, id="R@5 before R@1"),
    pytest.param([(0.3, 0.5), (0.3, 0.5)], 1, id="all equal: the earlier epoch"),
    pytest.param([None, None], 2, id="no val split: the last epoch"),
]


def metrics(values: list[tuple[float, float] | None]) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "val": None if value is None else {"r1": value[0], "r5": value[1]}}
        for epoch, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(("values", "epoch"), CASES)
def test_the_printed_epoch_is_that_of_the_stored_checkpoint(
    values: list[tuple[float, float] | None], epoch: int, tmp_path: Path
) -> None:
    rows = metrics(values)
    course = Course()
    for row in rows:
        course.note(row["epoch"], row["val"])
    assert best_epoch(rows)["epoch"] == course.best_epoch == epoch
    record = dict.fromkeys(("dataset", "protocol", "model", "descriptor_size", "settings"), "")
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_summary(tmp_path)["best"]["epoch"] == epoch


def test_no_epoch() -> None:
    assert best_epoch([]) == {}


def test_patience_looks_at_r5_alone() -> None:
    course = Course()
    course.note(1, {"r1": 0.1, "r5": 0.5})
    course.note(2, {"r1": 0.3, "r5": 0.5})
    assert (course.best_epoch, course.since_best) == (2, 1)
    course.note(3, {"r1": 0.0, "r5": 0.6})
    assert (course.best_epoch, course.since_best) == (3, 0)

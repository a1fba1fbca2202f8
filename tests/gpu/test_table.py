"""The table of `make gpu`: when a goal is reached, and that a failing step hides no other."""

import json
from pathlib import Path

import pytest
import torch

from tests.gpu import run
from tests.gpu.rows import Row, table


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("step", 1.0, "s", peer=5.0, goal=5.0), True),
        (Row("step", 1.1, "s", peer=5.0, goal=5.0), False),
        (Row("describe", 100.0, "1/s", peer=9.0, goal=10.0, is_higher_better=True), True),
        (Row("busy", 89.0, "1/s", ceiling=100.0, goal=0.9, is_higher_better=True, of_ceiling=True), False),
        (Row("search", 2.0, "s", peer=3.0, ceiling=1.0, goal=0.5, of_ceiling=True), True),
        (Row("PCA", 19.0, "s", goal=20.0), True),
        (Row("PCA", 21.0, "s", goal=20.0), False),
        (Row("PCA", 21.0, "s"), None),
    ],
)
def test_goals(row: Row, reached: bool | None) -> None:
    assert row.is_reached is reached
    word = {True: "reached", False: "MISSED", None: ""}[reached]
    assert table([row]).splitlines()[1].endswith(word)


def test_a_failing_step_is_named_and_the_others_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("search", 2.0, "s", peer=3.0)
    for step in ("search", "pca"):
        (tmp_path / f"{step}.json").write_text(json.dumps({"rows": [row.as_json()]}))
    assert run.report(tmp_path, ["search", "pca"], {"pca": "took more than 60 s"}, torch.device("cpu")) == 1
    text = capsys.readouterr().out
    assert text.count("1.50x") == 1 and "pca: took more than 60 s" in text
    assert (tmp_path / "table.txt").read_text().strip() in text


def test_a_step_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(run.LIMITS, "search", 0.01)
    assert run.run_step("search", True, tmp_path) == "took more than 0.01 s"

"""The script of `make gpu`: goals, limits, what a failing step leaves, and its form where libraries are missing."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.gpu import run
from tests.gpu.prepare import Miniature, write
from tests.gpu.rows import Row, from_json, table
from tests.gpu.steps import LENGTH, Pixels, papers_form
from train.loop.step import StepModel
from train.models import registry

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("step", 1.0, "s", peer=5.0, goal=5.0), True),
        (Row("step", 1.1, "s", peer=5.0, goal=5.0), False),
        (Row("describe", 100.0, "1/s", peer=9.0, goal=10.0, is_higher_better=True), True),
        (Row("busy", 89.0, "1/s", ceiling=100.0, goal=0.9, of="ceiling", is_higher_better=True), False),
        (Row("search", 2.0, "s", peer=3.0, ceiling=1.0, goal=0.5, of="ceiling"), True),
        (Row("wait", 0.01, "of the step", peer=0.3, goal=0.02, of="ours"), True),
        (Row("wait", 0.03, "of the step", peer=0.9, goal=0.02, of="ours"), False),
        (Row("wait", 0.0, "of the step", peer=0.3, goal=0.02, of="ours"), True),
        (Row("PCA", 21.0, "s"), None),
    ],
)
def test_goals(row: Row, reached: bool | None) -> None:
    assert row.is_reached is reached
    word = {True: "reached", False: "MISSED", None: ""}[reached]
    assert table([row]).splitlines()[1].endswith(word)
    assert from_json(json.loads(json.dumps(row.as_json()))) == row


def test_the_papers_form_computes_the_same_descriptors() -> None:
    """What is compared in time gives the same numbers."""
    model = registry.create("seqvlad-small", encoder="resnet10t", cut="layer1", clusters=4, weights="random").train()
    pixels = torch.randint(0, 256, (9, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(2 * LENGTH).view(2, LENGTH) % 9
    with torch.no_grad():
        torch.testing.assert_close(papers_form(model)(pixels, rows), StepModel(model, Pixels())(pixels, rows))


def test_a_failing_step_is_named_and_the_others_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also what it had measured before it failed."""
    for step, stage in (("search", "one query"), ("pca", "small")):
        (tmp_path / f"{step}.json").write_text(json.dumps({"rows": [Row(stage, 2.0, "s", peer=3.0).as_json()]}))
    failures = {"pca": "took more than 60 s"}
    assert run.report(tmp_path, ["search", "pca", "training"], failures, CPU) == 1
    text = capsys.readouterr().out
    assert text.count("1.50x") == 2 and text.rstrip().endswith("pca: took more than 60 s")
    assert (tmp_path / "table.txt").read_text().strip() in text
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["failures"] == failures and [row["stage"] for row in stored["rows"]] == ["one query", "small"]


def test_every_step_is_bounded_and_all_together_by_seven_minutes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert sum(run.LIMITS.values()) <= run.TOTAL <= 7 * 60
    assert run.run_step("search", True, tmp_path, limit=0.01) == "took more than 0.01 s"
    assert "all steps together may take 420 s" in str(run.run_step("search", True, tmp_path, limit=-1))
    asked: list[float] = []
    clock = iter(range(0, 10_000, 200))  # each look at the clock is 200 s later
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(run, "run_step", lambda step, rehearse, out, limit: asked.append(limit))
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "report", lambda *arguments: 0)
    monkeypatch.setattr(run.prepare, "write", lambda *arguments: None)
    assert run.main(["--out", str(tmp_path), "training", "search", "pca"]) == 0
    assert asked == [120, 20, -180]


def test_rows_of_an_earlier_run_do_not_stand_for_a_failing_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pca.json").write_text(json.dumps({"rows": [Row("old", 2.0, "s").as_json()]}))
    monkeypatch.setattr(run, "run_step", lambda *arguments: "exit 1")
    assert run.main(["--rehearse", "--out", str(tmp_path), "pca"]) == 1
    assert "old" not in capsys.readouterr().out


def test_a_miniature_is_a_drive_in_numpy(tmp_path: Path) -> None:
    write(tmp_path, tiny=True)
    data = Miniature(tmp_path)
    rows = data.frame_rows(data.table.slice(2, 3))
    assert rows.tolist() == [list(range(first, first + LENGTH)) for first in (2, 3, 4)]
    decoded = data.frame_reader().cache(0).frames([1])[1]
    assert decoded.shape == (*data.size, 3) and abs(decoded.astype(int) - data.frames[1]).mean() < 12
    assert (data.pixels(rows[0])[0, :, 5, 6] == data.frames[2, 5, 6]).all()


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("polars", "pyarrow", "faiss"):
            raise ModuleNotFoundError(f"no {name} here", name=name)

sys.meta_path.insert(0, Blocked())
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.gpu import prepare, run
out = Path(sys.argv[1])
prepare.write(out / "miniature", tiny=True)
for step in run.LIMITS:
    assert run.measure(step, torch.device("cpu"), True, out) == 0, step
assert not [name for name in ("polars", "pyarrow", "faiss") if getattr(sys.modules.get(name), "__file__", None)]
raise SystemExit(run.report(out, list(run.LIMITS), {}, torch.device("cpu")))
"""


def test_the_reduced_form_measures_without_polars_pyarrow_and_faiss(tmp_path: Path) -> None:
    """As on a machine where they are not installed; every stage but the tests has its rows."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT), str(tmp_path)],
        cwd=run.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "left out: the tests need polars, pyarrow, faiss" in ended.stdout
    for step in sorted(set(run.LIMITS) - {"tests"}):
        record = json.loads((tmp_path / f"{step}.json").read_text())
        assert record["rows"] and record["without"] == ["polars", "pyarrow", "faiss"], step
    assert "JPEGs in memory" in (tmp_path / "table.txt").read_text()

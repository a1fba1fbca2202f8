"""The report: well-formed, self-contained, escaped, and true to its arrays."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from indexer.evaluation import predictions
from indexer.evaluation.recall import Evaluation, evaluate
from indexer.report.browser import query_rows
from indexer.report.curve import make_curve
from indexer.report.html import PAGES, TEMPLATES
from indexer.report.maps import make_maps
from indexer.report.pictures import strip_uris
from indexer.report.report import write_report
from indexer.report.scene import ReportScene, Retrieval, make_scene, pick_queries, query_status
from seqdata.errors import ContractError
from tests.support.indexes import make_places, make_truth, pairs

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "path", "circle", "br", "input"}


class Checker(HTMLParser):
    """Tags must nest and close; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: Any) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def scene(name: str = "drive", **more: Any) -> ReportScene:
    queries = make_places(24, city=pl.Series(["a"] * 16 + ["b"] * 8), trajectory=name)
    database = make_places(24, city=pl.Series(["a"] * 16 + ["b"] * 8), trajectory=name)
    rows = (np.arange(24)[:, None] + np.array([0, 1, 5]) + (np.arange(24)[:, None] % 3 == 1) * 3) % 24
    table = predictions.table(np.linspace(0, 1, 72).reshape(24, 3), rows)
    positives = pairs(*[(row, row) for row in range(22)])
    near = pairs(*[(row, other) for row in range(22) for other in range(max(0, row - 3), min(24, row + 4))])

    def read(side: str, wanted: list[int]) -> np.ndarray:
        return np.stack([np.full((5, 3, 24, 32), 5 * row, np.uint8) for row in wanted])

    retrieval = Retrieval(table, positives, near, queries, database)
    provenance = {name: name, "dataset": "d" * 64}
    made = make_scene(name, retrieval, read, method=name, provenance=provenance, **more)
    return replace(made, rows=query_rows(retrieval, made.query_status))


def evaluation(name: str = "ours", radius: float = 25.0) -> Evaluation:
    table = predictions.table(np.zeros((24, 20)), (np.arange(24)[:, None] + np.arange(20)) % 24)
    positives = pairs(*[(row, (row + row % 4) % 24) for row in range(22)])
    truth = make_truth(positives, make_places(24), 24, name=name, radius=radius)
    return evaluate(table, truth, predictions.Provenance(name, "test"))


def render(tmp_path: Path, evaluations: Any, shown: Any) -> tuple[str, Checker]:
    path = write_report(tmp_path / "report.html", evaluations=evaluations, scene=shown)
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return text, checker


def test_report_is_whole(tmp_path: Path) -> None:
    text, checker = render(tmp_path, [evaluation(), evaluation(radius=5.0)], scene())
    tags = [tag for tag, _ in checker.tags]
    assert tags.count("table") == 3
    assert tags.count("article") == 12
    assert tags.count("figure") == 48
    assert evaluation().label in text
    assert "no positive (2)" in text
    assert "d" * 64 in text


def test_report_loads_nothing(tmp_path: Path) -> None:
    text, checker = render(tmp_path, [evaluation()], scene())
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    for tag, attributes in checker.tags:
        assert tag not in {"link", "iframe", "object"}
        assert "href" not in attributes
        assert (attributes.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")


def test_only_the_page_s_own_script_may_run(tmp_path: Path) -> None:
    text, _ = render(tmp_path, [evaluation()], scene())
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    text, checker = render(tmp_path, [evaluation(HOSTILE)], scene(HOSTILE))
    assert text.count("<script") == 1
    assert "alert" in text
    assert not any("onerror" in attributes for _, attributes in checker.tags)


def test_report_without_strips_or_evaluations(tmp_path: Path) -> None:
    text, _ = render(tmp_path, [evaluation()], scene(count=0))
    assert "<article" not in text
    with pytest.raises(ContractError, match="at least one evaluation"):
        write_report(tmp_path / "other.html", evaluations=[], scene=scene(count=0))
    assert not (tmp_path / "other.html").exists()


def test_status_of_queries() -> None:
    table = predictions.table(np.zeros((5, 2)), np.array([[0, 1], [2, 1], [9, 2], [3, 3], [4, 0]]))
    positives = pairs((0, 0), (1, 1), (2, 2), (4, 0))
    near = pairs((0, 0), (1, 1), (1, 2), (2, 2), (4, 0))
    assert query_status(table, positives, near, 5).tolist() == ["hit", "near", "miss", "left-out", "miss"]


def test_pick_is_seeded_and_mixed() -> None:
    status = np.array(["hit"] * 50 + ["near"] * 2 + ["miss"] * 30 + ["left-out"] * 9)
    picked = pick_queries(status, 12, seed=1)
    assert picked == pick_queries(status, 12, seed=1) != pick_queries(status, 12, seed=2)
    assert [(status[picked] == name).sum() for name in ("hit", "near", "miss")] == [5, 2, 5]
    assert pick_queries(status[:3], 12, 0) == [0, 1, 2]


def test_maps_have_one_scale_a_city() -> None:
    first, second = make_maps(scene())
    assert (first.city, second.city) == ("a", "b")
    assert sum(first.counts.values()) == 16
    numbers = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", first.database)]
    assert max(numbers) - min(numbers) == pytest.approx(75 * first.bar / float(first.bar_label.split()[0]), rel=0.02)


def test_every_query_has_a_row() -> None:
    shown = scene()
    assert sorted(row.query for row in shown.rows) == list(range(24))
    assert [row.status for row in shown.rows] == sorted(
        shown.query_status.tolist(), key=["miss", "near", "hit", "left-out"].index
    )
    assert shown.nearest is not None
    for row in shown.rows:
        answer = shown.database_xy[shown.nearest[row.query]]
        assert row.metres == pytest.approx(float(np.hypot(*(answer - shown.query_xy[row.query]))))
        assert row.status != "hit" or row.rank == 1


def test_misses_are_joined_to_where_they_were_placed() -> None:
    shown = scene()
    assert shown.nearest is not None
    wrong = np.isin(shown.query_status, ("miss", "near"))
    same_city = shown.query_city == shown.database_city[shown.nearest]
    assert sum(drawn.joins.count("L") for drawn in make_maps(shown)) == (wrong & same_city).sum() > 0


def test_map_of_one_place() -> None:
    one = ReportScene("t", np.zeros((1, 2)), np.zeros((1, 2)), np.array(["hit"]), np.array(["a"]), np.array(["a"]))
    (drawn,) = make_maps(one)
    assert "nan" not in drawn.hit
    assert drawn.bar > 0


def test_curve_rises_upwards() -> None:
    (line,) = make_curve([evaluation()]).lines
    heights = [float(point.split()[1]) for point in line.path[1:].split("L")]
    assert heights == sorted(heights, reverse=True)
    assert len(line.marks) == 4


def test_pictures_are_small_jpegs() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (15, 3, 480, 640), dtype=np.uint8)
    uris = strip_uris(frames)
    assert len(uris) == 7
    image = Image.open(io.BytesIO(base64.b64decode(uris[0].partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (192, 144))


def test_remarks_stand_below_the_table(tmp_path: Path) -> None:
    row = evaluation().model_copy(update={"unanswered": 2, "ranked_by": "column 'score', greatest first"})
    text, _ = render(tmp_path, [row], scene(count=0))
    assert "22 queries, 2 of them without any prediction, misses." in text
    assert "ours: ranked by column &#39;score&#39;, greatest first." in text


def test_every_template_is_registered() -> None:
    """A page is a template, an entry and a module; blocks that pages include have no entry."""
    files = {path.name for path in TEMPLATES.glob("*.j2")} - {"base.html.j2", "leakage.html.j2", "queries.html.j2"}
    assert files == {page.template for page in PAGES.values()}
    for page in PAGES.values():
        assert find_spec(page.module) is not None

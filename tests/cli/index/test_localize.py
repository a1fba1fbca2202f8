"""`seqdata localize` as a user runs it: from an index to a pack to a track, and what goes wrong in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cli.main
from seqdata.errors import SeqdataError
from tests.support.street import build_street, make_index, write_street
from tests.support.videos import write_video
from train.stages.pack import PackRequest, write_pack


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw frames, dataset, index, run, a calibrated pack, and a folder of query frames."""
    folder = tmp_path_factory.mktemp("work")
    raw = write_street(folder / "raw")
    street = build_street(raw, folder / "dataset")
    index, run = make_index(street, folder, "sum", pca=6)
    write_pack(index, PackRequest(run=run, out=folder / "place.pack", dataset=street, precision=0.5, device="cpu"))
    (folder / "drive").mkdir()
    for path in sorted(raw.glob("query-*.jpg"))[20:35]:
        shutil.copyfile(path, folder / "drive" / path.name)
    return folder


def localize(*arguments: object) -> dict:
    result = CliRunner().invoke(cli.main.app, ["localize", *map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_a_folder_becomes_a_track(work: Path, tmp_path: Path) -> None:
    truth = work / "raw" / "positions.csv"
    result = localize(
        work / "place.pack", work / "drive", "--out", tmp_path / "t", "--truth", truth, "--frames", work / "dataset"
    )
    assert (result["frames"], result["answers"]) == (15, 13)
    assert result["truth"]["answers"] == 13
    page = (tmp_path / "t" / "track.html").read_text()
    assert page.count('alt="frame"') == page.count('alt="place"') == 13
    assert "http" not in page.replace("http-equiv", "")


def test_an_index_is_packed_for_the_command(work: Path, tmp_path: Path) -> None:
    results = [
        localize(source, work / "drive", "--out", tmp_path / name, "--filter", "forward", *more)
        for name, source, more in (
            ("pack", work / "place.pack", []),
            ("index", work / "index", ["--run", work / "run"]),
        )
    ]
    assert results[0]["answers"] == results[1]["answers"] == 13
    tables = [(tmp_path / name / "positions.csv").read_text() for name in ("pack", "index")]
    places = [[line.split(",")[2] for line in table.splitlines()] for table in tables]
    assert places[0] == places[1]


def test_the_self_test_passes_and_notices_another_answer(work: Path, tmp_path: Path) -> None:
    assert localize(work / "place.pack", "--self-test") == {"tests": 3, "passed": True}
    copy = tmp_path / "copy"
    shutil.copytree(work / "place.pack", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["tests"][1]["key"] = "elsewhere"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SeqdataError, match=r"self-test 2 of 3: .* recorded was elsewhere"):
        localize(copy, "--self-test")


def test_a_file_that_nobody_listed_is_refused(work: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(work / "place.pack", copy)
    (copy / "index" / "extra.so").write_bytes(b"x")
    with pytest.raises(SeqdataError, match=r"extra\.so: the pack's manifest does not list it"):
        localize(copy, work / "drive", "--out", tmp_path / "t")


def test_a_video_that_is_cut_off_leaves_a_whole_track(work: Path, tmp_path: Path) -> None:
    frames = [np.random.default_rng(n).integers(0, 256, (24, 32, 3), np.uint8) for n in range(12)]
    whole = write_video(tmp_path / "drive.avi", frames, [0.2 * n for n in range(12)])
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code = "import sys; from cli.main import run; sys.argv = ['seqdata', *sys.argv[1:]]; run()"
    command = [sys.executable, "-c", code, "localize", str(work / "place.pack"), str(cut), "--out", str(tmp_path / "t")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(cli.main.__file__).parents[1])
    assert ended.returncode in (0, 3), ended.stderr
    assert "Traceback" not in ended.stderr
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert {"positions.csv", "positions.parquet", "track.gpx", "track.html"} <= names
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["drive", "--camera", "0"], "one of them"),
        ([], "one of them"),
        (["drive", "--filter", "kalman"], "expected none, forward"),
        (["drive", "--device", "openvino"], "it has cpu"),
        (["drive", "--seconds", "3"], "only together with --camera"),
        (["absent"], "no such file"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(work: Path, tmp_path: Path, arguments: list[str], text: str) -> None:
    paths = [str(work / word) if word in ("drive", "absent") else word for word in arguments]
    with pytest.raises(SeqdataError, match=text):
        localize(work / "place.pack", *paths, "--out", tmp_path / "t")
    assert not (tmp_path / "t").exists()

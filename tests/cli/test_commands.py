"""The commands as a user types them: outputs, exit codes, one clear line for a mistake and never a traceback."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main
from tests.conftest import jpeg, write_drives

SEQDATA = str(Path(sys.executable).with_name("seqdata"))


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SEQDATA, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has torch loaded already."""
    out, err, before, code = io.StringIO(), io.StringIO(), Path.cwd(), 0
    os.chdir(folder)
    try:
        with (
            pytest.MonkeyPatch.context() as patched,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patched.setattr(sys, "argv", [SEQDATA, *arguments])
            main.run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a seqdata.toml and a built dataset of two drives."""
    folder = tmp_path_factory.mktemp("work")
    write_drives(folder / "raw", {"map": 40, "query": 30})
    assert run(folder, "init", "--raw", "raw", "--out", "out").returncode == 0
    built = run(folder, "build", "folder", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["frames"] == 70
    return folder


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    """The work folder with a run of a small untrained model."""
    short = ["--model", "seqvlad-small", "--random-init", "--epochs", "0", "--option", "clusters=4"]
    ended = run(work, "train", *short)
    assert ended.returncode == 0, ended.stderr
    assert "using out/datasets/raw" in ended.stderr
    return work


def test_info_verify_quarantine_protocols(work: Path) -> None:
    described = json.loads(run(work, "info", "--json").stdout)
    assert described["protocol"]["splits"]["test"] == {
        "database": 36,
        "query": 26,
        "without_positive": 0,
        "expected": {},
        "differs_from_expected": [],
    }
    assert "using out/datasets/raw (the newest" in run(work, "info").stderr
    assert json.loads(run(work, "verify", "--json").stdout)["faults"] == []
    assert json.loads(run(work, "quarantine", "--json").stdout)["rows"] == []
    assert "msls-seqvlad@" in run(work, "protocols").stdout
    assert "radius = 25.0" in run(work, "protocols", "own").stdout


def test_the_road_of_three_commands_as_typed(trained: Path) -> None:
    """init, build and train are done: index, eval, baseline, search, report without naming a folder."""
    work = trained
    indexed = here(work, "index", "--pca", "16")
    assert indexed.returncode == 0, indexed.stderr
    assert "using out/runs/seqvlad-small-" in indexed.stderr
    again = here(work, "index", "--pca", "16", "--json")
    assert json.loads(again.stdout)["rows"] == 36
    evaluated = json.loads(here(work, "eval", "--json").stdout)
    assert (evaluated["protocol"], evaluated["queries"], evaluated["database"]) == ("own", 26, 36)
    assert set(evaluated["interval"]) == {"1", "5", "10", "20"}
    other = here(work, "eval", "--protocol", "own", "--predictions", *predictions(work), "--json")
    assert json.loads(other.stdout)["recall"] == evaluated["recall"]
    baseline = here(work, "baseline", "--method", "aligned", "--out", "base")
    assert baseline.returncode == 0, baseline.stderr
    found = here(work, "search", *[f"raw/query-{i:03d}.jpg" for i in range(5)], "-k", "3", "--json")
    (answer,) = json.loads(found.stdout)["answers"]
    assert [place["rank"] for place in answer["places"]] == [1, 2, 3]
    report = here(work, "report", "--compare", "base", "--out", "report.html")
    assert report.returncode == 0, report.stderr
    page = (work / "report.html").read_text()
    assert "own@" in page
    assert "aligned frame matching" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def predictions(work: Path) -> list[str]:
    return [str(path) for path in work.glob("out/runs/*/predictions/*.parquet")][:1]


def test_too_few_descriptors_for_pca_is_one_line(trained: Path) -> None:
    ended = here(trained, "index", "--pca", "4096")
    assert ended.returncode == 8
    assert "36 descriptors" in ended.stderr
    assert "--pca 35 would work" in ended.stderr


def test_quarantine_ends_in_code_6_and_a_count(tmp_path: Path) -> None:
    raw = write_drives(tmp_path / "raw", {"map": 12})
    (raw / "map-003.jpg").write_bytes(jpeg(1)[:200])
    ended = run(tmp_path, "build", "folder", "--raw", "raw", "--out", "out", "--protocol", "none")
    assert ended.returncode == 6
    assert "1 input left out (1 bad_image)" in ended.stderr
    assert "map-003.jpg" in run(tmp_path, "quarantine", "out").stdout


MISTAKES = [
    (["build", "folder", "--raw", "nowhere"], 3, "nowhere"),
    (["build", "folder"], 2, "--raw"),
    (["build", "msls", "--raw", "raw"], 3, "MSLS"),
    (["build", "kitti", "--raw", "raw"], 2, "msls"),
    (["build", "folder", "--raw", "raw", "--protocol", "mine"], 2, "msls-seqvlad"),
    (["build", "folder", "--raw", "raw", "--check", "sha"], 2, "--check sha"),
    (["build", "folder", "--raw", "raw", "--out", "occupied"], 5, "occupied"),
    (["info"], 3, "seqdata build"),
    (["info", "raw"], 3, "no dataset here"),
    (["verify", "raw"], 3, "no dataset here"),
    (["train", "raw"], 3, "no dataset here"),
    (["index"], 3, "seqdata train"),
    (["eval"], 3, "seqdata index"),
    (["search", "raw"], 3, "seqdata index"),
    (["report"], 3, "seqdata index"),
    (["protocols", "x.toml"], 3, "no such file"),
    (["info", "--config", "absent.toml"], 3, "absent.toml"),
    (["info", "--config", "wrong.toml"], 4, "unknown field 'ram'"),
    (["info", "--config", "typed.toml"], 4, "'build.workers' must be a int, it is 'two'"),
    (["build", "folder", "--raw", "raw", "--rule", "arcs"], 2, "--rule arcs: expected greedy, arc"),
    (["build", "folder", "--raw", "raw", "--short-side", "0"], 2, "--short-side"),
    (["build", "folder", "--raw", "raw", "--quality", "200"], 2, "--quality"),
    (["search"], 2, "name images, videos or descriptors"),
    (["index", "lits"], 2, "did you mean seqdata index list?"),
    (["build"], 2, "KIND"),
    (["buidl"], 2, "buidl"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES)
def test_a_mistake_is_one_clear_line(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 6})
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "notes.txt").write_text("mine")
    (tmp_path / "wrong.toml").write_text("ram = 'x'\n")
    (tmp_path / "typed.toml").write_text("[build]\nworkers = 'two'\n")
    ended = run(tmp_path, *arguments)
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    if "Usage:" not in ended.stderr:
        assert ended.stderr.count("\n") == 1
        assert ended.stdout == ""


@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_ctrl_c_and_sigterm_are_one_line_and_the_build_goes_on(
    number: str, code: int, word: str, tmp_path: Path
) -> None:
    import signal
    import time

    write_drives(tmp_path / "raw", {"map": 700, "query": 700})
    arguments = ["build", "folder", "--raw", "raw", "--out", "out", "--check", "decode", "--shard-megabytes", "1"]
    process = subprocess.Popen([SEQDATA, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/shards/part-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.Signals[number])
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, code), said
    assert "Traceback" not in said
    assert "leaked" not in said
    assert process.returncode == 0 or f"{word}; run the same command again to continue" in said
    assert run(tmp_path, *arguments).returncode == 0
    assert run(tmp_path, "verify", "out").returncode == 0


def test_an_index_may_lie_anywhere(trained: Path) -> None:
    work = trained
    assert here(work, "index", "--pca", "8", "--out", "elsewhere").returncode == 0
    run_folder = next(work.glob("out/runs/*"))
    # Deeper than it was, so that where it remembers its run leads nowhere.
    moved = work / "deeper" / "x"
    moved.parent.mkdir()
    (work / "elsewhere").rename(moved)
    assert here(work, "eval", "deeper/x", "--json").returncode == 0
    lost = here(moved, "eval", ".")
    assert lost.returncode == 3
    assert "--run" in lost.stderr
    assert run_folder.name in lost.stderr


def test_a_dead_pipe_is_no_traceback(work: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([SEQDATA, "protocols"], cwd=work, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert b"Traceback" not in ended.stderr

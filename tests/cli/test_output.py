"""What is printed: no control characters of others, whole JSON, one line for names that no manifest can hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cli.evaluation.results import print_evaluations
from cli.output import emit, note, plain
from indexer.arrays import open_npy
from indexer.evaluation.recall import Evaluation
from seqdata.errors import ContractError

SEQDATA = Path(sys.executable).parent / "seqdata"
HOSTILE = "a\x1b[2Jb\x9b31mc\u202ed\x07\udcffe\x7f"


def run(*words: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SEQDATA), *words], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_names_reach_a_terminal_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    note(HOSTILE)
    emit({"name": HOSTILE}, HOSTILE, as_json=False)
    shown = "a\\x1b[2Jb\\x9b31mc\\u202ed\\x07\\udcffe\\x7f\n"
    assert capsys.readouterr() == (shown, shown)
    emit({"name": HOSTILE, "lines": "a\nb\tü"}, "", as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": HOSTILE, "lines": "a\nb\tü"}
    assert all(letter.isprintable() or letter == "\n" for letter in out)
    assert plain("one\n\ttwo ü 東京") == "one\n\ttwo ü 東京"


def test_an_error_that_names_a_hostile_file_is_plain(tmp_path: Path) -> None:
    place = tmp_path / "x\x1b[31m"
    place.mkdir()
    (place / "manifest.json").write_text('{"kind": "\\u001b[2J"}')
    ended = run("info", str(place))
    assert ended.returncode == 4
    assert "\x1b" not in ended.stderr + ended.stdout
    assert len(ended.stderr.splitlines()) == 1


def test_a_word_that_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    ended = run("build", "folder", str(tmp_path), "--out", os.fsencode(tmp_path) + b"/\xff\xfe")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: '") and ended.stderr.endswith("or name a link to it\n")
    assert ended.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_nul_in_a_settings_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "seqdata.toml").write_text('raw = "a\\u0000b"\n')
    ended = run("build", "folder", "--config", str(tmp_path / "seqdata.toml"))
    assert ended.returncode == 4
    assert "field 'raw' holds a NUL character" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_names_that_begin_as_a_formula_are_text_in_a_spreadsheet(
    tmp_path: Path, evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "plain=1"]
    rows = [evaluation.model_copy(update={"method": name}) for name in names]
    print_evaluations(rows, csv=tmp_path / "figures.csv", as_json=True)
    capsys.readouterr()
    table = pl.read_csv(tmp_path / "figures.csv")
    assert table["method"].to_list() == [*(f"'{name}" for name in names[:-1]), names[-1]]


HEADERS = {
    "unclosed": "(" * 300,
    "no dict": "[1, 2]",
    "other keys": "{1: 2, 'a': 3}",
    "negative shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4)}",
    "huge shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776)}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "not closed": "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_broken_npy_header_is_one_line(tmp_path: Path, kind: str) -> None:
    header = HEADERS[kind].encode() + b"\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(48))
    with pytest.raises(ContractError, match=r"x\.npy: no \.npy file of numbers"):
        open_npy(path)
    np.save(path, np.ones((2, 3), np.float32))
    assert open_npy(path).shape == (2, 3)


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        method="x",
        protocol="own",
        protocol_hash="0",
        split="test",
        positive_rule="any",
        radius=10.0,
        unit="metres",
        queries=1,
        left_out=0,
        database=1,
        recall={1: 1.0},
        interval={1: (0.5, 1.0)},
        interval_method="wilson",
        curve=(1.0,),
        curve_interval=((0.5, 1.0),),
        units=1,
        cities={},
    )

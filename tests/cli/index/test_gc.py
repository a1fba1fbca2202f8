"""`seqdata compact` and `seqdata gc`: a dataset's versions and an index's, by one command."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from seqdata.errors import InputError, UsageError

FIXTURES = Path(__file__).parents[2] / "fixtures"


def run(*arguments: str) -> str:
    """What a command prints; its own errors are raised."""
    ended = CliRunner().invoke(app, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_a_dataset_is_compacted_and_collected(tmp_path: Path) -> None:
    out = tmp_path / "own"
    shutil.copytree(FIXTURES / "dataset-v3", out)
    assert json.loads(run("compact", str(out), "--json"))["version"] == 4, "its latest version is whole already"
    run("withdraw", str(out), "map-002")
    compacted = json.loads(run("compact", str(out), "--json"))
    assert (compacted["version"], compacted["frames"]) == (6, 17)
    planned = json.loads(run("gc", str(out), "--dry-run", "--keep", "4", "--json"))
    assert planned["versions"] == [1, 2, 3, 5]
    assert (out / "versions" / "000002").is_dir()
    text = run("gc", str(out), "--keep", "4")
    assert "versions removed: 1, 2, 3, 5;" in text
    assert not (out / "versions" / "000002").exists()
    assert json.loads(run("info", str(out), "--json"))["frames"] == 17
    with pytest.raises(InputError, match="no version 2; there are 4, 6"):
        run("gc", str(out), "--keep", "2")


def test_an_index_is_collected_by_the_same_command(tmp_path: Path) -> None:
    town = tmp_path / "town"
    shutil.copytree(FIXTURES / "index-v1" / "town", town)
    (town / ".latest.abcd1234.tmp").write_text("half")
    both = [json.loads(run(*words, str(town), "--dry-run", "--json")) for words in (("gc",), ("index", "gc"))]
    assert both[0] == both[1]
    removed = json.loads(run("gc", str(town), "--json"))["removed"]
    assert removed == both[0]["removed"]
    assert removed
    assert not (town / ".latest.abcd1234.tmp").exists()
    with pytest.raises(UsageError, match="seqdata index tag"):
        run("gc", str(town), "--keep", "1")


def test_what_is_neither_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset here"):
        run("gc", str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()

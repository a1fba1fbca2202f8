"""`seqdata search QUERIES --database FOLDER --model NAME`, and pretrained models without training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from seqdata.errors import SeqdataError
from seqdata.frames.decode import channels_first, decode_image
from tests.support.street import write_street
from train.models import registry

MODEL = ("--model", "gem-cat-small", "--random-init")


def run(*arguments: object) -> dict:
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of images, db of twelve and q of five of its neighbours, without labels."""
    raw = write_street(tmp_path / "raw")
    images = sorted(raw.glob("map-*.jpg"))[:12]
    for name, files in (("db", images), ("q", images[3:8])):
        (tmp_path / name).mkdir()
        for file in files:
            shutil.copy(file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_in_a_folder_as_a_literal_program(folders: Path) -> None:
    result = run("search", "q", "--database", "db", *MODEL, "--length", "3", "-k", "2")
    assert (result["database_windows"], len(result["answers"])) == (10, 2)
    network = registry.create("gem-cat-small", weights="random")

    def describe(files: list[Path]) -> np.ndarray:
        pixels = [channels_first(decode_image(file.read_bytes(), network.size)) for file in files]
        with torch.no_grad():
            return network(torch.from_numpy(np.stack(pixels))[None])[0].numpy()

    images = sorted((folders / "db").iterdir())
    database = np.stack([describe(images[start : start + 3]) for start in range(10)])
    queries = sorted((folders / "q").iterdir())
    for answer, start in zip(result["answers"], (0, 2), strict=True):  # the last window ends with the last frame
        assert answer["frames"] == [f"q/{file.name}" for file in queries[start : start + 3]]
        distances = np.linalg.norm(database - describe(queries[start : start + 3]), axis=1)
        nearest = np.argsort(distances, kind="stable")[:2]
        assert [place["frames"][0] for place in answer["places"]] == [f"db/{images[row].name}" for row in nearest]
        np.testing.assert_allclose([place["distance"] for place in answer["places"]], distances[nearest], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("q", "--database", "db"), "name folders to search for, and a model"),
        (("q", "--database", "db", "--model", "seqvlad-small", "--random-init"), "come from training frames"),
        (("q", "--database", "db", *MODEL, "--run", "r"), "--run: only together with an index"),
        (("q", "--database", "db", *MODEL, "--length", "99"), "a window of this index needs 99"),
        (("q", "--model", "gem-cat-small"), "--model: only together with --database"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], words: str, folders: Path) -> None:
    with pytest.raises(SeqdataError, match=words):
        run("search", *arguments)


def test_a_model_as_it_is_becomes_a_run_and_an_index(folders: Path) -> None:
    run("build", "folder", "raw", "--out", "datasets/street")
    got = run("models", "get", "gem-cat-small", "--random-init", "--out", "runs/own")
    assert got["path"] == "runs/own"
    by_run = run("index", "--run", "runs/own")
    by_name = run("index", "datasets/street", *MODEL)
    assert by_name["rows"] == by_run["rows"]
    again = run("index", "datasets/street", *MODEL)  # the run is there already
    assert again["id"] == by_name["id"]
    with pytest.raises(SeqdataError, match="--run and --model: name one of them"):
        run("index", "--run", "runs/own", *MODEL)
    with pytest.raises(SeqdataError, match="--weights: only together with --model"):
        run("index", "--run", "runs/own", "--weights", "w.pth")
    with pytest.raises(SeqdataError, match="--out: only together with models get"):
        run("models", "show", "gem-cat-small", "--out", "x")

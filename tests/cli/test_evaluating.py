"""`seqdata eval` and `baseline` on stored predictions and on what other models bring."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from seqdata import protocols
from seqdata.dataset import Dataset
from seqdata.errors import ContractError, InputError


def call(*arguments: object, fails: type[Exception] | None = None) -> str:
    """What the command prints on stdout; `fails` is the error that it must end with, whose text is returned."""
    ended = CliRunner().invoke(app, [str(each) for each in arguments])
    if fails is not None:
        assert isinstance(ended.exception, fails), ended.output
        return str(ended.exception)
    assert ended.exit_code == 0, ended.output + repr(ended.exception)
    return ended.stdout


@pytest.fixture(scope="module")
def baselines(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two baselines."""
    folders = {name: tmp_path_factory.mktemp("baselines") / name for name in ("aligned", "seqslam")}
    for name, folder in folders.items():
        told = json.loads(call("baseline", dataset.path, "--method", name, "--out", folder, "--json"))
        assert (told["queries"], told["protocol"]) == (26, "own")
    return folders


def stored(folder: Path) -> Path:
    (path,) = folder.glob("*.parquet")
    return path


def test_stored_predictions_under_several_protocols(dataset: Dataset, baselines: dict, tmp_path: Path) -> None:
    wide = tmp_path / "wide.toml"
    text = Path(protocols.schema_root() / "protocols" / "own.toml").read_text()
    wide.write_text(text.replace('name = "own"', 'name = "wide"').replace("radius = 25.0", "radius = 60.0"))
    flags = ("--predictions", stored(baselines["aligned"]), "--dataset", dataset.path)
    one = json.loads(call("eval", *flags, "--json"))  # under its own protocol
    assert one["protocol"] == "own"
    both = json.loads(call("eval", *flags, "--protocol", f"own,{wide}", "--json"))["evaluations"]
    assert [each["protocol"] for each in both] == ["own", "wide"]
    assert both[0]["recall"] == one["recall"]
    table = call("eval", *flags, "--protocol", f"own,{wide}")
    assert table.count("method ") == 2  # two protocols, two blocks


def test_full_groups_radius_compare_and_csv(dataset: Dataset, baselines: dict, tmp_path: Path) -> None:
    figures = tmp_path / "figures.csv"
    text = call(
        "eval", "--predictions", stored(baselines["aligned"]), "--dataset", dataset.path, "--full", "--by",
        "city,night,heading", "--radius", "5,50", "--compare", baselines["seqslam"], "--csv", figures,
    )  # fmt: skip
    assert "own@" in text
    assert "own-r5@" in text
    assert "AUC of precision-recall" in text
    assert "night day" in text
    assert "aligned frame matching (SAD, mean over the window) against SeqSLAM (SAD)" in text
    rows = pl.read_csv(figures)
    assert rows.filter(pl.col("breakdown").is_null())["radius"].to_list() == [25.0, 5.0, 50.0]
    assert rows["protocol_hash"].n_unique() == 3


def test_rerank_of_stored_predictions(dataset: Dataset, baselines: dict) -> None:
    flags = ("eval", "--predictions", stored(baselines["seqslam"]), "--dataset", dataset.path, "--json")
    assert "first 5 re-ranked (thumbnails, SAD)" in json.loads(call(*flags, "--rerank", 5))["method"]
    missing = call(*flags, "--rerank", 5, "--features", "nowhere", fails=InputError)
    assert "neither a feature dataset nor a run" in missing


def test_descriptors_of_another_model(dataset: Dataset, baselines: dict, tmp_path: Path) -> None:
    files = {}
    for role in ("query", "database"):
        places = dataset.places(dataset.sequences("own", "test", role))
        files[role] = tmp_path / f"{role}.npy"
        np.save(files[role], (places["easting"].to_numpy() - 500_000)[:, None].astype("f4"))
    flags = ("--descriptors", files["query"], "--database", files["database"], "--dataset", dataset.path)
    out = tmp_path / "judged"
    told = json.loads(call("eval", *flags, "--name", "theirs", "--out", out, "--json"))
    assert (told["method"], told["recall"]["1"], told["size"]) == ("theirs", 1.0, 1)
    assert (out / "recall.json").is_file()
    compared = call("eval", "--predictions", stored(out), "--compare", baselines["aligned"], "--dataset", dataset.path)
    assert "too few units to tell" in compared


def test_mistakes_are_one_line(dataset: Dataset, baselines: dict, tmp_path: Path) -> None:
    flags = ("--predictions", stored(baselines["aligned"]), "--dataset", dataset.path)
    (tmp_path / "theirs.csv").write_text("query,database\na,b\n")
    for arguments, words in (
        (("--descriptors", "q.npy"), "--database"),
        (("--descriptors", "q.npy", "--database", "d.npy", *flags), "name one of them"),
        (("--predictions", tmp_path / "theirs.csv"), "--protocol"),
        ((*flags, "--radius", "near"), "numbers separated by commas"),
        ((*flags, "--by", "weather"), "subtask, city, night, heading"),
        ((*flags, "--against", "colour"), "radius, length or size"),
        ((*flags, "--rerank", "3", "--rerank-metric", "l7"), "l1, l2, cosine"),
        ((*flags, "--protocol", "own-L3"), "cuts other windows"),
    ):
        assert words in call("eval", *arguments, fails=ContractError)
    assert "one predictions file" in call("eval", *flags, "--compare", tmp_path, fails=InputError)
    assert "seqslam" in call("baseline", dataset.path, "--method", "best", fails=ContractError)

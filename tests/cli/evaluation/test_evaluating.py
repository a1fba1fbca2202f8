"""`seqdata eval` and `baseline` on stored predictions and on what other models bring."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from indexer.evaluation import predictions
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, MissingDependencyError
from tests.support.street import PROTOCOL, build_street, make_index, write_street
from train.stages import evaluate as eval_stage


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
    assert table.count("  R@1 ") == 2  # two protocols, two blocks


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


def test_ids_that_fit_as_keys_and_as_rows_are_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    """Keys here are no numbers, so `--ids` can only agree or be refused; what ranked the file is printed."""
    sides = [dataset.places(dataset.sequences("own", "test", role))["key"] for role in ("query", "database")]
    path = tmp_path / "theirs.csv"
    pairs = [(query, database, 1 / (1 + row)) for query in sides[0] for row, database in enumerate(sides[1][:20])]
    pl.DataFrame(pairs, schema=["query", "database", "score"], orient="row").write_csv(path)
    flags = ("eval", "--predictions", path, "--protocol", "own", "--dataset", dataset.path, "--out", tmp_path / "out")
    text = call(*flags, "--ids", "keys")
    assert "theirs: ranked by column 'score', greatest first" in text
    assert json.loads(call(*flags, "--json"))["ranked_by"] == "column 'score', greatest first"
    assert "which is no query window" in call(*flags, "--ids", "rows", fails=ContractError)
    assert "--ids names: expected keys, rows" in call(*flags, "--ids", "names", fails=ContractError)
    assert "--ids: only together with --predictions" in call("eval", "--ids", "keys", fails=ContractError)


def test_mistakes_are_one_line(dataset: Dataset, baselines: dict, tmp_path: Path) -> None:
    flags = ("--predictions", stored(baselines["aligned"]), "--dataset", dataset.path)
    (tmp_path / "theirs.csv").write_text("query,database\na,b\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "theirs.csv").write_text("query,database\na,b\n")
    twins = ("--predictions", tmp_path / "theirs.csv", "--predictions", tmp_path / "below" / "theirs.csv")
    for arguments, words in (
        (("--descriptors", "q.npy"), "--database"),
        ((*flags, "--features", "f"), "--features: only together with --rerank"),
        ((*flags, "--rerank-metric", "l1"), "--rerank-metric: only together with --rerank"),
        ((*flags, "--metric", "l2"), "--metric: only together with --descriptors"),
        ((*flags, "--query-ids", "q.txt"), "--query-ids: only together with --descriptors"),
        ((*flags, "--database-ids", "d.txt"), "--database-ids: only together with --descriptors"),
        ((*flags, "--run", "r"), "--run: only together with an index"),
        ((*flags, "--again"), "--again: only together with an index"),
        ((*flags, "--engine", "cpu"), "--engine: only together with an index"),
        (("index", "--name", "ours"), "--name: only together with --descriptors or another model's --predictions"),
        (("index", "--out", "ours"), "--out: only together with --descriptors or another model's --predictions"),
        ((*flags, "--name", "ours"), "--name: for one predictions file of another model, 0 are named"),
        ((*twins, "--protocol", "own", "--out", "x"), "--out: for one predictions file of another model, 2 are named"),
        ((*twins, "--protocol", "own"), "several files are called theirs; judge them one at a time with --name"),
        ((*flags, "--split", "val"), "--split val: "),
        (("--descriptors", "q.npy", "--database", "d.npy", *flags), "name one of them"),
        (("--predictions", tmp_path / "theirs.csv"), "--protocol"),
        ((*flags, "--radius", "near"), "numbers separated by commas"),
        ((*flags, "--by", "weather"), "subtask, city, night, heading"),
        ((*flags, "--against", "colour"), "radius, length, size"),
        ((*flags, "--rerank", "3", "--rerank-metric", "l7"), "l1, l2, cosine"),
        ((*flags, "--protocol", "own-L3"), "cuts other windows"),
    ):
        assert words in call("eval", *arguments, fails=ContractError)
    assert "one predictions file" in call("eval", *flags, "--compare", tmp_path, fails=InputError)
    assert "seqslam" in call("baseline", dataset.path, "--method", "best", fails=ContractError)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as the commands leave it: datasets/street, runs/run, indexes/{index,other}, wide.toml."""
    folder = tmp_path_factory.mktemp("work")
    street = build_street(write_street(folder / "raw"), folder / "datasets" / "street")
    for name, pca in (("index", 6), ("other", 5)):
        shutil.rmtree(folder / "run", ignore_errors=True)
        make_index(street, folder / "made" / name, "sum", pca=pca)
        (folder / "indexes").mkdir(exist_ok=True)
        (folder / "made" / name / "index").rename(folder / "indexes" / name)
    (folder / "runs").mkdir()
    (folder / "made" / "index" / "run").rename(folder / "runs" / "run")
    (folder / "wide.toml").write_text(PROTOCOL.replace('"halves"', '"wide"').replace("radius = 7.0", "radius = 30.0"))
    return folder


@pytest.fixture
def indexed(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder as the current one, before any evaluation."""
    monkeypatch.chdir(work)
    shutil.rmtree("runs/run/predictions", ignore_errors=True)
    for name in ("index", "other"):
        shutil.rmtree(f"indexes/{name}/evaluations", ignore_errors=True)
    return work


def spoken(*arguments: object) -> tuple[dict, str]:
    """JSON of a command and what it said on stderr."""
    ended = CliRunner().invoke(app, [*(str(each) for each in arguments), "--json"])
    assert ended.exit_code == 0, ended.output + repr(ended.exception)
    return json.loads(ended.stdout), ended.stderr


def test_an_index_answers_a_question_once(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, said = spoken("eval", "indexes/index")
    assert "re-scored" not in said
    (kept,) = Path("runs/run/predictions").iterdir()
    (recorded,) = Path("indexes/index").glob("evaluations/*/recall.json")
    assert not list(Path("indexes/index").glob("versions/*/recall.json"))
    assert json.loads(recorded.read_text())["evaluations"][0]["recall"] == first["recall"]
    searched: list[str] = []
    whole = eval_stage.answer
    monkeypatch.setattr(eval_stage, "answer", lambda *a, **more: searched.append(a[3].name) or whole(*a, **more))
    again, said = spoken("eval", "indexes/index", "--split", "test")
    assert again == first
    assert f"re-scored stored predictions: {kept}" in said
    wide, said = spoken("eval", "indexes/index", "--protocol", "wide.toml")  # cuts the same windows
    assert (wide["protocol"], wide["recall"]["1"] >= first["recall"]["1"]) == ("wide", True)
    assert f"re-scored stored predictions: {kept}" in said
    assert len(list(Path("runs/run/predictions").iterdir())) == 2  # each protocol's own file: reports read it
    spoken("eval", "indexes/index", "--rerank", 3)
    assert searched == []
    assert spoken("eval", "indexes/index", "--again")[0] == first
    both = spoken("eval", "indexes/index", "--size", 4)[0]["evaluations"]
    assert [each["size"] for each in both] == [6, 4]
    assert searched == ["halves", "halves"]
    assert spoken("eval", "indexes/other")[0]["size"] == 5  # another index's predictions are none of its own
    assert len(searched) == 3


def test_damaged_and_reranked_predictions_are_no_answer(indexed: Path) -> None:
    first, _ = spoken("eval", "indexes/index", "--rerank", 3)
    (reranked,) = Path("runs/run/predictions").iterdir()
    assert "rerank3" in reranked.name
    plain, said = spoken("eval", "indexes/index")
    assert "re-scored" not in said
    assert plain["method"] != first["method"]
    (kept,) = (path for path in Path("runs/run/predictions").iterdir() if path != reranked)
    kept.write_bytes(kept.read_bytes()[:-40])
    again, said = spoken("eval", "indexes/index")
    assert again == plain
    assert f"passing over damaged predictions: {kept}" in said
    assert "re-scored" in spoken("eval", "indexes/index")[1]  # the search mended the file


def test_predictions_of_another_index_under_its_name_are_no_answer(indexed: Path) -> None:
    assert spoken("eval", "indexes/index")[0]["size"] == 6
    (kept,) = Path("runs/run/predictions").iterdir()
    assert spoken("eval", "indexes/other")[0]["size"] == 5
    (other,) = (path for path in Path("runs/run/predictions").iterdir() if path != kept)
    kept.replace(other)
    again, said = spoken("eval", "indexes/other")
    assert (again["size"], "re-scored" in said) == (5, False)


def test_what_cannot_be_kept_is_a_note(indexed: Path) -> None:
    Path("indexes/index/evaluations").write_text("")
    try:
        found, said = spoken("eval", "indexes/index")
    finally:
        Path("indexes/index/evaluations").unlink()
    assert found["queries"] == 22
    assert "not kept: indexes/index/evaluations" in said.replace(str(indexed) + "/", "")


def test_an_index_answers_its_own_split_alone(indexed: Path) -> None:
    words = call("eval", "indexes/index", "--split", "val", fails=ContractError)
    assert "holds split test; build one of the other with seqdata index --split val" in words


def test_engines(indexed: Path) -> None:
    plain = spoken("eval", "indexes/index")[0]
    assert spoken("eval", "indexes/index", "--again", "--engine", "cpu")[0] == plain
    words = call("eval", "indexes/index", "--engine", "gpu", fails=ContractError)
    assert "--engine gpu: expected auto, cpu, cuda, faiss-gpu" in words
    import torch

    if not torch.cuda.is_available():
        assert "use cpu" in call("eval", "indexes/index", "--engine", "cuda", fails=MissingDependencyError)


def test_two_runs_of_one_model_are_told_apart(indexed: Path) -> None:
    for name in ("index", "other"):
        spoken("eval", f"indexes/{name}")
    files = sorted(Path("runs/run/predictions").iterdir())
    copy = Path("copy.parquet")
    shutil.copy(files[0], copy)
    renamed = []
    for path in files:  # under one name, as two runs with the same settings have
        table, info = predictions.read(path)
        predictions.write(path, table, info.model_copy(update={"method": "ours"}))
        renamed.append(f"ours [{info.index[:8]}]")
    flags = [flag for path in files for flag in ("--predictions", path)]
    text = call("eval", *flags, "--radius", "3")
    against = text.split("\n\n")[-1]
    assert all(against.count(f"{name}  R@1 ") == 1 for name in renamed)
    compared = call("eval", "indexes/index", "--compare", "indexes/other")
    assert (
        f"{' against '.join(sorted(renamed))}" in compared or f"{' against '.join(sorted(renamed)[::-1])}" in compared
    )
    table, info = predictions.read(files[0])
    predictions.write(copy, table, info)
    beside = call("eval", "--predictions", files[0], "--predictions", copy)  # one index, two files
    assert "ours [copy]" in beside
    figures = Path("figures.csv")
    call("eval", "indexes/index", "--protocol", "wide.toml,raw/../halves.toml", "--csv", figures)
    columns = pl.read_csv(figures).columns
    assert {name.partition("@")[0] for name in columns if name.endswith(" r1")} == {"wide", "halves"}
    assert "r1" not in columns


LIGHT = """
import sys
from typer.testing import CliRunner
from cli.main import app
for arguments in {commands!r}:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, (arguments, ended.output, ended.exception)
    assert not {{"torch", "timm"}} & sys.modules.keys(), arguments
"""


def test_commands_that_run_no_model_never_load_torch(indexed: Path, tmp_path: Path) -> None:
    spoken("eval", "indexes/index")
    (kept,) = Path("runs/run/predictions").iterdir()
    commands = [
        ["info", "datasets/street"],
        ["eval", "indexes/index"],
        ["eval", "--predictions", str(kept), "--compare", str(kept)],
        ["report", "indexes/index", "--out", str(tmp_path / "page.html")],
        ["baseline", "datasets/street", "--protocol", "halves.toml", "--out", str(tmp_path / "baseline")],
        *(["index", verb, "--index", "indexes/index"] for verb in ("list", "show", "verify")),
        ["index", "diff", "latest", "latest", "--index", "indexes/index"],
        ["index", "tag", "first", "--index", "indexes/index"],
    ]
    program = [sys.executable, "-c", LIGHT.format(commands=commands)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_compare_lists_the_queries_that_one_of_two_wins(dataset: Dataset, baselines: dict) -> None:
    """Against the counts of `eval --compare`, and the other way round."""
    first, second = list(baselines.values())[:2]
    flags = (str(first), str(second), "--dataset", dataset.path)
    result = json.loads(call("compare", *flags, "--json"))
    pair = json.loads(
        call("eval", "--predictions", stored(first), "--compare", str(second), "--dataset", dataset.path, "--json")
    )
    assert result["comparison"] == pair["comparisons"][0]
    gap = result["comparison"]["gaps"]["1"]
    assert (len(result["only_a"]), len(result["only_b"])) == (gap["only_first"], gap["only_second"])
    text = call("compare", *flags)
    assert "placed within R@1 by" in text
    swapped = json.loads(call("compare", flags[1], flags[0], *flags[2:], "--json"))
    assert (swapped["only_a"], swapped["only_b"]) == (result["only_b"], result["only_a"])

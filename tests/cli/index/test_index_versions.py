"""`seqdata index` and its verbs: a build where no verb is named, versions, shares and new windows, in one process."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.flags import parse_bytes
from cli.index.versions import caveat, recall_text
from cli.main import app
from indexer.versions.manifest import Measured, read_measured
from seqdata.errors import ContractError, InputError, SeqdataError, UsageError
from tests.conftest import write_drives

FIXTURE = Path(__file__).parents[2] / "fixtures" / "index-v1"
FILES = ("index.faiss", "ids.parquet", "transform.safetensors", "manifest.json")
PCA, PLAIN = "421c4319df99e547", "a77ac70792b1da11"


def run(*arguments: str) -> str:
    """What a command prints; its own errors are raised."""
    ended = CliRunner().invoke(app, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def found(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURE / "town", tmp_path / "indexes" / "town")
    return tmp_path / "indexes" / "town"


def test_the_verbs_on_versions(town: Path) -> None:
    assert f"{PCA}  2026-11-22 05:07  flat 40×8" in run("index", "list")
    assert [each["id"] for each in found("index", "list")["versions"]] == [PCA, PLAIN]
    assert found("index", "show", PLAIN[:4])["manifest"]["size"] == 24
    assert "inputs.pca.dimensions = 8" in run("index", "show", "--index", str(town))
    differing = found("index", "diff", PCA, str(town / "versions" / PLAIN))
    assert differing["inputs"] == {"inputs.pca.dimensions": [8, None], "normalised": [False, True]}
    assert "normalised: False -> True" in run("index", "diff", PCA, PLAIN)
    assert found("index", "verify")["faults"] == []
    assert found("index", "tag", "paper", PLAIN)["id"] == PLAIN
    assert found("index", "show", "paper")["manifest"]["id"] == PLAIN
    assert found("index", "gc")["removed"] == []
    assert found("index", "rollback", "paper") == {"index": "indexes/town", "before": PCA, "latest": PLAIN}
    assert found("index", "gc", "--dry-run")["removed"] == [PCA]
    assert found("index", "gc")["removed"] == [PCA]
    assert found("index", "tag", "paper", "--delete")["deleted"]
    with pytest.raises(ContractError, match="leave VERSION out"):
        run("index", "tag", "paper", PLAIN, "--delete")
    (town / "versions" / PLAIN / "index.faiss").write_bytes(b"x")
    with pytest.raises(ContractError, match=r"index\.faiss"):
        run("index", "verify")


def test_an_index_is_named_by_position_or_by_flag(town: Path) -> None:
    assert run("index", "list", str(town)) == run("index", "list", "--index", str(town))
    assert found("index", "verify", str(town)) == found("index", "verify", "--index", str(town))
    assert found("index", "gc", str(town), "--dry-run")["dry_run"]
    with pytest.raises(UsageError, match="name one of them"):
        run("index", "list", str(town), "--index", str(town))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("info", "indexes/town"), "an index, but a dataset belongs here; see what it holds with seqdata index list"),
        (("train", "indexes/town"), "an index, but a dataset belongs here"),
        (("index", "--run", "indexes/town"), "an index, but a run belongs here"),
        (("info", "a run"), "a run, but a dataset belongs here; see what it holds with seqdata index --run 'a run'"),
        (("eval", "a run"), "a run, but an index belongs here"),
        (("index", "list", "a run"), "a run, but an index belongs here"),
    ],
)
def test_a_folder_of_another_kind_says_what_it_is(arguments: tuple[str, ...], words: str, town: Path) -> None:
    Path("a run").mkdir()
    Path("a run/run.json").write_text("{}")
    with pytest.raises(UsageError, match=words):
        run(*arguments)


def test_what_is_no_verb_is_a_build(town: Path) -> None:
    assert "--pca" in run("index", "--help")
    assert "list | show | diff" in " ".join(run("index", "--help").split())
    for arguments in ((), ("--pca", "8"), ("./list",), ("build",)):
        with pytest.raises(InputError, match="run seqdata train first"):
            run("index", *arguments)
    with pytest.raises(InputError, match="no parts of an index"):
        run("index", "merge", "--index", str(town))


@pytest.mark.parametrize(("text", "count"), [("8GB", 8e9), ("500 mb", 5e8), ("2.5e9", 2.5e9), ("7k", 7e3), ("12", 12)])
def test_memory_as_people_write_it(text: str, count: float) -> None:
    assert parse_bytes(text, "--memory") == count


@pytest.mark.parametrize("text", ["", "GB", "8XB", "-1GB", "0", "8 GiB"])
def test_memory_refused(text: str) -> None:
    with pytest.raises(ContractError, match="--memory"):
        parse_bytes(text, "--memory")


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with a dataset of 36 database windows, and a run that was not trained."""
    monkeypatch.chdir(tmp_path)
    write_drives(tmp_path / "raw", {"map": 40, "query": 20})
    run("build", "folder", "--raw", "raw")
    run("train", "--model", "seqvlad-small", "--random-init", "--epochs", "0", "--option", "clusters=4")
    return tmp_path


@pytest.mark.parametrize("engine", ["pool", "ray"])
def test_workers_give_the_version_of_a_plain_build(street: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a local cluster of two CPUs too, which is started for the shares and ended with them."""
    if engine == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    plain = Path(found("index", "--pca", "8", "--out", "plain/town")["path"])
    merged = Path(found("index", "--pca", "8", "--out", "shares/town", "--engine", engine, "--workers", "2")["path"])
    assert merged.name == plain.name
    names = {path.name for path in plain.iterdir()}
    assert names == {path.name for path in merged.iterdir()} == {*FILES, "measured.json", "manifest.sha256"}
    for name in FILES:
        assert (merged / name).read_bytes() == (plain / name).read_bytes(), name
    assert "merge" in read_measured(merged).seconds
    assert not list(Path("shares/town").glob(".parts/*")), "the shares are gone"
    if engine == "ray":
        import ray

        assert not ray.is_initialized()


def test_shares_and_new_windows(street: Path) -> None:
    """Two shares give the version of a plain build; the windows of an appended drive come after it."""
    write_drives(street / "more", {"map2": 12})
    kind = ["--pca", "8", "--kind", "ivf", "--recall-target", "0.9"]
    plain = found("index", *kind, "--out", "indexes/plain")
    for share in ("2/2", "1/2"):
        assert found("index", *kind, "--out", "indexes/shares", "--shard-range", share)["rows"] == 18
    merged = found("index", "merge", "--index", "indexes/shares")
    assert merged["recall"]["10"] >= 0.9
    assert (merged["id"], merged["rows"]) == (plain["id"], plain["rows"]) == (plain["id"], 36)
    assert found("index", *kind, "--out", "indexes/shares")["id"] == plain["id"], "a no-op"
    for arguments in (("--kind", "hnsw", "--shard-range", "1/2"), ("--kind", "auto", "--shard-range", "1/2")):
        with pytest.raises(ContractError, match="without shares"):
            run("index", *arguments)
    told = run("index", *kind, "--out", "indexes/plain")
    assert "of exact (36 database rows)" in told
    assert "measured:" in run("index", "show", "--index", "indexes/plain")
    shown = run("index", "show", "--index", "indexes/plain")
    assert "queries_of = database rows" in shown
    for text in (told, shown, found("index", "show", "--index", "indexes/plain")["note"]):
        assert "this recall was measured on rows of the database" in text
    wrong = (("--shard-range", "0/2"), ("--engine", "slurm"), ("--kind", "fast"), ("--memory", "8XB"))
    for arguments in (*wrong, ("--memory", "8GB"), ("--kind", "ivf", "--memory", "8GB")):
        with pytest.raises(SeqdataError):
            run("index", *arguments)
    run("append", "datasets/raw", "folder", "--raw", "more")
    child = found("index", "append", "datasets/raw", "--index", "indexes/plain")
    assert (child["parent"], child["rows"], child["added"]) == (plain["id"], 44, 8)
    assert child["recall"]["10"] >= 0.9
    assert found("index", "append", "datasets/raw", "--index", "indexes/plain")["id"] == child["id"]
    assert found("eval", "indexes/plain")
    assert [each["parent"] for each in found("index", "list", "--index", "indexes/plain")["versions"]] == [
        None,
        plain["id"],
    ]


def test_a_recall_of_queries_that_are_no_rows_has_no_caveat() -> None:
    measured = Measured(created="", queries=5, queries_of="val queries", recall={10: 0.99})
    assert (caveat(measured), recall_text(measured)) == (None, ", recall@10 99.00% of exact (5 val queries)")
    assert caveat(measured.model_copy(update={"recall": None, "queries_of": None})) is None
    assert caveat(measured.model_copy(update={"queries_of": None})) is not None, "an older version says nothing"

"""`seqdata search`: which index a path means, where the frames of its page lie, what searches it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import indexer
import seqdata
from cli.main import app
from indexer.versions.folders import is_index
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, MissingDependencyError, SeqdataError
from tests.support.street import build_street, make_index, write_street


def search(*arguments: object) -> dict:
    ended = CliRunner().invoke(app, ["search", *(str(each) for each in arguments), "--json"])
    if ended.exception is not None:
        raise ended.exception
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw/, datasets/street, runs/run and indexes/index."""
    folder = tmp_path_factory.mktemp("made")
    street = build_street(write_street(folder / "raw"), folder / "datasets" / "street")
    make_index(street, folder, "sum", pca=6)
    for kind, name in (("runs", "run"), ("indexes", "index")):
        (folder / kind).mkdir()
        (folder / name).rename(folder / kind / name)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


IMAGES = [f"raw/query-{number:03d}.jpg" for number in range(20, 23)]


def test_the_folder_that_an_index_lies_in(work: Path) -> None:
    wanted = search("indexes/index", *IMAGES)
    assert search("indexes", *IMAGES)["answers"] == wanted["answers"]
    (version,) = Path("indexes/index/versions").iterdir()
    assert search(version, *IMAGES)["answers"] == wanted["answers"]
    shutil.copytree("indexes/index", "indexes/other")
    with pytest.raises(InputError, match="indexes: holds several indexes, name one: index, other"):
        search("indexes", *IMAGES)
    for no_index in ("raw", "datasets", "datasets/street", "absent", IMAGES[0]):
        assert not is_index(Path(no_index))


def test_the_answer_says_how_a_folder_was_cut(work: Path) -> None:
    folder = Path("drive")
    folder.mkdir()
    for number in range(20, 27):
        shutil.copy(f"raw/query-{number:03d}.jpg", folder)
    found = search("indexes/index", folder, "-k", 1)
    assert found["cuts"] == [
        {
            "query": "drive", "order": "numbers in names", "frames": 7, "windows": 3, "length": 3, "stride": 3,
            "last_moved": True,
        }
    ]  # fmt: skip
    assert [answer["first"] for answer in found["answers"]] == [0, 3, 4]
    text = CliRunner().invoke(app, ["search", "indexes/index", "drive", "-k", "1"]).stdout
    assert "1 sequence of 7 frames in the order of numbers in names:" in text
    assert "3 windows of 3 frames, stride 3; the last one of 1 sequence moved back to end with its last frame" in text
    assert max(map(len, text.splitlines())) <= 80 or "…" in text


def test_a_folder_in_no_order_is_refused_with_a_flag_that_works(work: Path) -> None:
    folder = Path("keys")
    folder.mkdir()
    for number, name in ((20, "north"), (21, "east"), (22, "south")):
        shutil.copy(f"raw/query-{number:03d}.jpg", folder / f"{name}.jpg")
    with pytest.raises(InputError, match="give --order name"):
        search("indexes/index", folder)
    (answer,) = search("indexes/index", folder, "--order", "name")["answers"]
    assert [Path(name).stem for name in answer["frames"]] == ["east", "north", "south"]
    Path("order.csv").write_text("image\nkeys/north.jpg\nkeys/east.jpg\nkeys/south.jpg\n")
    (answer,) = search("indexes/index", folder, "--csv", "order.csv")["answers"]
    wanted = search("indexes/index", *IMAGES)["answers"][0]
    assert [place["row"] for place in answer["places"]] == [place["row"] for place in wanted["places"]]


def test_queries_of_a_dataset_say_how_far_each_place_is(work: Path) -> None:
    """Of a drive along the same street, against the coordinates of the frames."""
    frames = seqdata.open("datasets/street").frame_columns("key", "easting", "northing")
    metres = {key: (easting, northing) for key, easting, northing in frames.rows()}
    answers = search("indexes/index", "--dataset", "datasets/street", "--split", "val", "-k", 2)["answers"]
    for answer in answers:
        east, north = metres[answer["frames"][1]]
        for place in answer["places"]:
            assert place["metres"] == pytest.approx(np.hypot(place["easting"] - east, place["northing"] - north))


@pytest.mark.parametrize(
    ("flags", "partner"),
    [
        (("--order", "name"), "a folder of images"),
        (("--csv", "order.csv"), "a folder of images"),
        (("--every", "2"), "a video"),
        (("--fps", "2"), "a video"),
        (("--split", "test"), "--dataset"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(flags: tuple[str, ...], partner: str, work: Path) -> None:
    with pytest.raises(SeqdataError, match=f"{flags[0]}: only together with {partner}"):
        search("indexes/index", *IMAGES, *flags)


def test_frames_of_the_page(work: Path, tmp_path: Path) -> None:
    Path("datasets/street").rename(tmp_path / "moved")
    record = json.loads(Path("runs/run/run.json").read_text())
    Path("runs/run/run.json").write_text(json.dumps({**record, "dataset_path": "gone"}))
    asked = ("indexes/index", *IMAGES, "--thumbnails", "page")
    with pytest.raises(InputError, match=r"no dataset with id .*; name its folder with --frames"):
        search(*asked)
    assert not Path("page").exists()
    named = search(*asked, "--frames", tmp_path / "moved")
    assert Path(named["page"]).read_text().count("<img") == 3 * 4
    same = ("--dataset", tmp_path / "moved", "--thumbnails", "queries")
    assert Path(search("indexes/index", *same)["page"]).is_file()  # the queries' dataset is the index's
    with pytest.raises(ContractError, match="--frames: only together with --thumbnails"):
        search("indexes/index", *IMAGES, "--frames", tmp_path / "moved")


def test_frames_of_another_dataset_are_refused(work: Path, dataset: Dataset) -> None:
    with pytest.raises(ContractError, match=r"not the dataset .* that the index .* was built from"):
        search("indexes/index", *IMAGES, "--thumbnails", "page", "--frames", dataset.path)


def test_engines(work: Path) -> None:
    assert search("indexes/index", *IMAGES, "--engine", "cpu") == search("indexes/index", *IMAGES)
    with pytest.raises(ContractError, match="--engine gpu: expected auto, cpu, cuda, faiss-gpu"):
        search("indexes/index", *IMAGES, "--engine", "gpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(MissingDependencyError, match="use cpu"):
            search("indexes/index", *IMAGES, "--engine", "cuda")


def test_an_approximate_index_has_no_engine_to_choose(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = indexer.open("indexes/index")
    facts = index.manifest.model_copy(update={"storage": "hnsw"})
    monkeypatch.setattr(index, "manifest", facts)
    monkeypatch.setattr(indexer, "open", lambda *_, **__: index)
    with pytest.raises(SeqdataError, match=r"--engine cuda: for flat and fp16 indexes only; .* is hnsw"):
        search("indexes/index", *IMAGES, "--engine", "cuda")

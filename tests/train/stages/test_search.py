"""Search from images, videos, a dataset's queries and stored descriptors, and the page that shows it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import indexer
from cli.index import pack as packing
from cli.index import search as searching
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.localizer.query_frames import VideoRate
from indexer.localizer.search import search_dataset, search_descriptors
from indexer.localizer.video import video_frames
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, NotEnoughDataError, SeqdataError
from seqdata.frames.decode import channels_first, decode_image
from tests.conftest import jpeg
from tests.support.street import LENGTH, build_street, make_index, write_street
from tests.support.videos import write_video
from train.data.describe_settings import DescribeSettings
from train.runs.checkpoint import load_model
from train.stages.describer import RunDescriber
from train.stages.search import search_frames
from train.stages.search_page import write_search_page


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as the commands leave it: raw/, datasets/street, runs/run, indexes/index."""
    folder = tmp_path_factory.mktemp("work")
    street = build_street(write_street(folder / "raw"), folder / "datasets" / "street")
    make_index(street, folder, "sum")
    (folder / "runs").mkdir()
    (folder / "run").rename(folder / "runs" / "run")
    (folder / "indexes").mkdir()
    (folder / "index").rename(folder / "indexes" / "index")
    return folder


@pytest.fixture
def index(work: Path) -> indexer.PlaceIndex:
    return indexer.open(work / "indexes" / "index")


@pytest.fixture
def street(work: Path) -> Dataset:
    import seqdata

    return seqdata.open(work / "datasets" / "street")


@pytest.fixture
def describer(work: Path) -> RunDescriber:
    return RunDescriber(work / "runs" / "run", DescribeSettings("cpu"))


def queries(work: Path) -> list[Path]:
    return sorted((work / "raw").glob("query-*.jpg"))


def literal(index: indexer.PlaceIndex, work: Path, windows: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows of whole windows through the model's own forward."""
    with torch.no_grad():
        stacked = torch.from_numpy(np.stack([np.stack(window) for window in windows]))
        return index.search(load_model(work / "runs" / "run")(stacked).numpy(), 2)


def same(answers: list, distances: np.ndarray, rows: np.ndarray) -> None:
    assert [[place["row"] for place in answer.places] for answer in answers] == rows.tolist()
    found = [[place["distance"] for place in answer.places] for answer in answers]
    np.testing.assert_allclose(found, distances, atol=2e-5)


@pytest.mark.parametrize(("count", "starts"), [(3, [0]), (6, [0, 3]), (7, [0, 3, 4]), (8, [0, 3, 5])])
def test_windows_of_images(
    work: Path, index: indexer.PlaceIndex, describer: RunDescriber, count: int, starts: list[int]
) -> None:
    files = queries(work)[20 : 20 + count]
    answers = list(search_frames(index, files, describer, 2))
    assert [answer.frames for answer in answers] == [tuple(map(str, files[at : at + LENGTH])) for at in starts]
    pixels = [channels_first(decode_image(file.read_bytes())) for file in files]
    same(answers, *literal(index, work, [pixels[at : at + LENGTH] for at in starts]))


def test_a_folder_is_read_in_natural_order(
    work: Path, index: indexer.PlaceIndex, describer: RunDescriber, tmp_path: Path
) -> None:
    for number in (10, 9, 1):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "notes.txt").write_text("no image")
    single = queries(work)[:LENGTH]
    together, folder = search_frames(index, [tmp_path, *single], describer, 2)
    assert [Path(name).name for name in folder.frames] == ["1.jpg", "9.jpg", "10.jpg"]
    assert together.frames == tuple(map(str, single))


def test_frames_of_a_video(work: Path, index: indexer.PlaceIndex, describer: RunDescriber, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    frames = [decode_image(file.read_bytes()) for file in queries(work)[:14]]
    path = write_video(tmp_path / "drive.avi", frames, [n / 8 for n in range(14)])
    answers = list(search_frames(index, [path], describer, 2, VideoRate(every=2)))
    assert [answer.frames[0] for answer in answers] == [f"{path}#0", f"{path}#6", f"{path}#8"]
    pixels = [frame.transpose(2, 0, 1) for _, frame in video_frames(path, every=2)]
    same(answers, *literal(index, work, [pixels[at : at + LENGTH] for at in (0, 3, 4)]))
    with pytest.raises(NotEnoughDataError, match=r"drive\.avi: 2 frames, a window of this index needs 3"):
        list(search_frames(index, [path], describer, 2, VideoRate(fps=1.0)))


def test_queries_of_a_dataset(work: Path, index: indexer.PlaceIndex, street: Dataset, describer: RunDescriber) -> None:
    answers = list(search_dataset(index, street, "val", describer, 2))
    table = street.sequences(street.load_protocol("halves"), "val", "query")
    rows = street.frame_rows(table)
    keys = street.frame_columns("key")["key"].to_list()
    assert [answer.frames for answer in answers] == [tuple(keys[row] for row in window) for window in rows]
    same(answers, *literal(index, work, [list(street.read_frames(window)) for window in rows]))
    with pytest.raises(NotEnoughDataError, match="split empty: no query window"):
        list(search_dataset(index, street, "empty", describer, 2))


def test_one_drive_in_both_roles_never_finds_itself(work: Path, street: Dataset, tmp_path: Path) -> None:
    """Against a direct loop over the windows of the drive that share no frame with the query."""
    both = protocols.Split(database=("map",), query=("map",))
    protocol = street.load_protocol("halves").model_copy(update={"name": "self", "splits": {"test": both}})
    run = work / "runs" / "run"
    request = IndexRequest(out=tmp_path / "self", protocol=protocol, split="test")
    index = indexer.open(build_index(street, RunDescriber(run, DescribeSettings("cpu")), request))
    answers = list(search_dataset(index, street, "test", RunDescriber(run, DescribeSettings("cpu")), 4))
    rows = street.frame_rows(street.sequences(protocol, "test", "query"))
    with torch.no_grad():
        vectors = load_model(run)(torch.from_numpy(np.stack([street.read_frames(each) for each in rows]))).numpy()
    for number, answer in enumerate(answers):
        apart = np.linalg.norm(vectors - vectors[number], axis=1)
        others = [row for row in np.argsort(apart) if not set(rows[row]) & set(rows[number])][:4]
        assert [place["row"] for place in answer.places] == others
        assert [place["rank"] for place in answer.places] == [1, 2, 3, 4]
    assert len(answers) == len(rows) == 42
    foreign = replace_inputs(index, dataset="another")
    first = next(iter(search_dataset(foreign, street, "test", RunDescriber(run, DescribeSettings("cpu")), 4)))
    assert first.places[0]["row"] == 0


def replace_inputs(index: indexer.PlaceIndex, **changes: str) -> indexer.PlaceIndex:
    """The index as if built from other inputs."""
    index.manifest = index.manifest.model_copy(update={"inputs": {**index.manifest.inputs, **changes}})
    return index


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_stored_descriptors(index: indexer.PlaceIndex, tmp_path: Path, dtype: type) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, index.size)).astype(dtype)
    np.save(tmp_path / "a.npy", vectors)
    answers = list(search_descriptors(index, tmp_path / "a.npy", 2))
    same(answers, *index.search(vectors.astype(np.float32), 2))
    np.save(tmp_path / "one.npy", vectors[2])
    (alone,) = search_descriptors(index, tmp_path / "one.npy", 2)
    assert alone.places == answers[2].places


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"hello", None, np.zeros((2, 3), np.float32), np.zeros((2, 2, 2))])
def test_descriptor_files_that_are_none(index: indexer.PlaceIndex, tmp_path: Path, data: object) -> None:
    path = tmp_path / "a.npy"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        np.save(path, np.array([{"a": 1}], dtype=object) if data is None else data, allow_pickle=True)
    with pytest.raises(ContractError, match=r"a\.npy"):
        list(search_descriptors(index, path, 2))
    with pytest.raises(InputError, match=r"b\.npy"):
        list(search_descriptors(index, tmp_path / "b.npy", 2))


def command(monkeypatch: pytest.MonkeyPatch, work: Path, *arguments: str) -> object:
    """`seqdata search` and `seqdata pack` in the work folder; the JSON that it prints."""
    import typer
    from typer.testing import CliRunner

    monkeypatch.chdir(work)
    app = typer.Typer()
    app.command("search")(searching.search)
    app.command("pack")(packing.pack)
    ended = CliRunner().invoke(app, [*arguments, "--json"])
    if ended.exception is not None:
        raise ended.exception
    return json.loads(ended.stdout)


def test_the_commands(work: Path, monkeypatch: pytest.MonkeyPatch, index: indexer.PlaceIndex) -> None:
    images = [f"raw/query-{number:03d}.jpg" for number in range(20, 23)]
    found = command(monkeypatch, work, "search", *images, "-k", "3", "--thumbnails", "page")
    (answer,) = found["answers"]
    assert answer["frames"] == images
    assert "pictures" not in answer
    assert [place["rank"] for place in answer["places"]] == [1, 2, 3]
    page = Path(found["page"]).read_text()
    assert page.count("<img") == 3 * 4
    assert "://" not in page.replace("http://www.w3.org", "")
    np.save(work / "two.npy", np.ones((2, index.size), np.float32))
    vectors = command(monkeypatch, work, "search", "indexes/index", "two.npy", "-k", "1")
    assert [each["query"] for each in vectors["answers"]] == ["two.npy[0]", "two.npy[1]"]
    all_ = command(monkeypatch, work, "search", "--dataset", "datasets/street", "--split", "test", "-k", "1")
    assert len(all_["answers"]) == 22
    packed = command(monkeypatch, work, "pack", "--precision", "0.5")
    assert packed["calibration"]["split"] == "val"
    here = indexer.Localizer(work / packed["path"], keep_rejected=True)
    place = [here.push(work / image) for image in images][-1]
    assert place is not None and place.key == answer["places"][0]["key"]
    assert place.distance == pytest.approx(answer["places"][0]["distance"], abs=2e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search"], "with --dataset: one of them"),
        (["search", "indexes/index"], "with --dataset: one of them"),
        (["search", "raw", "--dataset", "datasets/street"], "with --dataset: one of them"),
        (["search", "absent.jpg"], "absent.jpg: no such file or folder"),
        (["search", "raw/positions.csv"], "positions.csv"),
        (["search", "--dataset", "datasets/street", "--split", "nope"], "no split 'nope'"),
        (["search", "raw/query-000.jpg"], "the files: 1 frames, a window of this index needs 3"),
        (["pack", "--split", "nope"], "no split 'nope'"),
        (["pack", "--out", "raw"], "raw: holds something else"),
    ],
)
def test_mistakes_are_one_line(work: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    with pytest.raises(SeqdataError, match=words.replace("(", "\\(")) as caught:
        command(monkeypatch, work, *arguments)
    assert "\n" not in str(caught.value)


def test_the_page_needs_the_indexes_own_dataset(
    index: indexer.PlaceIndex, dataset: Dataset, describer: RunDescriber, work: Path, tmp_path: Path
) -> None:
    answers = list(search_frames(index, queries(work)[:3], describer, 2))
    with pytest.raises(ContractError, match="not the dataset"):
        write_search_page(tmp_path, index, dataset, answers)

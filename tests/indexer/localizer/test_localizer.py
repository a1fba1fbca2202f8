"""Similarity as it is defined, frames in the form of the database's, and the frames of a video."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import indexer
from indexer.localizer.frame_form import FrameForm
from indexer.localizer.places import nearest_places
from indexer.localizer.video import video_frames
from indexer.pca.transform import Transform
from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.decode import channels_first, decode_image
from seqdata.frames.encode import prepare
from tests.conftest import jpeg
from tests.support.indexes import make_places

ROWS, SIZE = 40, 8


def vectors(unit: bool) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(ROWS, SIZE)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x


def opened(folder: Path, x: np.ndarray, **options: object) -> indexer.PlaceIndex:
    built = {"transform": None, **options}
    return indexer.open(indexer.build(folder, blocks=iter([x]), places=make_places(ROWS), inputs={"a": 1}, **built))


@pytest.mark.parametrize(("unit", "normalise"), [(True, False), (False, True)])
def test_similarity_is_the_cosine_of_unit_vectors(tmp_path: Path, unit: bool, normalise: bool) -> None:
    x = vectors(unit)
    index = opened(tmp_path / "a", x, normalise=normalise)
    queries = vectors(unit)[::-1][:5] + np.float32(0)
    for query, places in zip(queries, nearest_places(index, queries, 3), strict=True):
        assert [place["rank"] for place in places] == [1, 2, 3]
        for place in places:
            row = x[place["row"]]
            cosine = row @ query / np.linalg.norm(row) / np.linalg.norm(query)
            assert place["similarity"] == pytest.approx(cosine, abs=1e-5)
            assert place["similarity_kind"] == "cosine"
            assert place["key"] == index.sequences["key"][place["row"]]


def test_similarity_of_other_vectors_says_so(tmp_path: Path) -> None:
    plain = opened(tmp_path / "a", vectors(False))
    turned = Transform(np.zeros(SIZE, np.float32), np.eye(4, SIZE, dtype=np.float32), np.ones(4), 1.0, "gram", 9)
    projected = opened(tmp_path / "b", vectors(True), transform=turned)
    for index, queries in ((plain, vectors(False)[:3]), (projected, vectors(True)[:3])):
        for places in nearest_places(index, queries, 2):
            assert {place["similarity_kind"] for place in places} == {"1/(1+distance)"}
            assert [place["similarity"] for place in places] == [1 / (1 + place["distance"]) for place in places]


def test_a_frame_gets_what_a_build_does(tmp_path: Path) -> None:
    data = jpeg(1, 60, 80)
    (tmp_path / "a.jpg").write_bytes(data)
    form = FrameForm(short_side=30, quality=80, size=(24, 40))
    expected = channels_first(decode_image(prepare(data, short_side=30, quality=80).data, (24, 40)))
    np.testing.assert_array_equal(form.pixels(data), expected)
    np.testing.assert_array_equal(form.pixels(tmp_path / "a.jpg"), expected)
    np.testing.assert_array_equal(form.pixels(str(tmp_path / "a.jpg")), expected)


def test_pixels_of_a_camera_are_not_compressed() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(FrameForm().pixels(array), array.transpose(2, 0, 1))
    half = FrameForm(size=(10, 15)).pixels(array)
    expected = np.asarray(Image.fromarray(array).resize((15, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(half, expected.transpose(2, 0, 1))
    assert FrameForm(short_side=10).pixels(array).shape == (3, 10, 15)


@pytest.mark.parametrize("array", [np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4))])
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"uint8 \(H, W, 3\) in RGB is needed"):
        FrameForm().pixels(array)


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1)[:100])
    for picture in (tmp_path / "a.jpg", tmp_path / "absent.jpg"):
        with pytest.raises(InputError, match=picture.name):
            FrameForm().pixels(picture)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames at 8 a second; frame n is grey 10·n."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("video") / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (64, 48))
    for number in range(24):
        frame = np.full((48, 64, 3), 10 * number, np.uint8)
        frame[:, :, 2] = min(255, 10 * number + 20)  # OpenCV's red
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("reader", ["av", "cv2"])
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, list(range(24))),
        ({"every": 5}, [0, 5, 10, 15, 20]),
        ({"fps": 4.0}, list(range(0, 24, 2))),
        ({"fps": 3.0}, [0, 3, 6, 8, 11, 14, 16, 19, 22]),
        ({"fps": 30.0}, list(range(24))),
    ],
)
def test_frames_of_a_video(
    video: Path, monkeypatch: pytest.MonkeyPatch, reader: str, options: dict, numbers: list[int]
) -> None:
    if reader == "av":
        pytest.importorskip("av")
    monkeypatch.setattr("indexer.localizer.video.find_spec", lambda name: name if name == reader else None)
    found = list(video_frames(video, **options))
    assert [number for number, _ in found] == numbers
    for number, pixels in found:
        assert pixels.shape == (48, 64, 3)
        np.testing.assert_allclose(pixels[24, 32], [min(255, 10 * number + 20), 10 * number, 10 * number], atol=6)


def test_a_video_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all" * 10)
    with pytest.raises(InputError, match=r"a\.mp4: not a readable video"):
        list(video_frames(path))
    with pytest.raises(ContractError, match="one of them"):
        list(video_frames(path, every=2, fps=1.0))
    monkeypatch.setattr("indexer.localizer.video.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match="pip install av"):
        list(video_frames(path))

"""Similarity as it is defined, frames in the form of the database's, and the frames of a video."""

import io
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
from seqdata.sources.raw_frames import RawFrames
from seqdata.sources.robotcar.images import Development, develop, parse_crop
from tests.conftest import jpeg
from tests.support.indexes import make_places
from tests.support.videos import write_video

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


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4)),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
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
    """24 frames at 8 a second; frame n is red 10·n + 20, green and blue 10·n."""
    pytest.importorskip("av", reason="videos need PyAV")
    frames = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(24)]
    for number, frame in enumerate(frames):
        frame[:, :, 0] = min(255, 10 * number + 20)
    return write_video(tmp_path_factory.mktemp("video") / "drive.avi", frames, [n / 8 for n in range(24)])


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
def test_frames_of_a_video(video: Path, options: dict, numbers: list[int]) -> None:
    frames = list(video_frames(video, **options))
    assert [number for number, _ in frames] == numbers
    for number, pixels in frames:
        assert pixels.shape == (48, 64, 3)
        np.testing.assert_allclose(pixels[24, 32], [min(255, 10 * number + 20), 10 * number, 10 * number], atol=6)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_frames_are_taken_at_their_presentation_times(tmp_path: Path, offset: float) -> None:
    """Ten frames in the first second, then one a second: a mean rate would take every second frame of all."""
    pytest.importorskip("av", reason="videos need PyAV")
    times = [offset + n / 10 for n in range(10)] + [offset + 1.0 + n for n in range(10)]
    frames = [np.full((48, 64, 3), 12 * n, np.uint8) for n in range(20)]
    path = write_video(tmp_path / "variable.mkv", frames, times)
    assert [number for number, _ in video_frames(path, fps=1.0)] == [0, *range(10, 20)]


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_frames_are_turned_as_a_player_shows_them(tmp_path: Path, degrees: int, turns: int) -> None:
    """A file that asks for a rotation gives the very frames of the same file without, turned."""
    pytest.importorskip("av", reason="videos need PyAV")
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    plain = write_video(tmp_path / "plain.mp4", [frame] * 3, [0.0, 0.1, 0.2])
    turned = write_video(tmp_path / "turned.mp4", [frame] * 3, [0.0, 0.1, 0.2], rotation_degrees=degrees)
    for (_, stored), (_, shown) in zip(video_frames(plain), video_frames(turned), strict=True):
        np.testing.assert_array_equal(shown, np.rot90(stored, turns))


def test_a_video_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all" * 10)
    with pytest.raises(InputError, match=r"a\.mp4: not a readable video"):
        list(video_frames(path))
    with pytest.raises(ContractError, match="one of them"):
        list(video_frames(path, every=2, fps=1.0))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match="pip install 'av>=15'"):
        list(video_frames(path))


def picture_kinds() -> dict[str, tuple[object, np.ndarray]]:
    """Every kind of picture that a camera or a program hands over, and the RGB pixels that it is."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = rgb[..., 0]
    png, jpg = io.BytesIO(), jpeg(3)
    Image.fromarray(grey).save(png, "PNG")
    file_pixels = np.moveaxis(FrameForm().pixels(jpg), 0, 2)
    clear = np.dstack([rgb, np.full(grey.shape, 255, np.uint8)])
    turned = Image.fromarray(rgb)
    turned.getexif()[0x0112] = 6
    return {
        "mono8 (H, W)": (grey, np.dstack([grey] * 3)),
        "mono8 (H, W, 1)": (grey[..., None], np.dstack([grey] * 3)),
        "RGB": (rgb, rgb),
        "RGBA, opaque": (clear, rgb),
        "RGBA, clear": (np.dstack([rgb, np.zeros_like(grey)]), np.zeros_like(rgb)),
        "not contiguous": (rgb[:, ::-1], rgb[:, ::-1]),
        "bytes": (jpg, file_pixels),
        "bytearray": (bytearray(jpg), file_pixels),
        "memoryview": (memoryview(jpg), file_pixels),
        "memoryview of a part": (memoryview(b"__" + jpg)[2:], file_pixels),
        "Pillow RGB": (Image.fromarray(rgb), rgb),
        "Pillow L": (Image.fromarray(grey), np.dstack([grey] * 3)),
        "Pillow with an EXIF orientation": (turned, np.rot90(rgb, -1)),
    }


@pytest.mark.parametrize("kind", sorted(picture_kinds()))
def test_pictures_as_cameras_and_programs_hand_them_over(kind: str) -> None:
    picture, pixels = picture_kinds()[kind]
    np.testing.assert_array_equal(FrameForm().pixels(picture), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("picture", [None, 3, [[1, 2]], object(), {"data": b""}])
def test_anything_else_is_one_line(picture: object) -> None:
    with pytest.raises(ContractError, match=f"a frame of type {type(picture).__name__}: give uint8 pixels") as caught:
        FrameForm().pixels(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("picture", [b"", bytearray(), memoryview(b"no picture"), "a\0b.jpg", Path("absent.jpg"), "."])
def test_files_that_cannot_be_read_are_input_errors(picture: object) -> None:
    with pytest.raises(InputError) as caught:
        FrameForm().pixels(picture)
    assert "\n" not in str(caught.value)


def raw_png(mosaic: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(mosaic).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("camera", ["stereo_left", "mono_rear"])
@pytest.mark.parametrize("crop", ["none", "top40x24"])
def test_raw_frames_are_developed_as_the_build_does(camera: str, crop: str) -> None:
    """A query that is a raw mosaic equals the stored form of that very file; from a camera it only lacks the JPEG."""
    pytest.importorskip("cv2", reason="mosaics need OpenCV")
    mosaic = np.random.default_rng(1).integers(0, 256, (32, 48), dtype=np.uint8)
    form = FrameForm(raw=RawFrames(kind="robotcar", camera=camera, crop=crop))
    developed = develop(raw_png(mosaic), Development(camera, None, parse_crop(crop)))
    stored = channels_first(decode_image(prepare(developed).data))
    np.testing.assert_array_equal(form.pixels(raw_png(mosaic)), stored)
    for picture in (mosaic, mosaic[..., None], Image.fromarray(mosaic)):
        np.testing.assert_array_equal(form.pixels(picture), developed.transpose(2, 0, 1))
    np.testing.assert_array_equal(form.pixels(np.moveaxis(stored, 0, 2)), stored), "a stored frame stays as it is"
    assert FrameForm.model_validate_json(form.model_dump_json()) == form


@pytest.mark.parametrize(
    ("size", "shape"),
    [((1280, 960), (800, 1280)), ((1280, 900), (800, 1280)), ((1280, 800), (800, 1280)), ((1920, 1080), (1080, 1920))],
)
def test_pictures_in_colours_are_cropped_where_they_are_the_cameras_own(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    """The upper part of a raw picture that was demosaiced by another program; a phone's video keeps its view."""
    form = FrameForm(raw=RawFrames(kind="robotcar", camera="stereo_left", crop="top1280x800"))
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: shape[0]] = 9
    assert form.pixels(pixels).shape == (3, *shape)
    assert form.pixels(pixels).min() == 9


def test_frames_that_cannot_be_developed_are_refused() -> None:
    mosaic = np.zeros((32, 48), np.uint8)
    undistorted = FrameForm(raw=RawFrames(kind="robotcar", camera="stereo_left", undistort="models"))
    several = FrameForm(raw=RawFrames(kind="several"))
    for form, words in ((undistorted, "undistorted by models"), (several, "several cameras")):
        with pytest.raises(InputError, match=words):
            form.pixels(raw_png(mosaic))
        with pytest.raises(ContractError, match=words):
            form.pixels(mosaic)
        assert form.pixels(np.zeros((32, 48, 3), np.uint8)).shape == (3, 32, 48)


def test_a_form_without_raw_pictures_is_written_as_before() -> None:
    assert FrameForm().model_dump(mode="json") == {"keep_png": False, "short_side": None, "quality": 95, "size": None}

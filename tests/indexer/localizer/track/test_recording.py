"""Recordings: order and times of folders and videos, odometry, and what cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from indexer.localizer.track.recording import Odometry, open_camera, open_recording, parse_time, read_odometry
from seqdata.errors import ContractError, InputError
from tests.conftest import jpeg
from tests.support.videos import write_video


def test_a_folder_is_read_by_its_table_and_else_by_numbers(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (recording,) = open_recording(tmp_path)
    assert [frame.name for frame in recording.read()] == ["1.jpg", "2.jpg", "10.jpg"]
    assert recording.order == "numbers in names"
    (tmp_path / "positions.csv").write_text(
        "image,time,drive\n2.jpg,1970-01-01T00:00:03Z,a\n1.jpg,5,a\n10.jpg,1,b\nabsent.jpg,2,b\n"
    )
    first, second = open_recording(tmp_path)
    assert [(frame.name, frame.time) for frame in first.read()] == [("2.jpg", 3.0), ("1.jpg", 5.0)]
    assert [(frame.name, frame.time) for frame in second.read()] == [("10.jpg", 1.0)]


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (("1418755463999004", "1418755464062777"), [1418755463.999004, 1418755464.062777]),
        (("1622541601.250000", "1622541601.5"), [1622541601.25, 1622541601.5]),
        (("20240131_100005_250", "20240131_100006_000"), [1706695205.25, 1706695206.0]),
        (("000001", "000002"), [None, None]),
        (("0000000005", "0000000006"), [None, None]),  # as KITTI's: no seconds of January 1970
        (("1622541601_1", "1622541601_2"), [None, None]),
    ],
)
def test_names_that_are_moments_give_the_times(
    tmp_path: Path, names: tuple[str, ...], times: list[float | None]
) -> None:
    for name in names:
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(1))
    (recording,) = open_recording(tmp_path)
    assert [(frame.name, frame.time) for frame in recording.read()] == [
        (f"{name}.jpg", time) for name, time in zip(names, times, strict=True)
    ]
    assert (recording.order == "times in names") == (times[0] is not None)


def test_other_layouts_are_those_of_a_build(tmp_path: Path) -> None:
    images = tmp_path / "query" / "images"
    images.mkdir(parents=True)
    for key in ("bb1", "aa2"):
        (images / f"{key}.jpg").write_bytes(jpeg(1))
    (tmp_path / "query" / "seq_info.csv").write_text("key,sequence_key,frame_number\nbb1,s,1\naa2,s,2\n")
    (recording,) = open_recording(images)
    assert [frame.name for frame in recording.read()] == ["bb1.jpg", "aa2.jpg"]


def test_videos_of_variable_rate_rotated_and_cut_off(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(8)]
    seconds = [0.0, 0.1, 0.2, 1.2, 2.2, 3.2, 3.3, 3.4]
    whole = write_video(tmp_path / "drive.mkv", frames, seconds, rotation_degrees=90)
    (recording,) = open_recording(whole)
    read = list(recording.read())
    np.testing.assert_allclose([frame.time for frame in read], seconds, atol=2e-3)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    (recording,) = open_recording(cut)
    try:
        assert len(list(recording.read())) < 8
    except InputError as error:
        assert "cut.mkv" in str(error)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="not a readable video"):
        list(open_recording(tmp_path / "text.mp4")[0].read())


def test_a_camera_is_read_by_its_address(tmp_path: Path) -> None:
    """A file stands for a stream: what the address names is opened as it is."""
    video = write_video(tmp_path / "live.avi", [np.zeros((48, 64, 3), np.uint8)] * 6, [0.1 * n for n in range(6)])
    assert len(list(open_camera(str(video), 0.25).read())) == 3
    with pytest.raises(InputError, match="not a readable video"):
        list(open_camera("/dev/video-absent", None).read())


def test_odometry_is_metres_or_speed(tmp_path: Path) -> None:
    path = tmp_path / "way.csv"
    path.write_text("time,metres\n0,0\n1,10\n3,10\n")
    metres = read_odometry(path)
    assert [metres.at(time) for time in (0.5, 2.0, 3.5, None)] == [5.0, 10.0, None, None]
    path.write_text("time,speed\n0,10\n1,0\n3,0\n")
    assert read_odometry(path).at(0.5) == 5.0
    for text in ("time\n0\n1\n", "time,metres\n0,0\n", "time,metres\n0,0\n0,1\n", "time,metres\n0,5\n1,x\n"):
        path.write_text(text)
        with pytest.raises(ContractError, match=r"way\.csv"):
            read_odometry(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_odometry(tmp_path / "absent.csv")


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_recording(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="not a video"):
        open_recording(tmp_path / "notes.txt")
    with pytest.raises(ContractError, match="neither seconds nor an ISO 8601"):
        parse_time(Path("table.csv"), "yesterday")
    assert parse_time(Path("table.csv"), " ") is None
    assert Odometry(np.array([0.0, 1.0]), np.array([0.0, 2.0])).at(1.0) == 2.0


def test_a_stream_without_times_goes_by_its_rate(tmp_path: Path) -> None:
    """Motion JPEG with no container around it holds frames and no clock."""
    frames = [np.full((48, 64, 3), 30 * number, np.uint8) for number in range(5)]
    write_video(tmp_path / "raw.mjpeg", frames, [number / 25 for number in range(5)])
    (tmp_path / "raw.mjpeg").rename(tmp_path / "raw.mpeg")
    (recording,) = open_recording(tmp_path / "raw.mpeg")
    np.testing.assert_allclose([frame.time for frame in recording.read()], np.arange(5) / 25, atol=1e-6)

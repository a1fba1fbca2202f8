"""Files of a track against other readers, whole also where a recording ends early; figures against literal ones."""

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import gpxpy
import numpy as np
import polars as pl
import pytest

from indexer.localizer.track.files import CSV, PARQUET, SCHEMA, TrackRow, track_writers
from indexer.localizer.track.follow import Sample
from indexer.localizer.track.truth import Judgement, read_truth
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.geometry import to_utm

NAMES = {"positions.csv", "positions.parquet", "track.geojson", "track.gpx", "track.kml", "track.tum"}


def rows(count: int = 7, rejected: tuple[int, ...] = (3,)) -> list[TrackRow]:
    """A drive to the north-east, one answer a second, some not accepted."""
    made = []
    for number in range(count):
        latitude, longitude = 48.1 + 1e-4 * number, 16.3 + 1e-4 * number
        easting, northing = to_utm([latitude], [longitude], "33N")
        made.append(
            TrackRow(
                frame=f"<{number}>.jpg", time=1000.0 + number, key=str(number), trajectory="map", position=number,
                latitude=latitude, longitude=longitude, zone="33N", easting=float(easting[0]),
                northing=float(northing[0]), heading=90.0, distance=0.1 * number, confidence=None, belief=None,
                accepted=number not in rejected, runner_up=None, runner_up_distance=None,
            )
        )  # fmt: skip
    return made


def write_all(folder: Path, made: list[TrackRow]) -> Path:
    with track_writers(folder) as write:
        for row in made:
            write(row)
    return folder


def assert_whole(folder: Path, count: int, accepted: int) -> None:
    """Every file is read by a reader of its own kind, and nothing else is there."""
    assert {path.name for path in folder.iterdir()} == NAMES
    table = pl.read_parquet(folder / PARQUET)
    assert table.columns == SCHEMA.names
    assert table.height == count == len(list(csv.DictReader((folder / CSV).open())))
    assert len(json.loads((folder / "track.geojson").read_text())["features"]) == count
    gpx = gpxpy.parse((folder / "track.gpx").read_text())
    assert sum(len(segment.points) for segment in gpx.tracks[0].segments) == accepted
    line = ElementTree.parse(folder / "track.kml").getroot().find(".//{*}coordinates")
    assert line is not None and len((line.text or "").split()) == accepted
    assert np.loadtxt(folder / "track.tum", ndmin=2).shape[0] == accepted


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    made = rows()
    folder = write_all(tmp_path / "track", made)
    assert_whole(folder, 7, 6)
    gpx = gpxpy.parse((folder / "track.gpx").read_text())
    assert [len(segment.points) for segment in gpx.tracks[0].segments] == [3, 3]
    first = gpx.tracks[0].segments[0].points[0]
    assert (first.latitude, first.longitude, first.name) == (48.1, 16.3, "<0>.jpg")
    assert first.time.timestamp() == 1000.0
    tum = np.loadtxt(folder / "track.tum")
    np.testing.assert_allclose(
        tum[-1, 1:3], [made[-1].easting - made[0].easting, made[-1].northing - made[0].northing], atol=1e-3
    )
    np.testing.assert_allclose(tum[0, 4:], [0, 0, 0, 1], atol=1e-6)
    with pytest.raises(OutputError, match="holds a track already"):
        write_all(folder, made)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("the camera has gone")])
def test_files_are_whole_where_a_recording_ends_early(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises((KeyboardInterrupt, InputError)), track_writers(tmp_path / "track") as write:
        for row in rows(4):
            write(row)
        # The table can be followed while the camera drives.
        assert len((tmp_path / "track" / CSV).read_text().splitlines()) == 5
        raise error
    assert_whole(tmp_path / "track", 4, 3)


def test_a_sample_stays_small_and_even() -> None:
    sample = Sample(10)
    for number in range(1000):
        sample.add(partial(int, number))
    assert len(sample.items) <= 10
    assert np.ptp(np.diff(np.array(sample.items))) == 0


def test_figures_are_literal_ones(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    made = rows(60, rejected=(1, 2, 50))
    lines = ["image,latitude,longitude"]
    # Every fifth answer is 100 m to the north of the truth.
    lines += [
        f"{row.frame},{row.latitude - (9e-4 if at % 5 == 0 else 0)},{row.longitude}" for at, row in enumerate(made)
    ]
    truth.write_text("\n".join(lines))
    judgement = Judgement(read_truth(truth))
    errors = [judgement.add(row) for row in made]
    figures = judgement.figures()
    accepted = [row.accepted for row in made]
    near = [error is not None and error <= 25 for error in errors]
    assert figures["within_25m"]["share"] == np.mean(near)
    assert figures["localized"]["share"] == np.mean(np.logical_and(near, accepted))
    assert figures["precision"]["share"] == sum(np.logical_and(near, accepted)) / sum(accepted)
    assert figures["precision"]["low"] < figures["precision"]["share"] < figures["precision"]["high"]
    assert figures["error_metres"]["p90"] == pytest.approx(100, abs=1.5)


def by_gpx(folder: Path) -> Path:
    return write_all(folder / "made", rows(rejected=())) / "track.gpx"


def by_time(folder: Path) -> Path:
    path = folder / "truth.csv"
    path.write_text("time,latitude,longitude\n" + "\n".join(f"{r.time},{r.latitude},{r.longitude}" for r in rows()))
    return path


@pytest.mark.parametrize("write", [by_gpx, by_time])
def test_truth_by_time_is_interpolated_and_one_of_another_day_is_refused(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    truth = read_truth(write(tmp_path))
    latitude, longitude = truth.at("", 1002.5) or (0.0, 0.0)
    assert (latitude, longitude) == (pytest.approx(48.10025), pytest.approx(16.30025))
    judgement = Judgement(truth)
    for row in rows():
        assert judgement.add(TrackRow(**{**row.__dict__, "time": row.time + 86_400})) is None
    with pytest.raises(ContractError, match=r"it has 1000\.0 … 1006\.0 s, the recording 87400\.0 … 87406\.0 s"):
        judgement.figures()


def test_bad_truth_is_named(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    for text in ("", "image\na.jpg\n", "latitude,longitude\n1,2\n", "image,latitude,longitude\na.jpg,x,2\n"):
        path.write_text(text)
        with pytest.raises(ContractError, match=r"truth\.csv"):
            read_truth(path)

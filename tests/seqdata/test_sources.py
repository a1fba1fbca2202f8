"""The sources: dumps in their real layouts, the known traps, and the real material."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seqdata
from seqdata import geometry, protocols
from seqdata.build import BuildRequest, build
from seqdata.errors import ContractError, InputError
from seqdata.sources import open_source
from seqdata.sources.nordland_gps import read_log


def test_msls_dump_keeps_every_row_and_names_what_is_left_out(msls_dump: Path, tmp_path: Path) -> None:
    build(BuildRequest("msls", msls_dump, tmp_path / "out", protocol=protocols.load(msls_dump / "protocol.toml")))
    dataset = seqdata.open(tmp_path / "out")
    frames = dataset.frames.collect()
    listed = pl.concat(
        [
            pl.read_csv(path.parent / "seq_info.csv").join(pl.read_csv(path), on="key", suffix="_raw")
            for path in msls_dump.rglob("raw.csv")
        ]
    )
    assert frames.height + dataset.quarantine.height == listed.height
    assert dataset.quarantine["reason"].to_list() == ["bad_image"]
    assert frames["panorama"].sum() == 1
    joined = frames.join(listed, on="key")
    assert (joined["position"] == joined["frame_number"]).all()
    assert (joined["latitude"] == joined["lat"]).all()
    assert joined["trajectory"].str.ends_with("southport").sum() == 0
    assert dataset.sequences().filter(pl.col("city") == "northfield").height > 0
    south = frames.filter(pl.col("city") == "southport")
    assert (south["northing"] > 5e6).all(), "southern northings carry the false northing"
    assert (south["zone"].unique().to_list()) == ["55S"]
    for (zone,), part in frames.group_by(["zone"]):
        easting, northing = geometry.to_utm(part["latitude"].to_numpy(), part["longitude"].to_numpy(), str(zone))
        assert np.hypot(easting - part["easting"].to_numpy(), northing - part["northing"].to_numpy()).max() < 0.1


def test_msls_cities_are_chosen_by_exact_name(msls_dump: Path) -> None:
    listing = open_source("msls", msls_dump, {"cities": "southport"}).listing()
    assert set(listing.records["city"]) == {"southport"}
    with pytest.raises(InputError, match="south"):
        open_source("msls", msls_dump, {"cities": "south"}).listing()


def test_msls_columns_are_read_by_name(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    path = raw / "train_val" / "northfield" / "query" / "postprocessed.csv"
    table = pl.read_csv(path)
    table.select(reversed(table.columns)).write_csv(path)
    before, after = (open_source("msls", place, {}).listing().records for place in (msls_dump, raw))
    assert before.equals(after)
    table.drop("easting").write_csv(path)
    with pytest.raises(ContractError, match=r"postprocessed.csv: column 'easting'"):
        open_source("msls", raw, {}).listing()


def test_msls_positions_of_a_neighbouring_zone_are_projected_into_the_citys(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    path = raw / "train_val" / "northfield" / "query" / "postprocessed.csv"
    table = pl.read_csv(path)
    table.with_columns(pl.col("easting") + 400_000.0).write_csv(path)
    before, after = (open_source("msls", place, {}).listing().records for place in (msls_dump, raw))
    assert np.abs(before["easting"].to_numpy() - after["easting"].to_numpy()).max() < 0.1


@pytest.mark.parametrize("kind", ["msls", "nordland"])
def test_the_wrong_dump_is_named(kind: str, drives: Path) -> None:
    with pytest.raises(InputError, match=r"not an? (MSLS|Nordland)"):
        open_source(kind, drives, {}).listing()


def test_an_unknown_source_or_option_lists_the_known(drives: Path) -> None:
    with pytest.raises(ContractError, match="folder, msls, nordland"):
        open_source("kitti", drives, {})
    with pytest.raises(ContractError, match="positions"):
        open_source("folder", drives, {"cities": "x"})


def test_folder_takes_latitude_and_longitude_times_and_subfolders(tmp_path: Path) -> None:
    from tests.conftest import jpeg

    raw = tmp_path / "raw"
    (raw / "a.b").mkdir(parents=True)
    (raw / "a_b").mkdir()
    for folder in ("a.b", "a_b"):
        (raw / folder / "1.jpg").write_bytes(jpeg(len(folder)))
    (raw / "late.jpg").write_bytes(jpeg(9))
    (raw / "positions.csv").write_text(
        "image,latitude,longitude,time\n"
        "late.jpg,-37.8136,144.9631,2024-01-02T10:00:05Z\n"
        "a.b/1.jpg,-37.8137,144.9631,2024-01-02T10:00:01Z\n"
        "a_b/1.jpg,-37.8138,144.9631,2024-01-02 10:00:03.5\n"
    )
    build(BuildRequest("folder", raw, tmp_path / "out"))
    frames = seqdata.open(tmp_path / "out").frames.collect()
    assert frames["source"].to_list() == ["a.b/1.jpg", "a_b/1.jpg", "late.jpg"]
    assert frames["key"].n_unique() == 3
    assert not frames["key"].str.contains(r"\.").any()
    assert frames["zone"].unique().to_list() == ["55S"]
    assert frames["time"].diff().to_list() == [None, 2_500_000, 1_500_000]


def test_paths_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    from tests.conftest import jpeg

    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    (raw / "1.jpg").write_bytes(jpeg(2))
    (raw / "positions.csv").write_text("image,latitude,longitude\n../secret.jpg,50,5\n1.jpg,50,5\n")
    listing = open_source("folder", raw, {}).listing()
    assert listing.records["source"].to_list() == ["1.jpg"]
    assert listing.quarantine["reason"].to_list() == ["missing_image"]
    with pytest.raises(KeyError):
        open_source("folder", raw, {}).read("../secret.jpg")


def nordland_dump(raw: Path, numbers: list[int]) -> Path:
    """A Nordland dump of two season folders and a summer log with the known kinds of damage."""
    from tests.conftest import jpeg

    for season in ("summer", "winter"):
        (raw / season).mkdir(parents=True)
        for number in numbers:
            (raw / season / f"images-{number:05d}.png").write_bytes(jpeg(number))
    rows = ["tid,lat,lon,speed,course,alt"]
    for second in range(400):
        at = 5 * 3600 + 38 * 60 + second
        tid = at // 3600 * 1_000_000 + at // 60 % 60 * 10_000 + at % 60 * 100
        rows.append(f"{tid},{6343674 + 20 * second},{1040070},100,9000,1000")
    rows[50] = "322.28,-0.36,1.41,0,,"
    rows[60] = "5390000,1040070,6343674,0,0,0"
    rows[70] = rows[70].replace(",1040070,", ",104,")
    rows[80] = "99999999,6343674,1040070,0,0,0"
    rows[90] = ""
    (raw / "summer.csv").write_bytes("\r".join(rows).encode())
    return raw


def test_nordland_log_is_repaired(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163])
    log = read_log(raw / "summer.csv")
    assert len(log.second) == 400 - 5
    seconds = log.second - log.second[0]
    assert log.latitude == pytest.approx(63.43674 + 20e-5 * seconds, abs=1e-6)
    assert log.longitude == pytest.approx(np.full(395, 10.4007), abs=1e-6)
    assert seconds[log.nearest(log.second[0] + np.array([0, 10, 49, 399, 5000]))].tolist() == [0, 10, 48, 399, 399]


def test_nordland_frames_take_their_places_from_the_clean_list(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [150, 163, 173, 183, 193])
    (raw / "winter" / "images-00173.png").unlink()
    (raw / "clean_frames.txt").write_text("images-00163.png\nimages-00173.png\nimages-00193.png\nimages-00200.png\n")
    build(BuildRequest("nordland", raw, tmp_path / "out", protocol=protocols.load("nordland-tenth")))
    dataset = seqdata.open(tmp_path / "out")
    frames = dataset.frames.collect()
    summer, winter = (frames.filter(pl.col("trajectory") == season) for season in ("summer", "winter"))
    assert summer["position"].to_list() == [0, 1, 2, 3, 4]
    assert summer["clean_position"].to_list() == [None, 0, 1, None, 2]
    assert winter["position"].to_list() == [0, 1, 3, 4]
    assert winter["clean_position"].to_list() == [None, 0, None, 2]
    assert summer["latitude"].to_list() == pytest.approx([63.43674 + 20e-5 * s for s in (0, 0, 10, 20, 30)], abs=1e-6)


def test_real_nordland(real: Path, tmp_path: Path) -> None:
    for season, low, high in (("spring", 720, 730), ("summer", 765, 772), ("fall", 720, 730), ("winter", 720, 730)):
        log = read_log(real / "nordland" / f"{season}.csv")
        zone = geometry.choose_zone(log.latitude, log.longitude)
        metres = geometry.track_metres(*geometry.to_utm(log.latitude, log.longitude, zone))[-1]
        assert low < metres / 1000 < high, season
    build(BuildRequest("nordland", real / "nordland", tmp_path / "out", protocol=protocols.load("nordland-tenth")))
    dataset = seqdata.open(tmp_path / "out")
    frames = dataset.frames.collect()
    assert frames.height == 7152
    assert frames.filter(pl.col("trajectory") == "summer")["clean_position"].drop_nulls().to_list() == list(range(2761))
    assert 720 < dataset.trajectories["length_m"][0] / 1000 < 730
    assert dataset.sequences("nordland-tenth", "test", "query").height == 861 - 4
    assert dataset.protocol_positives("nordland-tenth", "test").height == 3 * 857 - 2


def test_real_corridor_and_bad_images(real: Path, tmp_path: Path) -> None:
    build(BuildRequest("folder", real / "corridor", tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    assert dataset.manifest.counts.frames == 77
    assert dataset.quarantine["reason"].to_list() == ["no_row"] * 7
    frames = dataset.frames.collect()
    shard = (dataset.path / "shards" / "part-000000.tar").read_bytes()
    for source, offset, length in frames.select("source", "offset", "length").iter_rows():
        assert shard[offset : offset + length] == (real / "corridor" / source).read_bytes()
    raw = tmp_path / "bad"
    shutil.copytree(real / "bad-images", raw)
    names = sorted(path.name for path in raw.iterdir())
    (raw / "positions.csv").write_text(
        "image,latitude,longitude\n" + "".join(f"{name},50.{i},5\n" for i, name in enumerate(names))
    )
    built = build(BuildRequest("folder", raw, tmp_path / "bad-out"))
    assert built.counts.frames == len(names), "broken EXIF does not make pixels bad"

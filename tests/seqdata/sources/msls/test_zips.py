"""MSLS straight from its zips: the same records and bytes as unpacked, in every mix; test positions; real positions."""

import math
import shutil
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import utm

import seqdata
from seqdata import geometry, protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import InputError
from seqdata.sources import Listing, open_source
from tests.conftest import jpeg


def pack(files: dict[str, bytes], archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)


def below(dump: Path) -> dict[str, bytes]:
    files = {p.relative_to(dump).as_posix(): p.read_bytes() for p in sorted(dump.rglob("*")) if p.is_file()}
    return {name: data for name, data in files.items() if name.startswith("train_val/")}


@pytest.fixture
def zips(msls_dump: Path, tmp_path: Path) -> Path:
    """The tiny dump as downloaded: two volumes and the metadata."""
    raw = tmp_path / "zips"
    raw.mkdir()
    files = below(msls_dump)
    images = [name for name in files if name.endswith(".jpg")]
    pack({name: files[name] for name in images[::2]}, raw / "msls_images_vol_1.zip")
    pack({name: files[name] for name in images[1::2]}, raw / "msls_images_vol_2.zip")
    pack({name: data for name, data in files.items() if name.endswith(".csv")}, raw / "msls_metadata.zip")
    return raw


def listing(raw: Path, cities: str = "") -> Listing:
    return open_source("msls", raw, {"cities": cities}).listing()


def sourceless(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("source")


def test_zips_give_the_records_and_bytes_of_the_unpacked_dump(msls_dump: Path, zips: Path) -> None:
    unpacked, packed = open_source("msls", msls_dump, {}), open_source("msls", zips, {})
    one, two = unpacked.listing(), packed.listing()
    assert one.records.height > 20
    assert sourceless(one.records).equals(sourceless(two.records))
    assert two.records["source"].str.contains(r"^msls_images_vol_[12]\.zip!train_val/").all()
    assert two.quarantine.height == 0
    for here, there in zip(one.records["source"], two.records["source"], strict=True):
        assert packed.read(there) == unpacked.read(here)
        assert there.endswith(here)


def test_a_built_dataset_is_the_same_from_zips_with_two_workers(msls_dump: Path, zips: Path, tmp_path: Path) -> None:
    protocol = protocols.load(msls_dump / "protocol.toml")
    for name, raw in (("one", msls_dump), ("two", zips)):
        build(BuildRequest("msls", raw, tmp_path / name, protocol=protocol, workers=2))
    one, two = (seqdata.open(tmp_path / name).frames.collect() for name in ("one", "two"))
    hashed = [
        name for name in one.columns if name in ("key", "hash", "width", "height", "position", "subtasks", "zone")
    ]
    assert {"key", "hash"} < set(hashed)
    assert one.select(hashed).equals(two.select(hashed))
    assert one["panorama"].sum() == two["panorama"].sum() == 1
    assert seqdata.open(tmp_path / "two").quarantine["reason"].to_list() == ["bad_image"]


@pytest.mark.parametrize("unpacked", [".csv", ".jpg", "southport"])
def test_zips_and_unpacked_files_mix(unpacked: str, msls_dump: Path, zips: Path) -> None:
    whole = listing(msls_dump).records
    files = {name: data for name, data in below(msls_dump).items() if unpacked in name}
    for name, data in files.items():
        (zips / name).parent.mkdir(parents=True, exist_ok=True)
        (zips / name).write_bytes(data)
    if unpacked != "southport":
        for archive in zips.glob("*metadata*" if unpacked == ".csv" else "*vol*"):
            archive.unlink()
    mixed = listing(zips).records
    assert sourceless(mixed).equals(sourceless(whole))
    packed = mixed["source"].str.contains("!")
    assert packed.to_list() == (~mixed["source"].is_in(list(files))).to_list()


def test_the_patch_wins_over_volumes_and_folder(msls_dump: Path, zips: Path) -> None:
    files = below(msls_dump)
    first, second = [name for name in files if name.endswith(".jpg")][:2]
    pack({first: jpeg(77), second: jpeg(78)}, zips / "msls_patch_v1.1.zip")
    (zips / second).parent.mkdir(parents=True)
    (zips / second).write_bytes(files[second])
    source = open_source("msls", zips, {})
    records = source.listing().records
    patched = records.filter(pl.col("source").str.starts_with("msls_patch_v1.1.zip!"))
    assert sorted(patched["source"]) == sorted(f"msls_patch_v1.1.zip!{name}" for name in (first, second))
    assert [source.read(f"msls_patch_v1.1.zip!{name}") for name in (first, second)] == [jpeg(77), jpeg(78)]
    sizes = dict(patched.select("source", "bytes").iter_rows())
    assert sizes[f"msls_patch_v1.1.zip!{first}"] == len(jpeg(77))
    assert records.height == listing(msls_dump).records.height
    assert records["source"].str.contains(first, literal=True).sum() == 1


def test_cities_are_chosen_by_exact_name_from_zips(zips: Path) -> None:
    assert set(listing(zips, "southport").records["city"]) == {"southport"}
    with pytest.raises(InputError, match="no city 'south'; it has northfield, southport"):
        listing(zips, "south")


def test_members_that_lead_outside_are_left_out_by_name(zips: Path, tmp_path: Path) -> None:
    key = "x" * 22
    link = zipfile.ZipInfo(f"train_val/northfield/query/images/{key}.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(zips / "msls_images_vol_3.zip", "w") as archive:
        archive.writestr("../../escaped.jpg", b"x")
        archive.writestr("/etc/escaped.jpg", b"x")
        archive.writestr("train_val/../../escaped/query/seq_info.csv", b"key\n")
        archive.writestr(link, b"/etc/passwd")
    quarantine = listing(zips).quarantine
    assert quarantine["reason"].to_list() == ["unreadable_image"] * 4
    assert quarantine["source"].str.starts_with("msls_images_vol_3.zip!").all()
    assert quarantine["message"].str.contains("never read from an archive").all()
    source = open_source("msls", zips, {})
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in (
        "../secret.jpg",
        "msls_images_vol_3.zip!../../escaped.jpg",
        "../zips/msls_metadata.zip!x",
        "/etc/passwd",
    ):
        with pytest.raises((KeyError, FileNotFoundError)):
            source.read(name)
    assert not list(tmp_path.rglob("escaped*"))


def test_a_cut_zip_is_named(zips: Path) -> None:
    path = zips / "msls_images_vol_2.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"msls_images_vol_2.zip: .*download it again"):
        listing(zips)


def test_a_table_that_cannot_be_read_is_named(zips: Path, msls_dump: Path) -> None:
    name = "train_val/northfield/query/raw.csv"
    data = bytearray((zips / "msls_metadata.zip").read_bytes())
    at = data.find(name.encode()) + len(name) + 5
    data[at : at + 20] = bytes(20)
    (zips / "msls_metadata.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"northfield/query/raw.csv.*download it again"):
        listing(zips)


def withhold(msls_dump: Path, raw: Path, *names: str) -> Path:
    """The dump with southport among the test cities, some of its tables withheld."""
    shutil.copytree(msls_dump, raw)
    (raw / "test").mkdir()
    shutil.move(raw / "train_val" / "southport", raw / "test" / "southport")
    for name in names:
        for path in (raw / "test").rglob(name):
            path.unlink()
    return raw


def test_published_test_positions_are_used(msls_dump: Path, tmp_path: Path) -> None:
    before = listing(msls_dump, "southport").records
    all_there = listing(withhold(msls_dump, tmp_path / "a"), "southport")
    assert sourceless(all_there.records).equals(sourceless(before))
    assert all_there.records["source"].str.starts_with("test/southport/").all()
    raw_alone = listing(withhold(msls_dump, tmp_path / "b", "postprocessed.csv"), "southport").records
    assert raw_alone["key"].equals(before["key"])
    assert np.abs(raw_alone["northing"].to_numpy() - before["northing"].to_numpy()).max() < 0.01
    assert raw_alone["zone"].unique().to_list() == ["55S"]


@pytest.mark.parametrize("names", [("raw.csv",), ("raw.csv", "postprocessed.csv")])
def test_frames_of_withheld_positions_stand_in_quarantine(
    names: tuple[str, ...], msls_dump: Path, tmp_path: Path
) -> None:
    before = listing(msls_dump)
    after = listing(withhold(msls_dump, tmp_path / "raw", *names))
    south = before.records.filter(city="southport")
    assert after.records.height == before.records.height - south.height
    assert after.quarantine["reason"].to_list() == ["no_position"] * south.height
    assert sorted(after.quarantine["key"]) == sorted(south["key"])


def test_a_training_city_without_its_positions_is_refused(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    (raw / "train_val" / "northfield" / "query" / "raw.csv").unlink()
    with pytest.raises(InputError, match=r"northfield/query/raw.csv: no such file"):
        listing(raw)


MADE = "melbourne"


def real_positions(real: Path, raw: Path) -> dict[str, pl.DataFrame]:
    """An MSLS dump of the real rows of amman and austin; melbourne is amman's shape laid over the southern city."""
    tables = {}
    for city, zone, latitude in (("amman", 36, 31.95), ("austin", 14, 30.27), (MADE, 55, -37.8)):
        for role in ("database", "query"):
            table = pl.read_csv(real / "msls-positions" / f"{'amman' if city == MADE else city}-{role}.csv")
            if city == MADE:
                east, north, _, _ = utm.from_latlon(latitude, 144.96)
                shift = (
                    pl.col("easting") - table["easting"][0] + east,
                    pl.col("northing") - table["northing"][0] + north,
                )
                table = table.with_columns(*shift, pl.col("key").str.reverse())
            folder = raw / "train_val" / city / role
            write_city(folder, table, zone, latitude)
            tables[f"{city}/{role}"] = table
    return tables


def write_city(folder: Path, table: pl.DataFrame, zone: int, latitude: float) -> None:
    (folder / "images").mkdir(parents=True)
    lat, lon = utm.to_latlon(table["easting"].to_numpy(), table["northing"].to_numpy(), zone, northern=latitude > 0)
    stored = table["northing"] - (0 if latitude > 0 else 1e7)
    key, row = table["key"], pl.Series("", range(table.height))
    number = pl.Series("frame_number", np.arange(table.height) - table["sequence_start"].to_numpy())
    sequence = table["sequence_start"].cast(pl.String).alias("sequence_key")
    constant = {"unique_cluster": 0, "control_panel": "False", "night": "False", "view_direction": "Forward"}
    pl.DataFrame([row, key, sequence, number]).write_csv(folder / "seq_info.csv")
    pl.DataFrame([row, key, table["easting"], stored.alias("northing")]).with_columns(
        pl.lit(value).alias(name) for name, value in constant.items()
    ).write_csv(folder / "postprocessed.csv")
    pl.DataFrame([row, key, pl.Series("lon", lon), pl.Series("lat", lat)]).with_columns(
        pl.lit(0.0).alias("ca"), pl.lit("2016-01-01").alias("captured_at"), pl.lit("False").alias("pano")
    ).write_csv(folder / "raw.csv")
    picture = jpeg(1)
    for name in key:
        (folder / "images" / f"{name}.jpg").write_bytes(picture)


def test_real_positions_jumps_break_windows_and_zones_hold(real: Path, tmp_path: Path) -> None:
    tables = real_positions(real, tmp_path / "raw")
    assert (pl.read_csv(tmp_path / "raw" / "train_val" / MADE / "query" / "postprocessed.csv")["northing"] < 0).all()
    build(BuildRequest("msls", tmp_path / "raw", tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    frames = dataset.frames.collect()
    assert frames.height == sum(table.height for table in tables.values())
    assert dataset.quarantine.height == 0
    zones = {city: part["zone"].unique().to_list() for (city,), part in frames.group_by("city")}
    assert zones == {"amman": ["36N"], "austin": ["14N"], MADE: ["55S"]}
    assert (frames.filter(city=MADE)["northing"] > 5e6).all()
    for name, table in tables.items():
        city, role = name.split("/")
        joined = table.join(frames.filter(city=city, role=role), on="key", suffix="_built")
        assert joined.height == table.height
        assert (joined["northing"] - joined["northing_built"]).abs().max() < 1e-6
        assert (joined["easting"] - joined["easting_built"]).abs().max() < 1e-6
    for step in (None, 100.0):
        windows = dataset.sequences(length=5, stride=1, max_step=step).height
        assert windows == sum(count_windows(table, 5, step or math.inf) for table in tables.values())


def count_windows(table: pl.DataFrame, length: int, max_step: float) -> int:
    """Windows of `length` rows inside one sequence without a step above `max_step`, counted one by one."""
    rows = table.select("easting", "northing", "sequence_start").rows()
    count = 0
    for first in range(len(rows) - length + 1):
        window = rows[first : first + length]
        whole = len({row[2] for row in window}) == 1
        count += whole and all(math.hypot(b[0] - a[0], b[1] - a[1]) <= max_step for a, b in pairwise(window))
    return count


@pytest.mark.parametrize(("city", "zone", "latitude"), [("buenosaires", "21S", -34.6), ("kampala", "36N", -0.01)])
def test_a_test_city_with_metres_alone_is_placed(
    city: str, zone: str, latitude: float, msls_dump: Path, tmp_path: Path
) -> None:
    raw = withhold(msls_dump, tmp_path / "raw", "raw.csv")
    (raw / "test" / "southport").rename(raw / "test" / city)
    easting, northing = geometry.to_utm([latitude], [-58.4 if zone == "21S" else 32.5], zone)
    published = northing[0] - (1e7 if zone == "21S" else 0)
    for path in (raw / "test").rglob("postprocessed.csv"):
        pl.read_csv(path).with_columns(
            easting=pl.lit(easting[0]), northing=pl.int_range(pl.len()) + pl.lit(published)
        ).write_csv(path)
    records = listing(raw, city).records
    assert records.height
    assert records["latitude"].to_list() == pytest.approx([latitude] * records.height, abs=0.001)
    assert records["northing"].to_numpy() == pytest.approx(
        geometry.to_utm(records["latitude"], records["longitude"], records["zone"][0])[1], abs=0.01
    )


def test_zips_of_other_names_are_named(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    (raw / "images_vol_1.zip").write_bytes(b"")
    source = open_source("msls", raw, {})
    assert source.listing().notes == ("not read, since their names are not the published ones: images_vol_1.zip",)
    shutil.rmtree(raw / "train_val")
    with pytest.raises(InputError, match=r"images_vol_1\.zip may be zips of it: give them their published"):
        open_source("msls", raw, {}).listing()

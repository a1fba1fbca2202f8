"""The sources: dumps in their real layouts, the known traps, and the real material."""

import errno
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqdata
from seqdata import geometry, protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import ContractError, InputError
from seqdata.frames.images import BadImageError
from seqdata.sources import open_source
from seqdata.sources.files import image_names, is_image
from seqdata.sources.nordland.gps import read_log
from seqdata.storage import faults
from tests.conftest import listed


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


def test_msls_rows_off_the_globe_or_without_a_name_are_left_out(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    folder = raw / "train_val" / "northfield" / "query"
    before = open_source("msls", raw, {}).listing()
    places = pl.read_csv(folder / "raw.csv")
    number = pl.int_range(pl.len())
    places.with_columns(
        pl.when(number == 0).then(91.0).when(number == 1).then(-85.0).otherwise("lat").alias("lat"),
        pl.when(number == 2).then(999.0).otherwise("lon").alias("lon"),
    ).write_csv(folder / "raw.csv")
    info = pl.read_csv(folder / "seq_info.csv")
    info.with_columns(
        pl.when(number != 3).then("key").alias("key"), pl.when(number != 5).then("sequence_key").alias("sequence_key")
    ).write_csv(folder / "seq_info.csv")
    after = open_source("msls", raw, {}).listing()
    assert after.records.height == before.records.height - 5
    assert after.quarantine.filter(reason="no_position")["key"].to_list() == places["key"][:3].to_list()
    nameless = after.quarantine.filter(reason="missing_image")["source"].to_list()
    assert nameless == [f"train_val/northfield/query/seq_info.csv row {row}" for row in (4, 6)]
    assert after.quarantine.filter(reason="no_row")["source"].str.contains(places["key"][3]).to_list() == [True]
    assert after.records.select(before.records.columns).equals(
        before.records.filter(pl.col("key").is_in(after.records["key"].implode()))
    )


def test_msls_equal_frame_numbers_come_in_one_order(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(msls_dump, raw)
    path = raw / "train_val" / "northfield" / "database" / "seq_info.csv"
    pl.read_csv(path).with_columns(pl.lit(7).alias("frame_number")).write_csv(path)
    records = open_source("msls", raw, {"cities": "northfield"}).listing().records.filter(role="database")
    assert records["key"].to_list() == records.sort("trajectory", "key")["key"].to_list()


def test_nordland_without_a_clean_list_has_no_clean_positions(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173])
    source = open_source("nordland", raw, {})
    assert source.listing().records["clean_position"].null_count() == 4
    with pytest.raises(InputError, match=r"nordland-tenth needs a clean list.* --clean-list FILE"):
        source.check_protocol(protocols.load("nordland-tenth"))
    source.check_protocol(protocols.load("own"))
    (raw / "clean_frames.txt").write_text("163\n")
    source.check_protocol(protocols.load("nordland-tenth"))


def test_other_sources_fit_every_protocol(msls_dump: Path, drives: Path) -> None:
    for kind, raw in (("msls", msls_dump), ("folder", drives)):
        for name in protocols.names():
            open_source(kind, raw, {}).check_protocol(protocols.load(name))


def test_a_clean_list_may_be_written_in_several_ways(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173, 183, 193, 203])
    listing = tmp_path / "list.txt"
    listing.write_bytes(
        b"\xef\xbb\xbf# kept\r\nimages-00163\r\n\r\nsummer/images-00173.PNG # a station\r\n 183 \r\n00193\r\n"
    )
    records = open_source("nordland", raw, {"clean_list": str(listing)}).listing().records
    assert records.filter(trajectory="winter")["clean_position"].to_list() == [0, 1, 2, 3, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("163\ntunnel\n", r"list.txt: line 2 \('tunnel'\)"),
        ("163\n1.5\n", "line 2"),
        ("999\n", "names no frame"),
        ("", "names no frame"),
        ("\xff", "line 1"),
    ],
)
def test_a_clean_list_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173])
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        open_source("nordland", raw, {"clean_list": str(tmp_path / "list.txt")}).listing()


def test_nordland_takes_the_zip_beside_an_empty_folder_and_no_resource_forks(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163, 173])
    with zipfile.ZipFile(raw / "winter.zip", "w") as archive:
        for path in sorted((raw / "winter").iterdir()):
            archive.write(path, f"winter/{path.name}")
            archive.writestr(f"__MACOSX/winter/._{path.name}", b"fork")
            archive.writestr(f"__MACOSX/winter/{path.name}", b"fork")
    shutil.rmtree(raw / "winter")
    (raw / "winter").mkdir()
    (raw / "winter" / ".DS_Store").write_bytes(b"")
    (raw / "summer" / "._images-00163.png").write_bytes(b"fork")
    (raw / "summer" / "images-00999.png").symlink_to("gone")
    (raw / "summer" / "images-00998.png").mkdir()
    source = open_source("nordland", raw, {})
    listing = source.listing()
    assert listing.quarantine.height == 0
    assert listing.records["source"].to_list() == [
        "summer/images-00163.png",
        "summer/images-00173.png",
        "winter.zip!winter/images-00163.png",
        "winter.zip!winter/images-00173.png",
    ]
    assert source.read(listing.records["source"][0]) == source.read(listing.records["source"][2])


def test_a_dump_without_any_frame_number_is_refused(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [])
    (raw / "summer" / "first.png").write_bytes(b"x")
    with pytest.raises(InputError, match="frame number"):
        open_source("nordland", raw, {}).listing()


def test_hidden_files_and_resource_forks_are_no_images() -> None:
    assert is_image("a.b/1.JPG") and is_image("1.jpeg") and is_image("cache/1.png")
    assert not any(
        is_image(name) for name in ("._1.jpg", "a/.1.jpg", "__MACOSX/a/1.jpg", "1.gif", ".jpg", ".cache/1.png")
    )


@given(
    st.lists(st.sampled_from(["a", ".", ".b", "__MACOSX", "__MACOSX.jpg", "/", "é", ".jpg", ".JPEG", ".png", "1.gif"]))
)
def test_a_column_of_names_is_judged_as_each_name(parts: list[str]) -> None:
    name = "".join(parts)
    assert pl.DataFrame({"name": [name]}).select(image_names("name")).item() == is_image(name)


def test_dangling_links_are_missing_images(shots: Path, msls_dump: Path, tmp_path: Path) -> None:
    (shots / "0.jpg").unlink()
    (shots / "0.jpg").symlink_to("gone.jpg")
    (shots / "6.jpg").symlink_to("6.jpg")  # listed nowhere, and leads nowhere
    (shots / "._1.jpg").write_bytes(b"fork")
    listing = listed(shots, "image,latitude,longitude\n" + "".join(f"{n}.jpg,50,5\n" for n in range(6)))
    assert listing.quarantine.select("source", "reason").rows() == [
        ("0.jpg", "missing_image"),
        ("6.jpg", "missing_image"),
    ]
    raw = tmp_path / "msls"
    shutil.copytree(msls_dump, raw)
    image = min((raw / "train_val" / "northfield" / "query" / "images").iterdir())
    image.unlink()
    image.symlink_to("gone.jpg")
    image.with_name("._x.jpg").write_bytes(b"fork")
    quarantine = open_source("msls", raw, {}).listing().quarantine
    assert quarantine.select("key", "reason").rows() == [(image.stem, "missing_image")]


def zip_with_damage(raw: Path, damage: Callable[[bytearray, int], None], method: int = zipfile.ZIP_STORED) -> str:
    """A winter.zip in `raw` whose only member is damaged at the offset of its local header; the source's name."""
    with zipfile.ZipFile(raw / "winter.zip", "w", method) as archive:
        archive.write(raw / "winter" / "images-00163.png", "images-00163.png")
    shutil.rmtree(raw / "winter")
    data = bytearray((raw / "winter.zip").read_bytes())
    damage(data, data.find(b"PK\x01\x02"))
    (raw / "winter.zip").write_bytes(data)
    return "winter.zip!images-00163.png"


def _flip(data: bytearray, _: int) -> None:
    data[100:140] = bytes(255 - byte for byte in data[100:140])


def _encrypt(data: bytearray, central: int) -> None:
    data[6] |= 1
    data[central + 8] |= 1


def _unknown_method(data: bytearray, central: int) -> None:
    data[8] = data[central + 10] = 77


def _no_header(data: bytearray, _: int) -> None:
    data[:4] = b"XXXX"


def _longer(data: bytearray, central: int) -> None:
    data[central + 20 : central + 24] = (10**6).to_bytes(4, "little")
    data[central + 24 : central + 28] = (10**6).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("damage", "method"),
    [
        *(
            (_flip, method)
            for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
        ),
        *((damage, zipfile.ZIP_STORED) for damage in (_encrypt, _unknown_method, _no_header, _longer)),
    ],
)
def test_a_damaged_zip_member_is_unreadable(
    damage: Callable[[bytearray, int], None], method: int, tmp_path: Path
) -> None:
    raw = nordland_dump(tmp_path / "raw", [163])
    name = zip_with_damage(raw, damage, method)
    with pytest.raises(BadImageError) as raised:
        open_source("nordland", raw, {}).read(name)
    assert raised.value.reason == "unreadable_image"
    build(BuildRequest("nordland", raw, tmp_path / "out"))
    assert seqdata.open(tmp_path / "out").quarantine.select("source", "reason").rows() == [(name, "unreadable_image")]


@pytest.mark.parametrize("kind", ["folder", "msls", "nordland"])
def test_files_that_cannot_be_read_are_unreadable_and_others_gone(
    kind: str, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(kind, shots, {})
    with pytest.raises(FileNotFoundError):
        source.read("gone.jpg")
    with pytest.raises(KeyError):
        source.read("../gone.jpg")

    def fail(code: int) -> Callable[..., IO[bytes]]:
        def read(*_: object) -> IO[bytes]:
            raise OSError(code, "cannot")

        return read

    for code in (errno.EACCES, errno.EPERM):
        monkeypatch.setattr(Path, "open", fail(code))
        with pytest.raises(BadImageError) as raised:
            source.read("0.jpg")
        assert raised.value.reason == "unreadable_image"
    monkeypatch.setattr(faults, "WAITS_SECONDS", (0.0,))
    for code in (errno.EMFILE, *faults.PASSING):
        monkeypatch.setattr(Path, "open", fail(code))
        with pytest.raises(OSError, match="cannot"):  # the machine's fault: no frame is left out for it
            source.read("0.jpg")


def test_a_member_that_left_its_zip_is_a_key_error(tmp_path: Path) -> None:
    raw = nordland_dump(tmp_path / "raw", [163])
    zip_with_damage(raw, lambda *_: None)
    with pytest.raises(KeyError):
        open_source("nordland", raw, {}).read("winter.zip!images-00999.png")


def test_a_city_that_is_a_link_is_followed(msls_dump: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "train_val").mkdir(parents=True)
    (raw / "train_val" / "southport").symlink_to(msls_dump / "train_val" / "southport", target_is_directory=True)
    source = open_source("msls", raw, {})
    records = source.listing().records
    assert records.height > 0
    assert len(source.read(records["source"][0])) == records["bytes"][0]


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

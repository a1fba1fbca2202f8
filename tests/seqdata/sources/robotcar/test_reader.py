"""RobotCar dumps: laps, logs, chunks, options, protocols, and what is left out."""

import io
import math
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from seqdata import protocols
from seqdata.errors import InputError, SeqdataError, UsageError
from seqdata.geometry import to_latlon, to_utm
from seqdata.sources.base import Listing, Source
from seqdata.sources.registry import open_source
from seqdata.sources.robotcar.pose import read_log

LAP, OTHER = "2014-11-18-13-20-12", "2014-12-16-18-44-24"
START = 1_416_316_812_000_000
STEP = 62_500
EAST, NORTH = 619_900.0, 5_735_500.0


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def log_csv(
    rows: int = 60, *, east: float = EAST, every: int = 100_000, status: str = "", shift: float = 0.0
) -> pl.DataFrame:
    """A straight drive north-east at 10 m/s, a row every `every` µs, beginning half a second early."""
    seconds = np.arange(rows) * every / 1e6 - 0.5
    easting, northing = east + 6 * seconds + shift, NORTH + 8 * seconds
    latitude, longitude = to_latlon(easting, northing, "30N")
    table = {"timestamp": (START + seconds * 1e6).astype(np.int64)}
    if status:
        table["ins_status"] = np.full(rows, status)
    table |= {"latitude": latitude, "longitude": longitude, "altitude": np.zeros(rows)}
    table |= {"northing": northing, "easting": easting, "down": np.zeros(rows), "utm_zone": np.full(rows, "30U")}
    return pl.DataFrame({**table, "yaw": np.full(rows, math.atan2(6, 8))})


def write_lap(
    raw: Path, lap: str = LAP, frames: int = 40, *, camera: str = "stereo/left", logs: str = "rtk,ins,gps"
) -> Path:
    folder = raw / lap / camera
    folder.mkdir(parents=True)
    (raw / lap / "gps").mkdir(exist_ok=True)
    stamps = [START + i * STEP for i in range(frames)]
    listed = "stereo" if camera.startswith("stereo") else camera
    (raw / lap / f"{listed}.timestamps").write_text(
        "".join(f"{stamp} {i // 20 + 1}\n" for i, stamp in enumerate(stamps))
    )
    for i, stamp in enumerate(stamps):
        (folder / f"{stamp}.png").write_bytes(png(np.full((8, 8), i, np.uint8)))
    if "rtk" in logs:
        log_csv().write_csv(raw / lap / "rtk.csv")
    if "ins" in logs:
        log_csv(300, every=20_000, status="INS_SOLUTION_GOOD", shift=0.5).write_csv(raw / lap / "gps/ins.csv")
    if "gps" in logs:
        log_csv(30, every=200_000, shift=2.0).drop("yaw").write_csv(raw / lap / "gps/gps.csv")
    return raw


def listed(raw: Path, **options: str) -> Listing:
    return open_source("robotcar", raw, options).listing()


def reasons(listing: Listing) -> dict[str, int]:
    return dict(listing.quarantine.group_by("reason").len().iter_rows())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_lap(tmp_path / "raw")


@pytest.mark.parametrize(("pose", "shift"), [("rtk", 0.0), ("ins", 0.5), ("gps", 2.0)])
def test_a_lap_as_it_unpacks(raw: Path, pose: str, shift: float) -> None:
    listing = listed(raw, pose=pose)
    records = listing.records
    assert (records.height, listing.quarantine.height) == (40, 0)
    seconds = np.arange(40) / 16
    np.testing.assert_allclose(records["easting"], EAST + 6 * seconds + shift, atol=1e-6)
    np.testing.assert_allclose(records["northing"], NORTH + 8 * seconds, atol=1e-6)
    east, north = to_utm(records["latitude"], records["longitude"], "30N")
    np.testing.assert_allclose(np.hypot(east - records["easting"], north - records["northing"]), 0, atol=0.01)
    assert records["position"].to_list() == list(range(40))
    assert records["time"].to_list() == [START + i * STEP for i in range(40)]
    assert records["zone"].unique().to_list() == ["30N"]
    assert records["key"][3] == f"{LAP}_{START + 3 * STEP}"
    assert records["role"].null_count() == 40
    if pose == "gps":
        assert records["heading"].null_count() == 40
    else:
        np.testing.assert_allclose(records["heading"], math.degrees(math.atan2(6, 8)), atol=1e-4)


def test_nearest_takes_a_row_as_it_is(raw: Path) -> None:
    easting = listed(raw, pose_mode="nearest").records["easting"].to_numpy()
    rows = pl.read_csv(raw / LAP / "rtk.csv")["easting"].to_numpy()
    assert np.isin(easting, rows).all()
    true = EAST + 6 * np.arange(40) / 16
    assert np.abs(easting - true).max() <= 0.31


def test_bad_ins_rows_do_not_count(raw: Path) -> None:
    path = raw / LAP / "gps/ins.csv"
    table = pl.read_csv(path)
    lost = pl.col("timestamp").is_between(START + 1_000_000, START + 1_600_000)
    table.with_columns(
        ins_status=pl.when(lost).then(pl.lit("INS_SOLUTION_FREE")).otherwise("ins_status"),
        easting=pl.when(lost).then(0.0).otherwise("easting"),
    ).write_csv(path)
    listing = listed(raw, pose="ins")
    assert reasons(listing) == {"pose_gap": 10}
    gone = listing.quarantine
    assert gone["position"].to_list() == list(range(16, 26))
    assert gone["message"].unique().to_list() == ["no two good rows of the ins log lie around it within 0.5 s"]
    assert listed(raw, pose="ins", pose_gap="1").records.height == 40
    np.testing.assert_allclose(
        listed(raw, pose="ins", pose_gap="1").records["easting"], EAST + 0.5 + 6 * np.arange(40) / 16, atol=1e-6
    )


def test_rows_without_a_fix_do_not_count(raw: Path) -> None:
    path = raw / LAP / "gps/gps.csv"
    table = pl.read_csv(path)
    lost = pl.int_range(pl.len()).is_in([5, 6, 7])
    zero = {name: pl.when(lost).then(0.0).otherwise(name) for name in ("latitude", "longitude", "easting", "northing")}
    table.with_columns(**zero).write_csv(path)
    listing = listed(raw, pose="gps")
    assert reasons(listing) == {"pose_gap": 13}  # between 0.3 and 1.1 s
    np.testing.assert_allclose(listing.records["northing"], NORTH + 8 * listing.records["position"] / 16, atol=1e-6)


def test_absent_and_unlisted_images(raw: Path) -> None:
    folder = raw / LAP / "stereo/left"
    for i in (5, 6, 30):
        (folder / f"{START + i * STEP}.png").unlink()
    (folder / "123.png").write_bytes(b"x")
    listing = listed(raw)
    assert reasons(listing) == {"absent_image": 3, "no_row": 1}
    assert listing.records["position"].to_list() == [i for i in range(40) if i not in (5, 6, 30)]
    absent = listing.quarantine.filter(reason="absent_image")
    assert absent["source"][0] == f"{LAP}/stereo/left/{START + 5 * STEP}.png"
    assert absent["message"].n_unique() == 1


def test_a_lap_that_is_not_downloaded_needs_no_log(raw: Path) -> None:
    write_lap(raw, OTHER, logs="")
    for path in (raw / OTHER / "stereo/left").iterdir():
        path.unlink()
    listing = listed(raw)
    assert (listing.records.height, reasons(listing)) == (40, {"absent_image": 40})
    with pytest.raises(InputError, match=f"lap {OTHER} has no picture of stereo_left"):
        listed(raw, laps=f"{LAP},{OTHER}")


def test_sources_of_positions_are_never_mixed(raw: Path) -> None:
    write_lap(raw, OTHER, logs="ins,gps")
    with pytest.raises(InputError, match=rf"lap {OTHER} has no rtk\.csv.*--pose"):
        listed(raw)
    assert listed(raw, pose="ins").records.height == 80
    assert listed(raw, laps=LAP).records.height == 40


def test_options_that_are_wrong_are_named(raw: Path) -> None:
    wrong = {"camera": "front", "pose": "vo", "pose_mode": "x", "pose_gap": "-1", "crop": "x", "zoom": "1"}
    for name, value in wrong.items():
        with pytest.raises(UsageError, match=name.replace("zoom", "no option 'zoom'")):
            open_source("robotcar", raw, {name: value})
    for text in ("nan", "inf", "0", "half"):
        with pytest.raises(UsageError, match="pose_gap"):
            open_source("robotcar", raw, {"pose_gap": text})
    with pytest.raises(InputError, match=r"no lap '2014-11-18'; it has 2014-11-18-13-20-12"):
        listed(raw, laps="2014-11-18")
    with pytest.raises(InputError, match="no lap yyyy"):
        listed(raw, camera="stereo_right")
    with pytest.raises(InputError, match="no such lookup table"):
        open_source("robotcar", raw, {"undistort": str(raw / "none.bin")})


def test_another_dump_and_a_missing_timestamps_file(raw: Path, drives: Path) -> None:
    with pytest.raises(InputError, match="no lap yyyy"):
        listed(drives)
    (raw / LAP / "stereo.timestamps").unlink()
    with pytest.raises(InputError, match=rf"no {LAP}/stereo\.timestamps"):
        listed(raw)
    (raw / LAP / "stereo.timestamps").write_text(f"{START} 1\n{START + STEP} one\n")
    with pytest.raises(InputError, match=rf"line 2 \('{START + STEP} one'\)"):
        listed(raw)


def test_mono_cameras_have_their_own_list(tmp_path: Path) -> None:
    raw = write_lap(tmp_path / "raw", camera="mono_rear")
    listing = listed(raw, camera="mono_rear")
    assert listing.records.height == 40
    assert listing.records["view_direction"].unique().to_list() == ["Backward"]
    assert listing.records["source"][0] == f"{LAP}/mono_rear/{START}.png"


def test_metres_of_another_zone_are_projected_again(raw: Path) -> None:
    """Rows that the receiver wrote in zone 31 while all the others are in 30; published metres are kept elsewhere."""
    path = raw / LAP / "rtk.csv"
    table = pl.read_csv(path)
    latitude, longitude = table["latitude"].to_numpy(), table["longitude"].to_numpy()
    east, north = to_utm(latitude, longitude, "31N")
    far = np.arange(table.height) >= 20
    table.with_columns(
        easting=np.where(far, east, table["easting"].to_numpy()),
        northing=np.where(far, north, table["northing"].to_numpy()),
    ).write_csv(path)
    records = listed(raw).records
    np.testing.assert_allclose(records["easting"], EAST + 6 * np.arange(40) / 16, atol=0.01)


def test_protocols_that_pin_what_the_build_has_not(raw: Path) -> None:
    seqvlad, crop = protocols.load("robotcar-seqvlad"), protocols.load("oxford1-sta")

    def check(protocol: protocols.Protocol, **options: str) -> None:
        open_source("robotcar", raw, options).check_protocol(protocol)

    check(seqvlad, pose_mode="nearest")
    check(seqvlad, pose_mode="nearest", crop="top4x4")
    check(crop, pose_mode="nearest", crop="top1280x800")
    with pytest.raises(InputError, match="robotcar-seqvlad wants --pose-mode nearest, this build has interpolate"):
        check(seqvlad)
    with pytest.raises(InputError, match="wants --pose rtk, this build has ins"):
        check(seqvlad, pose_mode="nearest", pose="ins")
    with pytest.raises(InputError, match=r"wants --pose-gap 0\.5, this build has 2"):
        check(seqvlad, pose_mode="nearest", pose_gap="2")
    with pytest.raises(InputError, match="wants --crop top1280x800, this build has none"):
        check(crop, pose_mode="nearest")


def pack(raw: Path, out: Path, split: int = 20) -> Path:
    """The dump as downloaded: two chunks of the camera, the logs, and the ground truth as a file."""
    out.mkdir()
    stamps = [START + i * STEP for i in range(40)]
    images = [f"{LAP}/stereo/left/{stamp}.png" for stamp in stamps]
    parts = {"stereo_left_01": images[:split], "stereo_left_02": images[split:]}
    tars = {name: [f"{LAP}/stereo.timestamps", *members] for name, members in parts.items()}
    tars["gps"] = [f"{LAP}/gps/gps.csv", f"{LAP}/gps/ins.csv"]
    for name, members in tars.items():
        with tarfile.open(out / f"{LAP}_{name}.tar", "w") as tar:
            for member in members:
                tar.add(raw / member, member)
    (out / LAP).mkdir()
    (out / LAP / "rtk.csv").write_bytes((raw / LAP / "rtk.csv").read_bytes())
    return out


def frames_of(source: Source) -> list[Any]:
    return [source.read(name) for name in source.listing().records["source"]]


@pytest.mark.parametrize("pose", ["rtk", "ins"])
def test_chunks_give_what_the_folder_gives(raw: Path, tmp_path: Path, pose: str) -> None:
    packed = pack(raw, tmp_path / "packed")
    folder, tars = (open_source("robotcar", path, {"pose": pose}) for path in (raw, packed))
    assert tars.listing().records.equals(folder.listing().records)
    for ours, theirs in zip(frames_of(tars), frames_of(folder), strict=True):
        assert (ours == theirs).all()


def test_a_missing_chunk_and_a_mixed_dump(raw: Path, tmp_path: Path) -> None:
    packed = pack(raw, tmp_path / "packed")
    (packed / f"{LAP}_stereo_left_01.tar").unlink()
    listing = listed(packed)
    assert (listing.records["position"].min(), reasons(listing)) == (20, {"absent_image": 20})
    folder = packed / LAP / "stereo/left"
    folder.mkdir(parents=True)
    (folder / f"{START}.png").write_bytes(png(np.full((8, 8), 77, np.uint8)))
    source = open_source("robotcar", packed, {})
    assert reasons(source.listing()) == {"absent_image": 19}
    first = source.read(source.listing().records["source"][0])
    assert isinstance(first, np.ndarray)
    assert (first == 77).all()


@pytest.mark.parametrize("member", [f"{LAP}/rtk.csv", f"rtk/{LAP}/rtk.csv"])
def test_ground_truth_and_chunks_wherever_they_were_put(raw: Path, tmp_path: Path, member: str) -> None:
    """The zip of the ground truth beside the laps, and the tars inside the lap's folder."""
    packed = pack(raw, tmp_path / "packed")
    wanted = listed(packed).records
    with zipfile.ZipFile(packed / "rtk.zip", "w") as archive:
        archive.write(packed / LAP / "rtk.csv", member)
    (packed / LAP / "rtk.csv").unlink()
    for path in sorted(packed.glob(f"{LAP}_*.tar")):
        path.rename(packed / LAP / path.name)
    assert listed(packed).records.equals(wanted)


def test_of_two_pictures_of_one_frame_the_raw_one_counts(raw: Path) -> None:
    folder = raw / LAP / "stereo/left"
    (folder / f"{START}.jpg").write_bytes(b"export")
    (folder / f"{START + STEP}.png").rename(folder / f"{START + STEP}.JPG")
    records = listed(raw).records
    assert records["source"].str.split("/").list.last().to_list()[:2] == [f"{START}.png", f"{START + STEP}.JPG"]
    assert records.height == 40


def test_a_damaged_chunk_is_named(raw: Path, tmp_path: Path) -> None:
    path = pack(raw, tmp_path / "packed") / f"{LAP}_stereo_left_02.tar"
    path.write_bytes(path.read_bytes()[:7000])
    with pytest.raises(InputError, match=r"stereo_left_02\.tar: not a whole tar"):
        listed(path.parent)


def test_members_that_lead_outside_are_quarantined(raw: Path, tmp_path: Path) -> None:
    packed = pack(raw, tmp_path / "packed")
    with tarfile.open(packed / f"{LAP}_stereo_left_02.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo(f"{LAP}/stereo/left/../../../../evil.png"))
        link = tarfile.TarInfo(f"{LAP}/stereo/left/1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    listing = listed(packed)
    assert listing.records.height == 40
    assert reasons(listing) == {"unreadable_image": 2}
    with pytest.raises(KeyError):
        open_source("robotcar", packed, {}).read(f"{LAP}/stereo/left/../../../../evil.png")


def damage(data: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    out = bytearray(data)
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(out) - 1))
        out[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
    return bytes(out[: draw(st.integers(1, len(out)))])


@given(data=st.data(), file=st.sampled_from(["rtk", "ins", "gps"]))
@settings(max_examples=120, deadline=None)
def test_damaged_logs_end_in_named_errors_or_good_rows(data: st.DataObject, file: Any) -> None:
    status = "INS_SOLUTION_GOOD" if file == "ins" else ""
    text = log_csv(20, status=status).write_csv().encode()
    try:
        log = read_log(damage(text, data.draw), "here.csv", file)
    except SeqdataError as error:
        assert "here.csv" in str(error)
        return
    assert (np.diff(log.time) > 0).all()
    for column in (log.latitude, log.longitude, log.easting, log.northing):
        assert np.isfinite(column).all()


@given(data=st.data(), part=st.sampled_from(["stereo.timestamps", "rtk.csv"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_dump_lists_or_names_its_fault(tmp_path: Path, data: st.DataObject, part: str) -> None:
    raw = tmp_path / "raw"
    if not raw.is_dir():
        write_lap(raw, frames=10)
        (tmp_path / "stereo.timestamps").write_bytes((raw / LAP / "stereo.timestamps").read_bytes())
        (tmp_path / "rtk.csv").write_bytes((raw / LAP / "rtk.csv").read_bytes())
    for name in ("stereo.timestamps", "rtk.csv"):
        text = (tmp_path / name).read_bytes()
        (raw / LAP / name).write_bytes(damage(text, data.draw) if name == part else text)
    try:
        listing = listed(raw)
    except SeqdataError:
        return
    images = {f"{LAP}/stereo/left/{START + i * STEP}.png" for i in range(10)}
    named = set(listing.records["source"]) | set(listing.quarantine["source"])
    assert images <= named


def test_a_timestamp_that_is_listed_twice_takes_one_position(raw: Path) -> None:
    before = listed(raw).records
    path = raw / LAP / "stereo.timestamps"
    path.write_text("".join(line * 2 for line in path.read_text().splitlines(keepends=True)))
    after = listed(raw)
    assert after.records.equals(before)
    assert set(after.quarantine.filter(reason="duplicate_key")["message"]) == {
        "the timestamps file lists this frame again"
    }


def test_a_log_an_hour_off_says_so_in_quarantine(raw: Path) -> None:
    path = raw / LAP / "rtk.csv"
    table = pl.read_csv(path).with_columns(pl.col("timestamp") + 3_600_000_000)
    table.write_csv(path)
    left_out = listed(raw).quarantine.filter(reason="pose_gap")
    assert left_out.height
    assert left_out["message"].str.ends_with("the log's clock is 1 h ahead of the camera's").all()

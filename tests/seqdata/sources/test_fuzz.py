"""Fuzzing of the dumps: whatever a table or a zip holds, out come records, quarantine rows or a SeqdataError."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqdata.errors import SeqdataError
from seqdata.frames.images import BadImageError
from seqdata.sources import Source, open_source
from seqdata.sources.detect import recognise
from seqdata.sources.nordland.gps import read_log
from seqdata.synth.drives.along import read_track
from tests.conftest import jpeg
from tests.seqdata.sources.test_sources import nordland_dump

TABLES = ("seq_info.csv", "postprocessed.csv", "raw.csv", "subtask_index.csv")
CELLS = (
    "",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "9" * 40,
    "91",
    "../../x",
    "/etc/passwd",
    "a\\b",
    "x" * 300,
    "é\x00",
    '"',
    ",",
    "\r",
    "\n",
)
few = settings(
    deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["cell", "cut", "flip", "insert", "drop", "repeat"]), st.floats(0, 0.999), st.binary(max_size=6)
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """`data` after some damage; the place is a share of its length."""
    for kind, share, junk in changes:
        at = int(share * len(data))
        if kind == "cell":
            cell = CELLS[sum(junk) % len(CELLS)].encode()
            before, _, after = data[at:].partition(b",")
            data = data[:at] + (cell + b"," if junk else b"") + after if after else data + before + cell
        elif kind == "cut":
            data = data[:at]
        elif kind == "flip":
            data = data[:at] + bytes(255 - byte for byte in data[at : at + len(junk)]) + data[at + len(junk) :]
        elif kind == "insert":
            data = data[:at] + junk + data[at:]
        elif kind == "drop":
            data = data[:at] + data[at + 1 + len(junk) :]
        else:
            data = data[:at] + data[at // 2 : at] + data[at:]
    return data


@contextmanager
def copied(dump: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "outer" / "raw"
        shutil.copytree(dump, raw)
        (raw.parent / "secret.jpg").write_bytes(b"secret")
        yield raw


def assert_survives(kind: str, raw: Path) -> None:
    """List and read everything: only our own errors come out, no frame is lost in silence, nothing outside is read."""
    before = set(raw.parent.parent.rglob("*"))
    try:
        source = open_source(kind, raw, {})
        listing = source.listing()
    except SeqdataError as error:
        assert "\n" not in str(error) and str(error)
        return
    records = listing.records
    assert records["key"].is_unique().all()
    assert (
        records.select(pl.col("latitude", "longitude", "easting", "northing").is_finite().all()).row(0) == (True,) * 4
    )
    assert listing.quarantine["message"].str.len_bytes().gt(0).all()
    for name in records["source"]:
        assert_not_secret(source, name)
    assert set(raw.parent.parent.rglob("*")) == before, "nothing is unpacked"


def assert_not_secret(source: Source, name: str) -> None:
    with suppress(BadImageError, KeyError, FileNotFoundError):
        assert source.read(name) != b"secret"


@pytest.fixture(scope="module")
def small_msls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One city of six images, written by hand: small enough to be read at every example."""
    raw = tmp_path_factory.mktemp("fuzz") / "msls"
    for r, role in enumerate(("database", "query")):
        folder = raw / "train_val" / "town" / role
        (folder / "images").mkdir(parents=True)
        keys = [f"{role}-{i}" for i in range(3)]
        for key in keys:
            (folder / "images" / f"{key}.jpg").write_bytes(jpeg(r))
        rows = range(3)
        texts = {
            "seq_info.csv": [",key,sequence_key,frame_number", *(f"{i},{keys[i]},s{r},{i}" for i in rows)],
            "postprocessed.csv": [
                ",key,easting,northing,unique_cluster,control_panel,night,view_direction",
                *(f"{i},{keys[i]},{500_000 + i}.0,5000000.0,0,False,False,Forward" for i in rows),
            ],
            "raw.csv": [
                ",key,lon,lat,ca,captured_at,pano",
                *(f"{i},{keys[i]},3.{i},45.15,90.0,2016-01-0{i + 1},False" for i in rows),
            ],
            "subtask_index.csv": [",all,s2w,w2s,o2n,n2o,d2n,n2d", *(f"{i}{',True' * 7}" for i in rows)],
        }
        for name, lines in texts.items():
            (folder / name).write_text("\n".join(lines) + "\n")
    return raw


@pytest.fixture(scope="module")
def small_nordland(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = nordland_dump(tmp_path_factory.mktemp("fuzz") / "nordland", [163, 173, 183])
    (raw / "clean_frames.txt").write_text("images-00163.png\nimages-00183.png\n")
    return raw


def test_the_undamaged_dumps_are_whole(small_msls: Path, small_nordland: Path) -> None:
    for kind, dump in (("msls", small_msls), ("nordland", small_nordland)):
        listing = open_source(kind, dump, {}).listing()
        assert (listing.records.height, listing.quarantine.height) == (6, 0)


@few
@given(st.sampled_from(TABLES), st.sampled_from(["database", "query"]), edits)
def test_any_damage_to_an_msls_table(
    small_msls: Path, table: str, role: str, changes: list[tuple[str, float, bytes]]
) -> None:
    with copied(small_msls) as raw:
        path = raw / "train_val" / "town" / role / table
        path.write_bytes(mutated(path.read_bytes(), changes))
        assert_survives("msls", raw)


@few
@given(st.sampled_from(["summer.csv", "clean_frames.txt"]), edits)
def test_any_damage_to_a_nordland_table(
    small_nordland: Path, table: str, changes: list[tuple[str, float, bytes]]
) -> None:
    with copied(small_nordland) as raw:
        (raw / table).write_bytes(mutated((raw / table).read_bytes(), changes))
        assert_survives("nordland", raw)


@few
@given(st.lists(st.lists(st.sampled_from([*CELLS[:8], "5380000", "6343674", "1040070"]), max_size=8), max_size=12))
def test_any_rows_of_a_log(tmp_path: Path, rows: list[list[str]]) -> None:
    text = "\r".join(["tid,lat,lon,speed,course,alt", *(",".join(row) for row in rows)])
    (tmp_path / "summer.csv").write_text(text)
    try:
        log = read_log(tmp_path / "summer.csv")
    except SeqdataError:
        return
    assert (log.second[1:] > log.second[:-1]).all()


def pack(dump: Path, raw: Path, kind: str) -> Path:
    """The dump's images in one zip beside its tables; the zip."""
    archive = raw / ("msls_images_vol_1.zip" if kind == "msls" else "winter.zip")
    shutil.copytree(dump, raw, ignore=shutil.ignore_patterns("*.jpg", "winter"))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(dump.rglob("*.jpg" if kind == "msls" else "winter/*.png")):
            opened.write(path, path.relative_to(dump).as_posix())
    return archive


@few
@given(st.sampled_from(["msls", "nordland"]), edits)
def test_any_damage_to_a_zip(
    small_msls: Path, small_nordland: Path, kind: str, changes: list[tuple[str, float, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "outer" / "raw"
        raw.parent.mkdir()
        archive = pack(small_msls if kind == "msls" else small_nordland, raw, kind)
        archive.write_bytes(mutated(archive.read_bytes(), changes))
        assert_survives(kind, raw)


NAMES = st.lists(
    st.sampled_from(
        ["..", ".", "", "train_val", "town", "query", "images", "winter", "C:", "x.jpg", "a.png", "\\", "é"]
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@few
@given(
    st.sampled_from(["msls", "nordland"]),
    st.lists(NAMES, min_size=1, max_size=5, unique_by=lambda parts: "/".join(parts)),
    st.booleans(),
)
def test_any_names_in_a_zip(
    small_msls: Path, small_nordland: Path, kind: str, names: list[list[str]], link: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "outer" / "raw"
        raw.parent.mkdir()
        (raw.parent / "x.jpg").write_bytes(b"secret")
        with zipfile.ZipFile(pack(small_msls if kind == "msls" else small_nordland, raw, kind), "a") as archive:
            for parts in names:
                info = zipfile.ZipInfo("/".join(parts))
                info.external_attr = (0o120777 if link else 0o100644) << 16
                archive.writestr(info, b"../../x.jpg")
        assert_survives(kind, raw)


def test_a_bomb_among_the_tables_or_images_is_refused(small_msls: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(small_msls, raw)
    with zipfile.ZipFile(raw / "msls_patch_v1.1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_val/town/query/images/query-0.jpg", bytes(32 << 20))
    source = open_source("msls", raw, {})
    name = source.listing().records.filter(key="query-0")["source"][0]
    with pytest.raises(BadImageError, match="bomb"):
        source.read(name)
    with zipfile.ZipFile(raw / "msls_patch_v1.2.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_val/town/query/raw.csv", bytes(32 << 20))
    with pytest.raises(SeqdataError, match=r"raw.csv.*bomb"):
        open_source("msls", raw, {}).listing()


@few
@given(st.sampled_from(["t.gpx", "t.csv"]), edits)
def test_any_damage_to_a_track(tmp_path: Path, name: str, changes: list[tuple[str, float, bytes]]) -> None:
    points = "".join(f'<trkpt lat="50.{i}" lon="5"><time>2020-01-01T00:00:0{i}Z</time></trkpt>' for i in range(5))
    whole = {
        "t.gpx": f'<gpx version="1.1" creator="t"><trk><trkseg>{points}</trkseg></trk></gpx>',
        "t.csv": "time,latitude,longitude\n" + "".join(f"2020-01-01T00:00:0{i}Z,50.{i},5\n" for i in range(5)),
    }
    (tmp_path / name).write_bytes(mutated(whole[name].encode(), changes))
    try:
        track = read_track(tmp_path / name)
    except SeqdataError as error:
        assert "\n" not in str(error)
        return
    assert (track.time[1:] > track.time[:-1]).all()


@few
@given(st.lists(NAMES, max_size=4))
def test_recognising_any_folder(tmp_path: Path, names: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        for parts in names:
            kept = [part.replace("\\", "-") for part in parts if part not in ("", ".", "..")]
            if kept:
                (Path(folder) / "/".join(kept)).mkdir(parents=True, exist_ok=True)
        try:
            assert recognise(Path(folder)) in ("msls", "nordland", "robotcar", "folder")
        except SeqdataError as error:
            assert "\n" not in str(error)


@few
@given(st.booleans(), edits)
def test_any_damage_to_a_positions_file(drives: Path, metres: bool, changes: list[tuple[str, float, bytes]]) -> None:
    with copied(drives) as raw:
        path = raw / "positions.csv"
        data = path.read_bytes()
        if metres:
            data = b"image,easting,northing,zone,heading,time\nmap-000.jpg,500000,5000000,32U,-90,2024-1-1 10:00\n"
        path.write_bytes(mutated(data, changes))
        assert_survives("folder", raw)

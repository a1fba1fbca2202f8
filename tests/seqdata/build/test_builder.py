"""The build: same bytes twice, same bytes after a kill, nothing lost, nothing half-written under a final name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, ShardRange, build, build_range
from seqdata.build.shards import plan_shards
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.verify import verify
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.lock import claimed
from seqdata.storage.store import Store
from tests.support.killing import killed_at

Files = Callable[[Path], dict[str, bytes]]
SMALL = BuildSettings(shard_bytes=1 << 16)


def request(raw: Path, out: Path, **changes: object) -> BuildRequest:
    values = {"settings": SMALL, "protocol": protocols.load("own"), **changes}
    return BuildRequest("folder", raw, out, **values)


def test_two_builds_give_the_same_bytes(drives: Path, tmp_path: Path, files_of: Files) -> None:
    build(request(drives, tmp_path / "one"))
    build(request(drives, tmp_path / "two", workers=2))
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one)
    assert not [name for name in one if name.startswith(".") or name.endswith(".tmp")]


PROGRAM = """
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings

settings = BuildSettings(shard_bytes=1 << 16)
build(BuildRequest("folder", Path(sys.argv[1]), Path(sys.argv[2]), settings=settings, protocol=protocols.load("own")))
"""
POINTS = [
    ("build.plan", "json_bytes", 1),
    ("build.shards", "prepare", 1),
    ("build.shards", "prepare", 37),
    ("build.shards", "parquet_writer", 2),
    ("build.tables", "parquet_writer", 1),
    ("build.tables", "planned_tables", 1),
    ("contracts.manifest", "xxh3_file", 5),
    ("build.finish", "json_bytes", 1),
]


@pytest.mark.parametrize(("module", "function", "call"), POINTS)
def test_a_killed_build_resumes_to_the_same_bytes(
    module: str, function: str, call: int, drives: Path, tmp_path: Path, files_of: Files
) -> None:
    out = tmp_path / "killed"
    script = killed_at(module, function, call, PROGRAM)
    ended = subprocess.run([sys.executable, "-c", script, str(drives), str(out)], capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()
    assert not (out / "manifest.json").exists()
    with pytest.raises(InputError, match="no dataset here" if module == "build.plan" else "unfinished"):
        seqdata.open(out)
    build(request(drives, out))
    build(request(drives, tmp_path / "whole"))
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_finished_build_is_left_alone(drives: Path, tmp_path: Path) -> None:
    first = build(request(drives, tmp_path / "out"))
    stamp = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert build(request(drives, tmp_path / "out")) == first
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == stamp


def test_bad_frames_go_to_quarantine_and_nothing_is_lost(drives: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in drives.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    whole = (raw / "map-003.jpg").read_bytes()
    (raw / "map-003.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "map-004.jpg").write_bytes(b"")
    (raw / "map-005.jpg").write_bytes(b"no image at all")
    (raw / "map-006.jpg").unlink()
    (raw / "stray.jpg").write_bytes(whole)
    table = (raw / "positions.csv").read_text().replace("map-007.jpg,500021.0", "map-007.jpg,nan")
    (raw / "positions.csv").write_text(table)
    manifest = build(request(raw, tmp_path / "out"))
    dataset = seqdata.open(tmp_path / "out")
    reasons = dict(dataset.quarantine.select("source", "reason").iter_rows())
    assert reasons == {
        "map-003.jpg": "bad_image",
        "map-004.jpg": "empty_image",
        "map-005.jpg": "bad_image",
        "map-006.jpg": "missing_image",
        "map-007.jpg": "no_position",
        "stray.jpg": "no_row",
    }
    assert manifest.counts.frames + 5 == 70
    assert sum(manifest.counts.quarantined.values()) == 6
    windows = dataset.sequences(length=5, role="database")
    rows = dataset.frame_rows(windows)
    positions = dataset.frame_columns("position")["position"].to_numpy()[rows]
    assert (positions[:, -1] - positions[:, 0] == 4).all(), "a gap must break windows"


def test_damage_inside_a_scan_is_found_by_decoding(drives: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in drives.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    data = bytearray((raw / "map-003.jpg").read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 60] = b"\xff\xc0" * 30
    (raw / "map-003.jpg").write_bytes(bytes(data))
    checked = build(request(raw, tmp_path / "out", settings=BuildSettings(check="decode")))
    assert checked.counts.quarantined == {"bad_image": 1}


@pytest.mark.parametrize("occupied", ["file", "stranger", "other"])
def test_an_output_folder_with_something_else_is_refused(occupied: str, drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if occupied == "file":
        out.write_text("mine")
    elif occupied == "stranger":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    else:
        build(request(drives, out, settings=BuildSettings(halo=3)))
    with pytest.raises(OutputError):
        build(request(drives, out))
    if occupied == "stranger":
        assert (out / "thesis.tex").read_text() == "mine"


def test_an_unfinished_build_of_another_dump_is_neither_mixed_nor_lost(drives: Path, tmp_path: Path) -> None:
    from tests.conftest import write_drives

    out = tmp_path / "out"
    script = killed_at("build.finish", "json_bytes", 1, PROGRAM)
    subprocess.run([sys.executable, "-c", script, str(drives), str(out)], capture_output=True, check=False)
    shards = sorted(path.name for path in (out / "shards").iterdir())
    other = write_drives(tmp_path / "other", {"map": 6})
    with pytest.raises(OutputError, match="unfinished build of another dump"):
        build(request(other, out))
    assert sorted(path.name for path in (out / "shards").iterdir()) == shards
    (out / "shards" / "part-000000.parquet").write_bytes(b"damaged")
    second = out / "shards" / "part-000001.parquet"
    data = bytearray(second.read_bytes())
    data[4:1200] = bytes(1196)  # its pages, not its footer with the seal
    second.write_bytes(bytes(data))
    build(request(drives, out))
    assert not list(verify(out)), "a damaged seal is written again"


def test_frames_of_no_bytes_before_a_long_drive_are_not_lost(tmp_path: Path) -> None:
    from tests.conftest import write_drives

    raw = write_drives(tmp_path / "raw", {"a-empty": 3, "b-long": 120})
    for path in raw.glob("a-empty*"):
        path.write_bytes(b"")
    manifest = build(request(raw, tmp_path / "out"))
    assert manifest.counts.frames == 120
    assert manifest.counts.quarantined == {"empty_image": 3}


@example([[0], [1, 0]], 1)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 100))
def test_shards_tile_the_listing(drives_bytes: list[list[int]], limit: int) -> None:
    rows = [(f"t{number}", size) for number, sizes in enumerate(drives_bytes) for size in sizes]
    records = pl.DataFrame(rows, schema={"trajectory": pl.String, "bytes": pl.Int64}, orient="row")
    settings = BuildSettings.model_construct(shard_bytes=limit, halo=3)
    plans = plan_shards(records, settings)
    assert [row for plan in plans for row in range(plan.start, plan.stop)] == list(range(records.height))
    names = records["trajectory"].to_list()
    for plan in plans:
        assert len(set(names[plan.start - plan.halo : plan.start + 1])) == 1, "a halo lies in one trajectory"
        cut = plan.start > 0 and names[plan.start - 1] == names[plan.start]
        assert bool(plan.halo) == cut


def test_a_killed_worker_is_one_clear_error(drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures.process import BrokenProcessPool

    import seqdata.parallel.pool as module

    class Broken:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *_: object) -> None: ...
        def shutdown(self, **_: object) -> None: ...
        def submit(self, *_: object) -> object:
            from concurrent.futures import Future

            future: Future[None] = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Broken)
    with pytest.raises(OutputError, match="fewer --workers"):
        build(request(drives, tmp_path / "out", workers=2))


def test_a_refused_build_leaves_no_litter(drives: Path) -> None:
    before = sorted(path.name for path in drives.iterdir())
    with pytest.raises(OutputError, match="something else"):
        build(request(drives, drives))
    assert sorted(path.name for path in drives.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("no folder", InputError, "no such folder"),
        ("no csv", InputError, "positions.csv"),
        ("no images", InputError, "no .jpg"),
        ("no column", ContractError, "northing"),
        ("bad zone", ContractError, "zone"),
        ("bad role", ContractError, "role"),
        ("all bad", InputError, "no frame"),
    ],
)
def test_bad_input_is_one_clear_error(change: str, error: type, words: str, tmp_path: Path) -> None:
    from tests.conftest import write_drives

    raw = write_drives(tmp_path / "raw", {"map": 6})
    table = raw / "positions.csv"
    text = table.read_text()
    if change == "no folder":
        raw = tmp_path / "nowhere"
    elif change == "no csv":
        table.unlink()
    elif change == "no images":
        [path.unlink() for path in raw.glob("*.jpg")]
    elif change == "no column":
        table.write_text(text.replace("northing", "nordwert"))
    elif change == "bad zone":
        table.write_text(text.replace("32N", "99X"))
    elif change == "bad role":
        table.write_text(text.replace("database", "map"))
    else:
        table.write_text(text.replace("50000", "x"))
    with pytest.raises(error, match=words) as raised:
        build(request(raw, tmp_path / "out"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_full_disk_is_named_and_leaves_no_half_file(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import seqdata.build.shards as shards

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.TarWriter, "add", full)
    with pytest.raises(OutputError, match="no space left"):
        build(request(drives, tmp_path / "out"))
    assert not list((tmp_path / "out" / "shards").iterdir())


def test_the_tables_are_small(cut_dataset: seqdata.Dataset) -> None:
    """At most 2 KiB a frame beside the image bytes (halo frames are extra copies and counted out)."""
    manifest = cut_dataset.manifest
    repeated = sum(shard.halo for shard in manifest.shards)
    assert repeated > 0
    tables = sum(
        info.bytes for name, info in manifest.tables.items() if name in ("frames.parquet", "trajectories.parquet")
    )
    mean = manifest.counts.image_bytes / manifest.counts.frames
    shards = sum(shard.bytes for shard in manifest.shards) - repeated * (mean + 2048)
    extra = (shards + tables - manifest.counts.image_bytes) / manifest.counts.frames
    assert extra <= 2048


def test_frames_table_says_what_the_drives_said(dataset: seqdata.Dataset) -> None:
    frames = dataset.frames.collect()
    assert frames.height == 70
    assert frames["trajectory"].to_list() == ["map"] * 40 + ["query"] * 30
    assert frames["position"].to_list() == [*range(40), *range(30)]
    assert frames["easting"].to_list() == [500_000 + 3.0 * i for i in [*range(40), *range(30)]]
    assert frames["track_m"].to_list() == pytest.approx([3.0 * i for i in [*range(40), *range(30)]])
    assert (frames["heading"] - 90.0).abs().max() < 1e-4
    assert frames.filter(pl.col("trajectory") == "map")["resampled"].all()


def test_a_place_that_will_not_do_is_told_before_the_dump_is_listed(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing takes minutes where a dump is large; none of these needs it, and a missing place is not made."""
    protocol = protocols.load("own")
    build(BuildRequest("folder", drives, tmp_path / "built", protocol=protocol))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    monkeypatch.setattr("seqdata.build.builder.read_listing", None)
    smaller = BuildSettings(short_side=16)
    for unfit, words in (
        (BuildRequest("folder", drives, tmp_path / "mine"), "holds something else"),
        (BuildRequest("folder", drives, tmp_path / "built", settings=smaller, protocol=protocol), "another dataset"),
        (BuildRequest("folder", drives, tmp_path / "built"), "holds another dataset"),
    ):
        with pytest.raises(OutputError, match=words):
            build(unfit)
        with pytest.raises(OutputError, match=words):
            build_range(unfit, ShardRange(1, 2))
    with (
        claimed(Store(tmp_path / "busy"), "another build"),
        pytest.raises(OutputError, match=r"another build.* is building here"),
    ):
        build(BuildRequest("folder", drives, tmp_path / "busy"))
    with pytest.raises(TypeError):  # the listing, at last
        build(BuildRequest("folder", drives, tmp_path / "new"))
    assert not (tmp_path / "new").exists()

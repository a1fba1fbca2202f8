"""A dataset at a URL: the same windows, truth and pixels as on disk, few requests, one copy of each table."""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset import verify
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.frames.locations import FrameLocations, LazyLocations
from seqdata.frames.reader import GAP_BYTES, DamagedFrameError, read_views
from seqdata.storage.parquet import write_parquet_atomic
from seqdata.storage.remote import Patience
from seqdata.storage.segments import SegmentedTable
from seqdata.storage.store import Store
from seqdata.storage.table_cache import cache_folder
from tests.support.serving import FileServer, serve, serve_s3

QUICK = Patience(tries=3, timeout=2.0, wait=0.001)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seqdata"


@pytest.fixture
def server(cut_dataset: seqdata.Dataset) -> Iterator[FileServer]:
    """The cut dataset over HTTP."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install 'aiohttp>=3.9')")
    with serve(cut_dataset.path) as files:
        yield files


@pytest.fixture
def remote(server: FileServer) -> seqdata.Dataset:
    return seqdata.open(Store(server.url, QUICK))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, serve_s3(patch, "drives") as url:
        yield url


def copy_up(dataset: seqdata.Dataset, store: Store) -> None:
    """Write every file of a dataset to a store, the manifest last."""
    files = [path for path in dataset.path.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in sorted(files, key=lambda path: path.name == "manifest.json"):
        with store.writing(path.relative_to(dataset.path).as_posix()) as temporary:
            shutil.copyfile(path, temporary)


@pytest.fixture(params=["http", "memory", "s3"])
def elsewhere(request: pytest.FixtureRequest, cut_dataset: seqdata.Dataset) -> seqdata.Dataset:
    """The cut dataset opened from a URL of each kind."""
    if request.param == "http":
        return seqdata.open(request.getfixturevalue("server").url)
    root = request.getfixturevalue("bucket") if request.param == "s3" else "memory:/"
    url = f"{root}/{uuid.uuid4().hex}"
    copy_up(cut_dataset, Store(url))
    return seqdata.open(url)


def test_a_dataset_at_a_url_is_the_dataset(elsewhere: seqdata.Dataset, cut_dataset: seqdata.Dataset) -> None:
    assert elsewhere.id == cut_dataset.id
    assert "://" in elsewhere.location
    with pytest.raises(InputError, match="is not a local folder"):
        _ = elsewhere.path
    assert_frame_equal(elsewhere.frames.collect(), cut_dataset.frames.collect())
    assert_frame_equal(elsewhere.trajectories, cut_dataset.trajectories)
    assert_frame_equal(elsewhere.quarantine, cut_dataset.quarantine)
    windows = elsewhere.sequences(length=10)
    assert_frame_equal(windows, cut_dataset.sequences(length=10))
    rows = [0, 57, windows.height - 1]
    assert (elsewhere.read(windows, rows) == cut_dataset.read(windows, rows)).all()
    split = next(iter(cut_dataset.manifest.protocol.splits))
    assert_frame_equal(elsewhere.protocol_positives("own", split), cut_dataset.protocol_positives("own", split))
    item, wanted = (dataset.stream(windows, seed=3)[7] for dataset in (elsewhere, cut_dataset))
    assert (item["frames"] == wanted["frames"]).all()


@pytest.mark.parametrize("elsewhere", ["http", "s3"], indirect=True)
def test_forked_loader_workers_read_from_a_url(elsewhere: seqdata.Dataset, cut_dataset: seqdata.Dataset) -> None:
    from torch.utils.data import DataLoader

    windows = elsewhere.sequences(length=3)[:24]
    elsewhere.read(windows, [0])  # the parent's connections are open when it forks
    stream = elsewhere.stream(windows, seed=5)
    loader = DataLoader(stream, batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60)
    batches = [batch["frames"].numpy() for batch in loader]
    elsewhere.read(windows, [1])  # and still good after it
    wanted = [item["frames"] for item in cut_dataset.stream(windows, seed=5)]
    assert (np.concatenate(batches) == np.stack(wanted)).all()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_a_build_to_a_url_is_the_build(kind: str, drives: Path, request: pytest.FixtureRequest) -> None:
    local: seqdata.Dataset = request.getfixturevalue("dataset")
    root = request.getfixturevalue("bucket") if kind == "s3" else "memory:/"
    url = f"{root}/{uuid.uuid4().hex}"
    build(BuildRequest("folder", drives, url, protocol=protocols.load("own"), workers=1))
    built = seqdata.open(url)
    assert built.id == local.id
    for name in ("frames.parquet", "shards/part-000000.tar"):
        assert built.store.read_bytes(name) == local.store.read_bytes(name)


def test_opening_reads_the_manifest_alone(server: FileServer) -> None:
    opened = seqdata.open(server.url)
    assert opened.manifest.counts.frames
    assert {request.path for request in server.requests} == {"/manifest.json", "/manifest.sha256"}
    assert len(server.asked()) == 2
    assert len(server.requests) <= 5, "the size and the bytes of each"


def test_a_table_comes_once_and_serves_the_next_dataset_too(server: FileServer, cache: Path) -> None:
    for _ in range(2):
        seqdata.open(server.url).sequences(length=4)
        assert len(server.asked("/frames.parquet")) == 1
    info = seqdata.open(server.url).manifest.tables["frames.parquet"]
    assert [path.name for path in (cache / "tables").iterdir()] == [f"{info.hash}.parquet"]
    assert not server.asked("/shards/"), "no pixels for a table of windows"


def test_a_table_that_is_damaged_on_the_way_never_stands_in_the_cache(server: FileServer, cache: Path) -> None:
    server.misbehave("cut", 2, path="frames.parquet")
    assert seqdata.open(Store(server.url, QUICK)).frames.collect().height, "two broken replies are asked again"
    shutil.rmtree(cache)
    server.misbehave("cut", 99, path="frames.parquet")
    with pytest.raises(InputError, match=r"frames\.parquet: .*not completed"):
        seqdata.open(Store(server.url, QUICK)).frames.collect()
    assert list((cache / "tables").iterdir()) == []


def test_a_table_of_other_bytes_is_refused(cut_dataset: seqdata.Dataset, cache: Path) -> None:
    place = Store(f"memory://{uuid.uuid4().hex}")
    copy_up(cut_dataset, place)
    data = bytearray(place.read_bytes("frames.parquet"))
    data[len(data) // 2] ^= 1
    with place.writing("frames.parquet") as temporary:
        temporary.write_bytes(data)
    with pytest.raises(ContractError, match=r"frames\.parquet: its bytes have changed"):
        seqdata.open(place).frames.collect()
    with place.writing("frames.parquet") as temporary:
        temporary.write_bytes(data[:-5])
    with pytest.raises(InputError, match=r"frames\.parquet: \d+ bytes, the manifest says \d+"):
        seqdata.open(place).frames.collect()
    place.remove("frames.parquet")
    with pytest.raises(InputError, match=r"frames\.parquet: the table is missing"):
        seqdata.open(place).frames.collect()
    assert list((cache / "tables").iterdir()) == []


def test_a_cached_table_that_was_cut_is_fetched_again(remote: seqdata.Dataset, cache: Path) -> None:
    whole = remote.frames.collect()
    (kept,) = (cache / "tables").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert_frame_equal(remote.frames.collect(), whole)


def test_a_hash_that_is_a_path_does_not_leave_the_cache(cut_dataset: seqdata.Dataset, cache: Path) -> None:
    place = Store(f"memory://{uuid.uuid4().hex}")
    manifest = json.loads((cut_dataset.path / "manifest.json").read_text())
    manifest["tables"]["frames.parquet"]["hash"] = "../../outside"
    with place.writing("manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest))
    with pytest.raises(ContractError, match="is not 32 hex digits"):
        seqdata.open(place).frames.collect()


def test_a_cache_that_cannot_be_written_is_named(
    remote: seqdata.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        remote.frames.collect()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == Path("/home/somebody/.cache/seqdata")


def test_a_window_costs_one_request_of_its_own_bytes(server: FileServer, remote: seqdata.Dataset) -> None:
    windows = remote.sequences(length=10)
    frames = remote.frame_columns("shard", "offset", "length")
    rows = remote.frame_rows(windows)
    one_shard = frames["shard"].to_numpy()[rows].min(axis=1) == frames["shard"].to_numpy()[rows].max(axis=1)
    for window in (int(np.flatnonzero(one_shard)[3]), int(np.flatnonzero(~one_shard)[0])):
        server.requests.clear()
        remote.read(windows, [window])
        wanted = (
            frames[rows[window]]
            .group_by("shard")
            .agg(pl.col("offset").min().alias("first"), (pl.col("offset") + pl.col("length")).max().alias("stop"))
        )
        expected = {(f"/shards/part-{shard:06d}.tar", (first, stop - 1)) for shard, first, stop in wanted.rows()}
        assert {(request.path, request.range) for request in server.requests} == expected
        assert len(server.requests) == len(expected), "one request a shard"
        assert sum(request.sent for request in server.requests) == int((wanted["stop"] - wanted["first"]).sum())


def test_small_gaps_are_read_through_and_large_ones_are_not(tmp_path: Path) -> None:
    offsets = np.array([512, 2000, 2100 + GAP_BYTES - 1, 2200 + 2 * GAP_BYTES + 300])
    lengths = np.array([100, 100, 100, 100])
    (tmp_path / "shards").mkdir()
    data = np.random.default_rng(1).integers(0, 256, offsets[-1] + 500, dtype=np.uint8).tobytes()
    (tmp_path / "shards" / "part-000000.tar").write_bytes(data)
    places = FrameLocations(np.zeros(4, dtype=np.int64), offsets, lengths, np.zeros((4, 16), dtype=np.uint8))
    with serve(tmp_path) as files:
        found = read_views(Store(files.url, QUICK), places, np.arange(4))
        assert [request.range for request in files.asked()] == [
            (offsets[0], offsets[2] + 99),
            (offsets[3], offsets[3] + 99),
        ]
    assert [bytes(found[row]) for row in range(4)] == [data[at : at + 100] for at in offsets]


@pytest.mark.parametrize("kind", ["status", "short", "cut", "reset", "wrong_range", "stall"])
def test_windows_come_right_from_a_server_that_stumbles(
    server: FileServer, cut_dataset: seqdata.Dataset, kind: str
) -> None:
    remote = seqdata.open(Store(server.url, Patience(tries=3, timeout=0.5 if kind == "stall" else 5.0, wait=0.001)))
    windows = cut_dataset.sequences(length=5)
    wanted = cut_dataset.read(windows, [4, 90])
    server.misbehave(kind, 2)
    assert (remote.read(windows, [4, 90]) == wanted).all()
    assert server.faults[0].times == 0
    server.misbehave(kind, 99, path=".tar")
    with pytest.raises(InputError, match=r"/shards/part-\d+\.tar: .*\(3 tries\)"):
        remote.read(windows, [4, 90])


def test_wrong_bytes_from_a_server_are_asked_for_again_and_never_shown(
    server: FileServer, cut_dataset: seqdata.Dataset
) -> None:
    place = Store(server.url, Patience(tries=3, timeout=5.0, wait=0.001))
    rows, windows = np.arange(12), cut_dataset.sequences(length=5)[:3]
    server.misbehave("flip", 2, path=".tar")
    assert (seqdata.open(place).read_frames(rows) == cut_dataset.read_frames(rows)).all()
    assert server.faults[0].times == 0
    server.misbehave("flip", 2, path=".tar")
    stream = seqdata.open(place).stream(windows, shuffle="none")
    assert (stream[0]["frames"] == cut_dataset.read(windows, [0])[0]).all()
    assert stream.bad == {}
    server.misbehave("flip", 999, path=".tar")
    with pytest.raises(
        DamagedFrameError, match=r"frame 0 \(\S+\) is damaged \(its bytes do not match the stored hash\)"
    ):
        seqdata.open(place).read_frames(rows)
    with pytest.raises(DamagedFrameError, match="do not match"):
        seqdata.open(place).frame_reader().encoded(rows)
    with pytest.raises(ContractError, match="no frame of the trajectory"):
        seqdata.open(place).stream(windows, shuffle="none")[0]


def test_a_manifest_and_tables_that_came_wrong_are_asked_for_again(
    server: FileServer, remote: seqdata.Dataset, cut_dataset: seqdata.Dataset
) -> None:
    for name in ("manifest.json", "manifest.sha256", "frames.parquet"):
        server.misbehave("flip", 2, path=name)
    opened = seqdata.open(Store(server.url, QUICK))
    assert opened.id == cut_dataset.id
    assert_frame_equal(opened.frames.collect(), cut_dataset.frames.collect())
    assert all(fault.times == 0 for fault in server.faults)
    for name in ("manifest.json", "frames.parquet"):
        server.faults.clear()
        shutil.rmtree(cache_folder(), ignore_errors=True)
        server.misbehave("flip", 999, path=name)
        with pytest.raises((ContractError, InputError), match=name):
            seqdata.open(Store(server.url, QUICK)).frames.collect()


def test_a_truncated_shard_is_named(cut_dataset: seqdata.Dataset) -> None:
    place = Store(f"memory://{uuid.uuid4().hex}")
    copy_up(cut_dataset, place)
    with place.writing("shards/part-000001.tar") as temporary:
        temporary.write_bytes((cut_dataset.path / "shards" / "part-000001.tar").read_bytes()[:5000])
    opened = seqdata.open(place)
    row = opened.frame_columns("shard")["shard"].to_list().index(1) + 20
    with pytest.raises(InputError, match=r"part-000001\.tar: .* the file ends at 5000: it is truncated"):
        opened.read_frames([row])


def test_what_is_no_dataset_at_a_url(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: no dataset here"):
        seqdata.open(f"{server.url}/nothing")
    with pytest.raises(InputError, match=r"memory://nothing-there: no dataset here"):
        seqdata.open("memory://nothing-there")
    place = Store(f"memory://{uuid.uuid4().hex}")
    with place.writing("shards/part-000000.tar") as temporary:
        temporary.write_bytes(b"")
    with pytest.raises(InputError, match="the build is unfinished"):
        seqdata.open(place)


def test_verify_streams_a_remote_dataset(server: FileServer, cut_dataset: seqdata.Dataset) -> None:
    assert list(verify.verify(server.url)) == []
    place = Store(f"memory://{uuid.uuid4().hex}")
    copy_up(cut_dataset, place)
    data = bytearray(place.read_bytes("shards/part-000001.tar"))
    frame = cut_dataset.frames.filter(pl.col("shard") == 1).collect().row(30, named=True)
    data[frame["offset"] + 9] ^= 1
    with place.writing("shards/part-000001.tar") as temporary:
        temporary.write_bytes(data)
    faults = list(verify.verify(str(place)))
    assert [(fault.file, fault.key) for fault in faults] == [("shards/part-000001.tar", frame["key"])]


def test_places_are_filled_a_row_group_at_a_time(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rng = np.random.default_rng(2)
    table = pl.DataFrame({
        "shard": rng.integers(0, 9, 1000).astype(np.int32),
        "offset": rng.integers(0, 1 << 40, 1000),
        "length": rng.integers(1, 1 << 20, 1000).astype(np.int32),
        "hash": [rng.bytes(16) for _ in range(1000)],
    })  # fmt: skip
    pq.write_table(table.to_arrow(), tmp_path / "frames.parquet", row_group_size=300)
    lazy = LazyLocations(SegmentedTable((tmp_path / "frames.parquet",), ()))
    for rows in ([299, 300], [999], []):
        found = lazy.covering(np.array(rows, dtype=np.int64))
        for name in ("shard", "offset", "length"):
            assert (getattr(found, name)[rows] == table[name].to_numpy()[rows]).all()
        assert [found.hash[row].tobytes() for row in rows] == [table["hash"][row] for row in rows]
    assert not found.length[600:900].any(), "a group that nobody asked for"
    assert (lazy.all().length == table["length"].to_numpy()).all()
    for row in (-1, 1000):
        with pytest.raises(IndexError, match="1000"):
            lazy.covering(np.array([row]))
    (tmp_path / "frames.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ContractError, match=r"frames\.parquet: not readable as Parquet"):
        LazyLocations(SegmentedTable((tmp_path / "frames.parquet",), ()))
    write_parquet_atomic(table.head(0), tmp_path / "frames.parquet")
    assert len(LazyLocations(SegmentedTable((tmp_path / "frames.parquet",), ())).all().shard) == 0

"""The engines: array jobs and merge, Ray, object stores, locks, dropping, the dry run. One build, the same bytes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import polars as pl
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, ShardRange, build, build_range, merge
from seqdata.build.dry_run import plan_build
from seqdata.contracts.manifest import BuildSettings
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.storage.lock import Holder, claimed
from seqdata.storage.store import Store
from tests.conftest import write_drives

Files = Callable[[Path], dict[str, bytes]]
SMALL = BuildSettings(shard_bytes=1 << 16)


def request(raw: Path, out: str | Path, **changes: object) -> BuildRequest:
    values = {"settings": SMALL, "protocol": protocols.load("own"), **changes}
    return BuildRequest("folder", raw, out, **values)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database drive over several shards and a query drive, half a metre between frames."""
    raw = write_drives(tmp_path_factory.mktemp("street") / "raw", {"map": 150, "query": 60}, step=0.7)
    (raw / "map-017.jpg").write_bytes(b"")
    return raw


@pytest.fixture(scope="module")
def plain(street: Path, tmp_path_factory: pytest.TempPathFactory, files_of: Files) -> dict[str, bytes]:
    """The bytes of an unbroken local build of the street."""
    out = tmp_path_factory.mktemp("plain") / "out"
    build(request(street, out))
    return files_of(out)


def test_array_jobs_and_merge_give_the_bytes_of_one_build(
    street: Path, plain: dict[str, bytes], tmp_path: Path, files_of: Files
) -> None:
    out = tmp_path / "out"
    counts = [build_range(request(street, out), ShardRange(number, 3)) for number in (3, 1)]
    with pytest.raises(InputError, match=r"unfinished"):
        seqdata.open(out)
    with pytest.raises(InputError, match=r"shards are missing \(part-000001.tar"):
        merge(out)
    counts.append(build_range(request(street, out), ShardRange.parse("2/3")))
    assert sum(counts) == sum(name.endswith(".tar") for name in plain)
    assert min(counts) > 0
    manifest = merge(out)
    assert files_of(out) == plain
    assert merge(out) == manifest, "merging again is nothing"
    assert build_range(request(street, out), ShardRange(1, 3)) == counts[1]
    assert files_of(out) == plain


def test_array_jobs_at_once(street: Path, plain: dict[str, bytes], tmp_path: Path, files_of: Files) -> None:
    out = tmp_path / "out"
    with claimed(Store(out), "another job", "1-of-3"):
        build_range(request(street, out), ShardRange(2, 3))
        build_range(request(street, out), ShardRange(3, 3))
        with pytest.raises(OutputError, match="another job"):
            build_range(request(street, out), ShardRange(1, 3))
        with pytest.raises(OutputError, match="is building here"):
            build(request(street, out))
        with pytest.raises(OutputError, match="another job"):
            merge(out)
    build(request(street, out))
    assert files_of(out) == plain, "a plain build takes what the jobs have sealed"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/2", "a/b", "1/2/3", ""])
def test_a_wrong_shard_range_is_named(text: str) -> None:
    with pytest.raises(ContractError, match="such as 2/8"):
        ShardRange.parse(text)


def test_merge_needs_something_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset here"):
        merge(tmp_path)


def test_ray_gives_the_same_bytes(
    street: Path, plain: dict[str, bytes], tmp_path: Path, files_of: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local cluster of two CPUs is started for the build and ended with it; one that is there is used and stays."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    build(request(street, tmp_path / "out", engine="ray", workers=2))
    assert files_of(tmp_path / "out") == plain
    assert not ray.is_initialized()

    class Remote:
        def __init__(self, function: Callable[[object], object]) -> None:
            self.remote = function

    asked: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lambda **_: Remote)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "wait", lambda flying: (asked.append(f"{len(flying)}"), (flying[:1], flying[1:]))[1])
    monkeypatch.setattr(ray, "get", lambda done: done)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("a second cluster"))
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("another's cluster was ended"))
    build(request(street, tmp_path / "there", engine="ray", workers=2))
    assert files_of(tmp_path / "there") == plain
    assert max(asked) == "2", "at most two tasks a CPU are in flight"


def test_an_error_on_ray_is_the_same_error(street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that fails with an error of ours ends the build with it, not with a wrapper."""
    from seqdata.parallel import ray_engine

    class Fake:
        class exceptions:
            class RayError(Exception): ...

            class RayTaskError(RayError):
                cause = OutputError("disk full")

        @classmethod
        def get(cls, _: object) -> object:
            raise cls.exceptions.RayTaskError("traceback\nof a worker")

    with pytest.raises(OutputError, match="disk full"):
        list(ray_engine._results(Fake, [1]))
    monkeypatch.setattr(Fake.exceptions.RayTaskError, "cause", ValueError("a defect"))
    with pytest.raises(Exception, match="traceback"):
        list(ray_engine._results(Fake, [1]))


def test_without_ray_the_install_is_named(street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seqdata.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ray>=2.9'"):
        build(request(street, tmp_path / "out", engine="ray"))
    with pytest.raises(ContractError, match="pool or ray"):
        build(request(street, tmp_path / "out", engine="spark"))


def _objects(url: str) -> dict[str, bytes]:
    """All objects below a URL: relative name → bytes."""
    filesystem, base = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    base = base.rstrip("/") + "/"
    return {name.removeprefix(base): filesystem.cat_file(name) for name in filesystem.find(base)}


def test_a_build_into_memory(street: Path, plain: dict[str, bytes]) -> None:
    url = "memory://engine/out"
    build(request(street, url, workers=2))
    assert _objects(url) == plain
    opened = seqdata.open(url)
    assert opened.read(opened.sequences(length=5), [3]).shape[:3] == (1, 5, 3)
    with pytest.raises(OutputError, match="another dataset"):
        build(request(street, url, settings=BuildSettings()))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A URL in a bucket of moto's S3 server on loopback."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("engine")
    yield "s3://engine"
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()


def test_a_build_into_s3(street: Path, plain: dict[str, bytes], bucket: str) -> None:
    url = f"{bucket}/plain"
    build(request(street, url, workers=2))
    assert _objects(url) == plain
    assert seqdata.open(url).manifest.counts.frames == 209


def test_array_jobs_into_s3_and_its_locks(street: Path, plain: dict[str, bytes], bucket: str) -> None:
    url = f"{bucket}/jobs"
    for number in (2, 1):
        build_range(request(street, url), ShardRange(number, 2))
    with claimed(Store(url), "somebody else's drives"):
        with pytest.raises(OutputError, match=rf"process {os.getpid()} of .*somebody else's drives.*delete {url}"):
            merge(url)
        with pytest.raises(OutputError, match="is building here"):
            build_range(request(street, url), ShardRange(1, 2))
    dead = replace(Holder.me("a dead build"), beat=0.0)
    with fsspec.open(f"{url}/.build.lock", "wb") as file:
        file.write(dead.encode())
    merge(url)
    assert _objects(url) == plain


def test_parts_and_wholes_shut_each_other_out_on_an_object_store() -> None:
    store = Store("memory://engine/locks")
    with claimed(store, "job one", "1-of-2"), claimed(store, "job two", "2-of-2"):
        for part, words in (("", "job one"), ("2-of-2", "job two")):
            with pytest.raises(OutputError, match=words), claimed(store, "third", part):
                pass
    with claimed(store, "all of it"), pytest.raises(OutputError, match="all of it"), claimed(store, "x", "1-of-2"):
        pass
    assert store.names() == []


def test_the_second_of_two_builds_is_told_who_the_first_is(street: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import sys, time\nfrom seqdata.storage.lock import claimed\nfrom seqdata.storage.store import Store\n"
        "with claimed(Store(sys.argv[1]), 'msls from /data/msls'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(OutputError) as refused:
            build(request(street, out))
        words = (str(first.pid), socket.gethostname(), "msls from /data/msls", "since 20", "choose another --out")
        assert all(word in str(refused.value) for word in words), refused.value
        first.kill()
    build(request(street, out))
    assert not (out / ".build.lock").exists()


def test_a_lock_file_that_vanished_while_we_waited_is_no_lock(tmp_path: Path) -> None:
    """The holder removes the file when it ends: whoever opened it before must not believe to hold the new one."""
    from seqdata.storage import lock

    store = Store(tmp_path)
    with claimed(store, "first"):
        (tmp_path / ".build.lock").unlink()
        with claimed(store, "second"), pytest.raises(OutputError, match="second"), claimed(store, "third"):
            pass
    assert not (tmp_path / lock.LOCK_NAME).exists()


@pytest.mark.parametrize("rule", ["greedy", "arc"])
def test_dropping_changes_no_window_of_the_rule(rule: str, tmp_path: Path) -> None:
    """A build with drop holds the windows at 2 m of a build without, frame for frame and number for number."""
    street = write_drives(tmp_path / "raw", {"map": 150, "query": 60}, step=0.7)
    settings = BuildSettings(shard_bytes=1 << 16, resample_rule=rule)
    build(request(street, tmp_path / "all", settings=settings))
    build(request(street, tmp_path / "few", settings=settings.model_copy(update={"drop": True})))
    whole, few = seqdata.open(tmp_path / "all"), seqdata.open(tmp_path / "few")
    for length in (1, 4, 5):
        found = []
        for opened in (whole, few):
            table = opened.sequences(length=length, spacing=2.0)
            keys = opened.frame_columns("key")["key"].to_numpy()[opened.frame_rows(table)].tolist()
            found.append((keys, opened.places(table).drop("first", "centre").to_dicts()))
        assert found[0] == found[1]
        assert len(found[0][0]) > 20
    same = ["key", "position", "track_m", "heading", "resampled", "hash", "easting"]
    flagged = whole.frames.filter("resampled").select(same).collect()
    assert few.frames.select(same).collect().equals(flagged)
    assert few.manifest.counts.quarantined == {"not_resampled": 210 - flagged.height}
    bytes_ = [sum(shard.bytes for shard in opened.manifest.shards) for opened in (whole, few)]
    assert bytes_[1] < bytes_[0] / 2


@pytest.mark.parametrize("drop", [False, True])
def test_the_dry_run_says_what_the_build_does(drop: bool, tmp_path: Path) -> None:
    street = write_drives(tmp_path / "raw", {"map": 150, "query": 60}, step=0.7)
    (street / "stray.jpg").write_bytes(b"x")
    asked = request(street, tmp_path / "out", settings=SMALL.model_copy(update={"drop": drop}))
    plan = plan_build(asked)
    assert not (tmp_path / "out").exists()
    json.dumps(plan.as_dict())
    manifest = build(asked)
    opened = seqdata.open(tmp_path / "out")
    counts = manifest.counts
    assert (plan.frames, plan.trajectories) == (counts.frames, counts.trajectories)
    assert plan.left_out == counts.quarantined
    assert (plan.shards, plan.sample, plan.sample_bad) == (len(manifest.shards), 32, 0)
    assert plan.windows == {
        "test": {role: opened.sequences("own", "test", role).height for role in ("database", "query")}
    }
    assert plan.resampled == opened.frames.filter("resampled").collect().height
    assert plan.stored_bytes == pytest.approx(sum(shard.bytes for shard in manifest.shards), rel=0.25)
    assert 0 < plan.table_bytes < plan.stored_bytes
    (street / "map-000.jpg").write_bytes(b"")
    assert plan_build(replace(asked, workers=2)).sample_bad == 1


def test_shrunk_images(street: Path, tmp_path: Path) -> None:
    settings = BuildSettings(short_side=16, quality=80)
    build(request(street, tmp_path / "out", settings=settings))
    sizes = seqdata.open(tmp_path / "out").frames.select("width", "height").unique().collect()
    assert sizes.rows() == [(21, 16)]


def test_frames_of_any_number_of_shards_give_whole_trajectories() -> None:
    from seqdata.build.tables import by_trajectory

    names = ["a"] * 5 + ["b"] * 2 + ["c"] * 9 + ["d"]
    table = pl.DataFrame({"trajectory": names, "row": range(len(names))})
    for cut in range(1, 8):
        for rows in (1, 3, 6, 100):
            shards = [table[at : at + cut] for at in range(0, len(names), cut)]
            parts = list(by_trajectory([*shards, table[:0]], rows))
            assert pl.concat(parts).equals(table)
            met = [name for part in parts for name in part["trajectory"].unique(maintain_order=True)]
            assert met == ["a", "b", "c", "d"], "a trajectory stands in one part"
            assert len(parts) == 1 if rows > len(names) else len(parts) > 1

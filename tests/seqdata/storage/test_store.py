"""Stores: the same answers from a folder, memory:// and S3; whole writes, retries, and what a user is told."""

import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from seqdata.errors import InputError, MissingDependencyError, OutputError
from seqdata.storage import remote
from seqdata.storage.hashing import xxh3_file, xxh3_hex
from seqdata.storage.remote import Patience, without_password
from seqdata.storage.store import Store
from tests.support.serving import serve_s3

QUICK = Patience(tries=3, timeout=5.0, wait=0.001)
DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An empty bucket of moto's S3."""
    with pytest.MonkeyPatch.context() as patch, serve_s3(patch, "frames") as url:
        yield url


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}", QUICK)
    return Store(tmp_path / "store" if request.param == "local" else f"memory://{uuid.uuid4().hex}", QUICK)


def put(store: Store, name: str, data: bytes) -> None:
    with store.writing(name) as temporary:
        temporary.write_bytes(data)


def test_what_is_written_is_read_listed_and_removed(store: Store) -> None:
    put(store, "shards/b.tar", DATA)
    put(store, "shards/a.tar", b"")
    put(store, "top.json", b'{"a": [1]}')
    assert store.read("shards/b.tar", 100, 500) == DATA[100:600]
    assert store.read("shards/b.tar", len(DATA) - 1, 1) == DATA[-1:]
    assert store.read("shards/b.tar", 0, 0) == b""
    assert (store.read_bytes("shards/b.tar"), store.read_bytes("shards/a.tar")) == (DATA, b"")
    assert store.read_json("top.json") == {"a": [1]}
    assert (store.size("shards/b.tar"), store.size("shards/a.tar")) == (len(DATA), 0)
    assert store.names("shards") == ["shards/a.tar", "shards/b.tar"]
    assert store.names() == ["top.json"]
    put(store, "shards/b.tar", b"another")
    assert (store.size("shards/b.tar"), store.read_bytes("shards/b.tar")) == (7, b"another")
    store.remove("shards/b.tar")
    store.remove("shards/b.tar")
    assert store.names("shards") == ["shards/a.tar"]


def test_what_is_absent(store: Store) -> None:
    assert (store.size("none"), store.names("none"), store.names()) == (None, [], [])
    put(store, "shards/a.tar", DATA)
    assert store.size("shards") is None, "a folder is no file"
    for read in (store.read_bytes, lambda name: store.read(name, 0, 5)):
        with pytest.raises(InputError, match=r"/none: no such file"):
            read("none")


@pytest.mark.parametrize("offset", [len(DATA) - 3, len(DATA), len(DATA) + 9])
def test_a_truncated_file_is_named_with_its_end(store: Store, offset: int) -> None:
    put(store, "a.tar", DATA)
    with pytest.raises(InputError, match=rf"a\.tar: 5 bytes wanted at {offset}, the file ends at {len(DATA)}"):
        store.read("a.tar", offset, 5)


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    put(store, "a.json", b"old")
    with pytest.raises(ValueError, match="in the middle"), store.writing("a.json") as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("in the middle")
    assert (store.read_bytes("a.json"), store.names()) == (b"old", ["a.json"])


def test_what_is_no_json_is_named(store: Store) -> None:
    put(store, "a.json", b"{")
    with pytest.raises(InputError, match=r"a\.json: not readable as JSON"):
        store.read_json("a.json")


def test_a_store_is_picklable_and_keeps_its_patience(store: Store) -> None:
    put(store, "a", DATA)
    again = pickle.loads(pickle.dumps(store))
    assert (again.read("a", 5, 5), again.patience, str(again)) == (DATA[5:10], QUICK, str(store))


def test_large_objects_go_up_in_parts(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    data = os.urandom(1 << 20) * 11
    place = Store(f"{bucket}/large", QUICK)
    put(place, "a.tar", data)
    assert place.size("a.tar") == len(data)
    assert place.read("a.tar", 9 << 20, 100) == data[9 << 20 : (9 << 20) + 100]


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    place = Store("s3://nobody-has-this/x", QUICK)
    with pytest.raises(OutputError, match=r"s3://nobody-has-this/x/a: cannot be written: no such bucket"):
        put(place, "a", DATA)
    with pytest.raises(InputError, match="no such file"):
        place.read("a", 0, 1)


def test_a_url_that_went_through_a_path_is_still_a_url(tmp_path: Path) -> None:
    assert Store(Path("s3://bucket/x")).root == "s3://bucket/x"
    assert Store(Path("https://host/x")).root == "https://host/x"
    assert Store("s3://bucket/x").root == "s3://bucket/x"
    for local in (f"file://{tmp_path}", Path(f"file://{tmp_path}"), tmp_path, str(tmp_path)):
        assert (Store(local).root, Store(local).is_local) == (str(tmp_path), True)


def test_only_a_local_store_has_paths(tmp_path: Path) -> None:
    assert Store(tmp_path).path("a") == tmp_path / "a"
    with pytest.raises(InputError, match="memory://x: is not a local folder"):
        Store("memory://x").path("a")


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host/x") == "https://me:***@host/x"
    assert without_password("s3://bucket/a:b@c") == "s3://bucket/a:b@c"
    place = Store("http://me:secret@127.0.0.1:9/x", Patience(tries=1, timeout=2.0))
    with pytest.raises(InputError) as caught:
        place.read("a", 0, 1)
    assert "secret" not in str(caught.value)
    assert "http://me:***@127.0.0.1:9/x/a" in str(caught.value)


def test_http_is_read_only() -> None:
    with pytest.raises(OutputError, match="read-only"), Store("http://127.0.0.1:9/x").writing("a"):
        raise AssertionError("nothing is prepared for a store that cannot take it")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, module, install in (
        ("s3://no-package/x", "s3fs", r"pip install 's3fs>=2024.6'"),
        ("gs://no-package/x", "gcsfs", r"pip install 'gcsfs>=2024.6'"),
        ("http://no-package/x", "aiohttp", r"pip install 'aiohttp>=3.9'"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, "seqdata.storage.http", raising=False)
        monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition(":")[0], raising=False)
        with pytest.raises(MissingDependencyError, match=install):
            Store(url).size("a")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(InputError, match="nonsense://x: not a URL"):
        Store("nonsense://x").size("a")


class Flaky:
    """A method of the memory file system that fails `times` times."""

    def __init__(self, patch: pytest.MonkeyPatch, method: str, times: int, error: Exception) -> None:
        self.calls, self.times, self.error = 0, times, error
        real = getattr(MemoryFileSystem, method)

        def flaky(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.calls <= self.times:
                raise self.error
            return real(*arguments, **options)

        patch.setattr(MemoryFileSystem, method, flaky)


def test_an_upload_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Store(f"memory://{uuid.uuid4().hex}", QUICK)
    flaky = Flaky(monkeypatch, "put_file", 2, ConnectionResetError("reset"))
    put(place, "a", DATA)
    assert (flaky.calls, place.read_bytes("a"), place.names()) == (3, DATA, ["a"])
    flaky.calls, flaky.times = 0, 99
    with pytest.raises(OutputError, match=r"/b: ConnectionResetError: reset \(3 tries\)"):
        put(place, "b", DATA)
    assert (flaky.calls, place.names()) == (3, ["a"])


def test_an_upload_that_arrives_short_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Store(f"memory://{uuid.uuid4().hex}", QUICK)
    whole = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem, "put_file", lambda self, local, at: whole(self, Path(local).with_name("cut"), at)
    )
    with (
        pytest.raises(OutputError, match=r"10240 bytes were sent, 7 are stored \(3 tries\)"),
        place.writing("a") as path,
    ):
        path.write_bytes(DATA)
        path.with_name("cut").write_bytes(DATA[:7])


def test_waits_double_and_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    Flaky(monkeypatch, "cat_file", 99, OSError("away"))
    place = Store(f"memory://{uuid.uuid4().hex}", Patience(tries=5, wait=1.0))
    put(place, "a", DATA)
    with pytest.raises(InputError, match=r"OSError: away \(5 tries\); try again later"):
        place.read("a", 0, 5)
    assert len(waits) == 4
    for number, wait in enumerate(waits):
        assert 0.5 * 2**number <= wait <= 1.5 * 2**number


def test_a_defect_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, "cat_file", 99, TypeError("ours"))
    place = Store(f"memory://{uuid.uuid4().hex}", QUICK)
    put(place, "a", DATA)
    with pytest.raises(TypeError, match="ours"):
        place.read("a", 0, 5)
    assert flaky.calls == 1


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "a").write_bytes(data)
    assert xxh3_file(tmp_path / "a") == xxh3_hex(data)


def test_importing_stays_light() -> None:
    code = "import seqdata.dataset.dataset, sys; print([m for m in ('aiohttp', 's3fs', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""Every way a server can misbehave ends in the right bytes or in one line that names the file, in bounded time."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqdata.errors import InputError
from seqdata.storage import http as remote_http
from seqdata.storage.remote import Patience
from seqdata.storage.store import Store
from tests.support.serving import FileServer, serve
from tests.support.serving.s3 import s3_environment

pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install 'aiohttp>=3.9')")

DATA = bytes(range(256)) * 40
QUICK = Patience(tries=3, timeout=5.0, wait=0.001)
BRISK = Patience(tries=3, timeout=0.5, wait=0.001)
"""For servers that stall: every try takes that long."""
STALLS = ("stall", "trickle")
PASSING = ("status", "short", "cut", "stall", "trickle", "reset", "wrong_range")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A server of one file, frames/a.bin."""
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.bin").write_bytes(DATA)
    with serve(tmp_path) as files:
        yield files


@pytest.fixture
def store(server: FileServer) -> Store:
    return Store(f"{server.url}/frames/", QUICK)


@pytest.fixture
def s3_store(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same file through an S3 client: S3's reads are ranged GETs of bucket/key."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 's3fs>=2024.6')")
    s3_environment(monkeypatch, server.url)
    bucket = f"frames-{uuid.uuid4().hex}"  # clients are kept by root, and this one belongs to this server
    (server.folder / bucket).symlink_to(server.folder / "frames")
    return Store(f"s3://{bucket}", QUICK)


def test_a_ranged_read_asks_for_its_range_alone(server: FileServer, store: Store) -> None:
    assert store.read("a.bin", 100, 500) == DATA[100:600]
    assert [(request.range, request.sent) for request in server.requests] == [((100, 599), 500)]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", PASSING)
def test_faults_that_pass_end_in_the_right_bytes(server: FileServer, store: Store, kind: str, times: int) -> None:
    server.misbehave(kind, times)
    store.patience = BRISK if kind in STALLS else QUICK
    assert store.read("a.bin", 100, 500) == DATA[100:600]
    assert server.faults[0].times == 0, "the fault was met"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("status", "the server answered 503"),
        ("short", "500 bytes wanted at 100, only 437 came"),
        ("cut", "payload is not completed"),
        ("stall", r"stalled \(no answer within 0.5 s"),
        ("trickle", r"stalled \(no answer within 0.5 s"),
        ("reset", "reset by peer"),
        ("wrong_range", "bytes 100-599 wanted, the server sent the range 'bytes 107-606/10240'"),
    ],
)
def test_faults_that_stay_are_named_in_bounded_time(server: FileServer, store: Store, kind: str, words: str) -> None:
    server.misbehave(kind, 99)
    store.patience = BRISK if kind in STALLS else QUICK
    started = time.monotonic()
    with pytest.raises(
        InputError, match=rf"^{server.url}/frames/a\.bin: .*{words}.* \(3 tries\); try again later"
    ) as met:
        store.read("a.bin", 100, 500)
    assert time.monotonic() - started < 3 * BRISK.timeout + 5.0
    assert "\n" not in str(met.value)
    server.faults.clear()
    assert store.read("a.bin", 100, 500) == DATA[100:600], "the store can be used again"


def test_a_short_reply_is_asked_for_its_rest(server: FileServer, store: Store) -> None:
    server.misbehave("short", 2)
    assert store.read("a.bin", 100, 500) == DATA[100:600]
    assert [request.range for request in server.asked()] == [(100, 599), (350, 599), (475, 599)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 504])
def test_statuses_that_pass(server: FileServer, store: Store, status: int) -> None:
    server.misbehave("status", 1, status=status)
    assert store.read("a.bin", 0, 10) == DATA[:10]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the server answered 401 .*credentials"),
        (403, "the server answered 403 .*credentials"),
        (404, r"a\.bin: no such file"),
        (400, "the server answered 400 .*refuses this request"),
    ],
)
def test_answers_that_will_not_change_are_not_asked_again(
    server: FileServer, store: Store, status: int, words: str
) -> None:
    server.misbehave("status", 1, status=status)
    with pytest.raises(InputError, match=words):
        store.read("a.bin", 0, 10)
    assert len(server.requests) == 1


def test_a_server_without_ranges(server: FileServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    server.misbehave("whole", 2)
    assert store.read("a.bin", 100, 500) == DATA[100:600]
    monkeypatch.setattr(remote_http, "WHOLE_BYTES", len(DATA) - 1)
    with pytest.raises(InputError, match=r"a\.bin: the server ignores byte ranges .*answers byte ranges"):
        store.read("a.bin", 100, 500)
    assert len(server.requests) == 2


def test_a_truncated_object_is_named_without_waiting(server: FileServer, store: Store) -> None:
    (server.folder / "frames" / "a.bin").write_bytes(DATA[:300])
    with pytest.raises(InputError, match=r"500 bytes wanted at 100, the file ends at 300: it is truncated"):
        store.read("a.bin", 100, 500)
    with pytest.raises(InputError, match=r"500 bytes wanted at 400, the file ends at 300: it is truncated"):
        store.read("a.bin", 400, 500)
    assert len(server.asked()) == 2


def test_sizes_tell_absent_from_away(server: FileServer, store: Store) -> None:
    assert (store.size("a.bin"), store.size("none")) == (len(DATA), None)
    server.misbehave("no_head", 1)
    assert store.size("a.bin") == len(DATA), "where HEAD is not allowed, one byte tells the size"
    server.misbehave("no_head", 3)
    server.misbehave("status", 3)
    with pytest.raises(InputError, match="the server answered 503"):
        store.size("a.bin")


def test_nobody_listens() -> None:
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/x/a: .*Cannot connect.* \(3 tries\)"):
        Store("http://127.0.0.1:9/x", QUICK).read("a", 0, 5)


@pytest.mark.parametrize("kind", ["status", "short", "cut", "stall", "reset"])
def test_s3_faults_end_in_the_right_bytes_or_an_error(server: FileServer, s3_store: Store, kind: str) -> None:
    server.misbehave(kind, 1)
    s3_store.patience = BRISK if kind in STALLS else QUICK
    assert s3_store.read("a.bin", 100, 500) == DATA[100:600]
    server.misbehave(kind, 99)
    before = len(server.asked())
    with pytest.raises(InputError, match=r"s3://frames[^:]*/a\.bin: .* \(3 tries\)"):
        s3_store.read("a.bin", 100, 500)
    assert len(server.asked()) - before <= 6, "no layer below tries again on its own"


def test_s3_says_what_is_not_allowed(server: FileServer, s3_store: Store) -> None:
    server.misbehave("status", 1, status=403)
    with pytest.raises(InputError, match=r"not allowed.*credentials"):
        s3_store.read("a.bin", 0, 5)
    assert len(server.asked()) == 1


def test_s3_without_ranges_is_refused(server: FileServer, s3_store: Store) -> None:
    server.misbehave("whole", 1)
    with pytest.raises(InputError, match="5 bytes wanted at 100, 10240 came: it ignores byte ranges"):
        s3_store.read("a.bin", 100, 5)

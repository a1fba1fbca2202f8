"""A dataset on S3 behind a proxy that fails: what is read and written is right, or one line names the file."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

import seqdata
from seqdata.errors import OutputError, SeqdataError
from seqdata.frames.reader import DamagedFrameError
from seqdata.storage.remote import Patience
from seqdata.storage.store import Store
from tests.support.serving import serve_s3
from tests.support.serving.proxy import Proxy, serve_proxy
from tests.support.serving.s3 import s3_environment

ROWS = np.arange(6)


@pytest.fixture(scope="module")
def proxied(cut_dataset: seqdata.Dataset) -> Iterator[tuple[Proxy, str]]:
    """A bucket with a copy of the dataset, and the proxy that stands before it."""
    with pytest.MonkeyPatch.context() as patch, serve_s3(patch, "proxied") as url:
        # Another root than the one below: a process makes one client a root, and this one goes past the proxy.
        place = Store(url)
        for path in sorted(cut_dataset.path.rglob("*")):
            if path.is_file():
                with place.writing(f"set/{path.relative_to(cut_dataset.path).as_posix()}") as temporary:
                    temporary.write_bytes(path.read_bytes())
        with serve_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
            s3_environment(patch, proxy.url)
            yield proxy, f"{url}/set"


def store_of(url: str, kind: str) -> Store:
    return Store(url, Patience(tries=3, timeout=1.0 if kind == "stall" else 10.0, wait=0.001))


@pytest.mark.parametrize("kind", ["status", "cut", "reset", "stall", "flip"])
def test_frames_come_right_from_s3_that_stumbles(
    proxied: tuple[Proxy, str], cut_dataset: seqdata.Dataset, kind: str
) -> None:
    proxy, url = proxied
    opened = seqdata.open(store_of(url, kind))
    expected = cut_dataset.read_frames(ROWS)
    assert (opened.read_frames(ROWS) == expected).all()
    proxy.misbehave(kind, "GET", 2, ".tar")
    assert (opened.read_frames(ROWS) == expected).all()
    assert proxy.faults[-1][2] == 0
    proxy.misbehave(kind, "GET", 999, ".tar")
    refused: type[SeqdataError] = DamagedFrameError if kind == "flip" else SeqdataError
    with pytest.raises(refused, match=r"frame 0 .* is damaged" if kind == "flip" else r"part-\d+\.tar: .*\(3 tries\)"):
        opened.read_frames(ROWS)
    proxy.faults.clear()


def test_tables_and_manifests_from_s3_are_never_wrong(
    proxied: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    proxy, url = proxied
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    proxy.misbehave("flip", "GET", 999, "frames.parquet")
    # botocore compares a checksum of whole objects by itself; replies to ranges have none.
    with pytest.raises(SeqdataError, match=r"frames\.parquet: .*(checksum|its bytes have changed)"):
        seqdata.open(store_of(url, "flip")).frame_columns("key")
    proxy.misbehave("flip", "GET", 999, "manifest.json")
    with pytest.raises(SeqdataError, match=r"manifest\.json"):
        seqdata.open(store_of(url, "flip"))
    proxy.faults.clear()


@pytest.mark.parametrize("kind", ["status", "reset", "stall"])
def test_objects_are_written_to_s3_that_stumbles(proxied: tuple[Proxy, str], kind: str) -> None:
    proxy, url = proxied
    place = store_of(url, kind)
    data = np.random.default_rng(0).bytes(50_000)
    proxy.misbehave(kind, "PUT", 2)
    with place.writing(f"written-{kind}") as temporary:
        temporary.write_bytes(data)
    assert proxy.faults[-1][2] == 0
    assert place.read_bytes(f"written-{kind}") == data
    proxy.misbehave(kind, "PUT", 999)
    with (
        pytest.raises(OutputError, match=rf"refused-{kind}: .*\(3 tries\)"),
        place.writing(f"refused-{kind}") as temporary,
    ):
        temporary.write_bytes(data)
    proxy.faults.clear()
    assert place.size(f"refused-{kind}") is None

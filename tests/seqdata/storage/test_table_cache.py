"""The cache of remote tables: fetched once in blocks, never read beyond the end, refused when the bytes differ."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seqdata.errors import ContractError, InputError
from seqdata.storage import table_cache
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.store import Store
from seqdata.storage.table_cache import cache_folder, local_table

DATA = bytes(range(250)) * 4


@dataclass(frozen=True)
class Entry:
    bytes: int = len(DATA)
    hash: str = xxh3_hex(DATA)


class Counted(Store):
    """A store that notes what is read of it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reads: list[tuple[int, int]] = []

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return super().read(name, offset, length)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counted:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(table_cache, "FETCH_BYTES", 300)
    store = Counted(f"memory://{uuid.uuid4().hex}")
    with store.writing("frames.parquet") as temporary:
        temporary.write_bytes(DATA)
    return store


def test_a_table_is_fetched_once_in_blocks_that_end_with_it(store: Counted) -> None:
    path = local_table(store, "frames.parquet", Entry())
    assert path == cache_folder() / "tables" / f"{Entry().hash}.parquet"
    assert path.read_bytes() == DATA
    assert store.reads == [(0, 300), (300, 300), (600, 300), (900, 100)]
    assert local_table(store, "frames.parquet", Entry()) == path
    assert len(store.reads) == 4


def test_a_copy_of_another_size_is_fetched_again(store: Counted) -> None:
    path = local_table(store, "frames.parquet", Entry())
    path.write_bytes(DATA[:-1])
    assert local_table(store, "frames.parquet", Entry()).read_bytes() == DATA
    assert len(store.reads) == 8


def test_a_damaged_copy_is_fetched_again(store: Counted) -> None:
    path = local_table(store, "frames.parquet", Entry())
    path.write_bytes(DATA[:-1] + b"?")
    assert local_table(store, "frames.parquet", Entry()).read_bytes() == DATA
    assert len(store.reads) == 8


@pytest.mark.parametrize(
    ("entry", "error", "words"),
    [
        (Entry(hash=xxh3_hex(b"other")), ContractError, "its bytes have changed"),
        (Entry(hash="../" + "0" * 29), ContractError, "not 32 hex digits"),
        (Entry(bytes=999), InputError, "1000 bytes, the manifest says 999"),
    ],
)
def test_what_does_not_fit_the_manifest_leaves_nothing(store: Counted, entry: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        local_table(store, "frames.parquet", entry)
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


def test_a_local_table_is_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "frames.parquet").write_bytes(DATA)
    store = Store(tmp_path)
    assert local_table(store, "frames.parquet", Entry()) == tmp_path / "frames.parquet"
    with pytest.raises(InputError, match="the table is missing"):
        local_table(store, "tracks.parquet", Entry())


@pytest.mark.parametrize(("variable", "expected"), [("/cache", "/cache/seqdata"), ("cache", "/home/me/.cache/seqdata")])
def test_the_folder_follows_the_base_directories(variable: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path(expected)

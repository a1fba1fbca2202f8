"""Parquet tables: hashes of small ones, page checksums of large ones, one translation of what libraries raise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqdata.errors import ContractError, InputError
from seqdata.storage import parquet
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.parquet import PAGE_CHECKSUMS, read_metadata, read_parquet, read_rows, scan_parquet, translated
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table

TABLE = pl.DataFrame({
    "number": np.random.default_rng(1).integers(0, 1 << 40, 5000),
    "value": np.random.default_rng(2).normal(size=5000),
    "text": [f"frame-{number % 70}" for number in range(5000)],
})  # fmt: skip


def write(path: Path, parts: int = 5) -> None:
    with parquet.parquet_writer(path, TABLE.schema, {"seqdata.table": "test"}, one_group=True) as append:
        for part in TABLE.iter_slices(TABLE.height // parts):
            append(part)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table that counts as large: above 20 kB."""
    monkeypatch.setattr(parquet, "WHOLE_BYTES", 20_000)
    write(tmp_path / "large.parquet")
    return tmp_path / "large.parquet"


def test_a_small_tables_bytes_are_those_of_a_plain_writer(tmp_path: Path) -> None:
    """Ids of datasets hold the hashes of their tables: checksums of pages must not reach small ones."""
    write(tmp_path / "small.parquet")
    token = PAGE_CHECKSUMS.set(False)
    try:
        write(tmp_path / "plain.parquet")
    finally:
        PAGE_CHECKSUMS.reset(token)
    assert (tmp_path / "small.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()


def test_a_large_table_reads_as_it_was_written(large: Path) -> None:
    assert_frame_equal(read_parquet(large), TABLE)
    lazy = scan_parquet(large)
    assert_frame_equal(lazy.select("text", "number").collect(), TABLE.select("text", "number"))
    assert_frame_equal(lazy.filter(pl.col("value") > 1).collect(engine="streaming"), TABLE.filter(pl.col("value") > 1))
    assert_frame_equal(lazy.slice(4321, 7).collect(), TABLE[4321:4328])
    assert_frame_equal(lazy.head(1001).collect(), TABLE[:1001])
    assert int(lazy.select(pl.len()).collect().item()) == read_rows(large) == TABLE.height
    assert read_metadata(large) == {"seqdata.table": "test"}


def test_flips_in_the_pages_of_a_large_table_are_never_read(large: Path) -> None:
    """A flipped bit leads to the right values, where it hit nothing that is read, or to an error that names it."""
    whole, wrong, named = large.read_bytes(), 0, 0
    for position in np.random.default_rng(3).integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        large.write_bytes(damaged)
        try:
            wrong += not read_parquet(large).equals(TABLE)
        except ContractError as error:
            assert str(large) in str(error)
            named += 1
    assert wrong == 0
    assert named > 40


def test_without_checksums_a_flip_gives_other_values(large: Path) -> None:
    """The test before can fail: the same flips go through where pages have no checksums."""
    token = PAGE_CHECKSUMS.set(False)
    try:
        write(large)
    finally:
        PAGE_CHECKSUMS.reset(token)
    whole, wrong = large.read_bytes(), 0
    for position in np.random.default_rng(3).integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        large.write_bytes(damaged)
        try:
            wrong += not read_parquet(large).equals(TABLE)
        except ContractError:
            continue
    assert wrong > 0


def test_a_small_local_table_is_hashed_when_a_process_opens_it_first(tmp_path: Path) -> None:
    path = tmp_path / "frames.parquet"
    write(path)
    whole = path.read_bytes()
    info = Entry(whole)
    assert local_table(Store(tmp_path), path.name, info) == path
    for position in (40, len(whole) // 2, len(whole) - 20):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ContractError, match=r"frames\.parquet: its bytes have changed since the build"):
            local_table(Store(tmp_path), path.name, info)
    path.write_bytes(whole)
    assert local_table(Store(tmp_path), path.name, info) == path


class Entry:
    """What a manifest says of a table."""

    def __init__(self, data: bytes) -> None:
        self.bytes, self.hash = len(data), xxh3_hex(data)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"key,value\n1,2\n",
    "cut": lambda data: data[: len(data) // 2],
    "magic alone": lambda _: b"PAR1PAR1",
    "footer of another length": lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1",
    "footer of zeros": lambda data: data[:-200] + bytes(192) + data[-8:],
    "head of zeros": lambda data: bytes(2000) + data[2000:],
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("is_large", [False, True])
def test_what_is_no_parquet_is_one_line(
    tmp_path: Path, kind: str, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.parquet"
    write(path)
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    monkeypatch.setattr(parquet, "WHOLE_BYTES", -1 if is_large else 64 << 20)
    with pytest.raises(ContractError, match=r"table\.parquet: not readable as Parquet"):
        read_parquet(path)


def test_an_absent_table_and_one_that_is_a_folder(tmp_path: Path) -> None:
    for read in (read_parquet, read_rows, read_metadata):
        with pytest.raises(InputError, match="no such table"):
            read(tmp_path / "absent.parquet")
        with pytest.raises((InputError, ContractError)):
            read(tmp_path)
    with pytest.raises(KeyError), translated("x"):
        raise KeyError("a defect of ours stays one")

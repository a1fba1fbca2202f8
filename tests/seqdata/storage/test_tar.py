"""The tar writer against Python's tarfile: limits of names and sizes, padding, the end of a tar, hashes."""

import io
import tarfile

import pytest
import xxhash

from seqdata.errors import ContractError
from seqdata.storage.tar import TarWriter, header

GIB = 1 << 30


def tarfile_header(name: str, size: int) -> bytes:
    """The header of Python's own writer, whose device fields are empty."""
    info = tarfile.TarInfo(name)
    info.size = size
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[329:345] = bytes(16)  # older Pythons write zeros there
    total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    block[148:156] = b"%06o\x00 " % total
    return bytes(block)


@pytest.mark.parametrize("name", ["a.jpg", "n" * 100, "é" * 50])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 8 * GIB - 1])
def test_a_header_is_that_of_tarfile(name: str, size: int) -> None:
    assert header(name, size) == tarfile_header(name, size)


@pytest.mark.parametrize(("name", "size"), [("n" * 101, 1), ("é" * 50 + "n", 1), ("a.jpg", 8 * GIB)])
def test_what_ustar_cannot_hold_is_refused(name: str, size: int) -> None:
    with pytest.raises(ContractError, match="at most 100 bytes and files of less than 8 GiB"):
        header(name, size)


def test_a_tar_is_its_members_in_blocks_and_two_empty_ones() -> None:
    file = io.BytesIO()
    tar = TarWriter(file)
    contents = {"empty": b"", "one": b"x", "whole": bytes(range(256)) * 2, "more": b"y" * 513}
    offsets = {name: tar.add(name, data) for name, data in contents.items()}
    digest, data = tar.finish(), file.getvalue()
    assert digest == xxhash.xxh3_128_hexdigest(data)
    assert tar.size == len(data) == 512 * (4 + 0 + 1 + 1 + 2 + 2)
    assert data[-1024:] == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        assert {member.name: member.offset_data for member in members} == offsets
    assert all(data[offsets[name] : offsets[name] + len(text)] == text for name, text in contents.items())

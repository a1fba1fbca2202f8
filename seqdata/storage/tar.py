"""Plain USTAR members, the same bytes under every Python: mtime 0, no owner, mode 0644, names of at most 100 bytes.

Source: POSIX.1-1988 (ustar); the device fields are empty, as they are for every regular file that Python 3.11 writes.
"""

from typing import BinaryIO

import xxhash

from seqdata.errors import ContractError

BLOCK = 512
# A header is put together from constant pieces and its checksum from a constant sum, because a build writes millions.
_BEFORE_SIZE = b"0000644\x00" + b"0000000\x00" * 2
_AFTER_SIZE = b"00000000000\x00"
_AFTER_SUM = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\x00")
_FIXED_SUM = sum(_BEFORE_SIZE) + sum(_AFTER_SIZE) + sum(_AFTER_SUM) + 8 * ord(" ")


def header(name: str, size: int) -> bytes:
    """Make the 512 bytes before a regular file's data.

    Raises:
        ContractError: For a name or size beyond USTAR.
    """
    path, length = name.encode(), b"%011o\x00" % size
    if len(path) > 100 or len(length) > 12:
        raise ContractError(f"{name}: USTAR holds names of at most 100 bytes and files of less than 8 GiB")
    total = b"%06o\x00 " % (_FIXED_SUM + sum(path) + sum(length))
    return b"".join((path.ljust(100, b"\x00"), _BEFORE_SIZE, length, _AFTER_SIZE, total, _AFTER_SUM))


class TarWriter:
    """Appends members to a file and hashes (XXH3-128) every byte as it is written, so that no tar is read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = xxhash.xxh3_128()
        self.size = 0

    def add(self, name: str, data: bytes) -> int:
        """Append one member and return the offset of its data in bytes."""
        self._put(header(name, len(data)))
        offset = self.size
        self._put(data)
        # Members begin at whole blocks of 512 bytes.
        self._put(bytes(-len(data) % BLOCK))
        return offset

    def finish(self) -> str:
        """Write the end of the tar (two empty blocks) and return the hash of all of it as 32 hex digits."""
        self._put(bytes(2 * BLOCK))
        return self._digest.hexdigest()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

"""Hashes of files and of JSON values: XXH3-128 for frames and shards, SHA-256 for manifests and ids."""

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

from seqdata.storage.faults import read_again

HASH_BLOCK = 1 << 20  # bytes read at once


def xxh3_hex(data: bytes) -> str:
    """XXH3-128 of `data` as 32 hex digits: the hash of frames and shards.

    Example:
        >>> xxh3_hex(b"seqdata")
        'e4124b0cb804f4de224ee3e78af3d581'
    """
    return xxhash.xxh3_128_hexdigest(data)


def xxh3_digest(data: bytes) -> bytes:
    """XXH3-128 of `data` as the 16 bytes that tables hold."""
    return xxhash.xxh3_128_digest(data)


def xxh3_file(path: str | Path) -> str:
    """XXH3-128 of a file as 32 hex digits, read in blocks of 1 MiB; again where the disk's error may pass."""

    def digest_of_file() -> str:
        digest = xxhash.xxh3_128()
        with Path(path).open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    try:
        return read_again(digest_of_file)
    except OSError as error:
        # A failing read names no file, unlike a failing open.
        error.filename = error.filename or str(path)
        raise


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file as 64 hex digits: what the authors of a public file print beside it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def checksum_line(name: str, data: bytes) -> bytes:
    r"""A line as `sha256sum` writes it, so that `sha256sum -c` checks the file too.

    Example:
        >>> checksum_line("a", b"")
        b'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n'
    """
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def is_listed(data: bytes, checksums: bytes) -> bool:
    """Whether the SHA-256 of `data` stands at the beginning of a line of `checksums`, whatever the name behind it."""
    return any(line.startswith(hashlib.sha256(data).hexdigest().encode()) for line in checksums.splitlines())


def sha256_json(value: Any) -> str:
    """SHA-256 of the compact JSON of `value` with sorted keys, as 64 hex digits: the hash of manifests and ids.

    Example:
        >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
        True
    """
    # The form is a promise: ids and hashes in every stored manifest were made of it.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

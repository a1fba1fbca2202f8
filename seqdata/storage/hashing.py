"""Hashes of files and of JSON values: XXH3-128 for frames and shards, SHA-256 for manifests and ids."""

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

HASH_BLOCK = 1 << 20


def xxh3_hex(data: bytes) -> str:
    """XXH3-128 of `data` as 32 hex digits: the hash of frames and shards."""
    return xxhash.xxh3_128_hexdigest(data)


def xxh3_file(path: str | Path) -> str:
    """XXH3-128 of a file as 32 hex digits, read in blocks of 1 MiB."""
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the compact JSON of `value` with sorted keys: the hash of manifests and ids."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

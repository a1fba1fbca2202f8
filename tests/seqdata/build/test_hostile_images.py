"""What is stored is a function of the dump alone: hostile images built twice, in two processes, give equal bytes."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqdata.dataset.repair import repair
from seqdata.dataset.verify import verify
from tests.conftest import jpeg, write_drives

SEQDATA = Path(sys.executable).parent / "seqdata"
FilesOf = Callable[[Path], dict[str, bytes]]


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def hostile_images() -> dict[str, bytes]:
    """Every way in which a file named .jpg is not the JPEG that it should be."""
    good, png = jpeg(3), encoded("PNG")
    return {
        "empty": b"",
        "zeros": bytes(5000),
        "text": b"no picture at all\n" * 40,
        "head": good[:20],
        "cut": good[: len(good) // 2],
        "tail": good[:-2],
        "middle": good[: len(good) // 2] + bytes(60) + good[len(good) // 2 + 60 :],
        "noise": np.random.default_rng(1).bytes(3000),
        "markers": b"\xff\xd8" + b"\xff\xe1\xff\xff" * 200 + b"\xff\xd9",
        "png": png,
        "png-cut": png[: len(png) // 2],
        "png-crc": png[:40] + b"\0" + png[41:],
        "gif": encoded("GIF", "P"),
        "bmp": encoded("BMP"),
        "tiff": encoded("TIFF"),
        "webp": encoded("WEBP"),
        "grey": encoded("JPEG", "L"),
        "cmyk": encoded("JPEG", "CMYK"),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n{ } loop\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "avif": b"\0\0\0\x20ftypavif" + bytes(200),
        "heic": b"\0\0\0\x20ftypheic" + bytes(200),
        "bomb": png[:16] + b"\0\1\0\0\0\1\0\0" + png[24:],
    }


@pytest.mark.parametrize("check", ["header", "decode"])
def test_two_builds_of_hostile_images_have_equal_bytes(tmp_path: Path, files_of: FilesOf, check: str) -> None:
    raw = write_drives(tmp_path / "raw", {"map": 12, "query": 8})
    images = hostile_images()
    rows = [f"{name}.jpg,{500036 + 2 * number},5000000,32N,map,database\n" for number, name in enumerate(images)]
    with (raw / "positions.csv").open("a") as file:
        file.writelines(rows)
    for name, data in images.items():
        (raw / f"{name}.jpg").write_bytes(data)
    for place, seed in (("a", "1"), ("b", "2")):
        # Another seed of hashes and another address space each: neither may reach a stored text.
        ended = subprocess.run(
            [SEQDATA, "build", "folder", raw, "--out", tmp_path / place, "--workers", "1", "--check", check],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 6, ended.stderr
    whole = files_of(tmp_path / "a")
    assert whole == files_of(tmp_path / "b")
    assert b"0x7f" not in whole["manifest.json"]
    for name in ("shards/part-000000.parquet", "quarantine.parquet", "frames.parquet"):
        damaged = bytearray(whole[name])
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / "a" / name).write_bytes(damaged)
    assert {fault.file for fault in verify(tmp_path / "a")} >= {"quarantine.parquet", "frames.parquet"}
    repair(tmp_path / "a", raw)
    assert files_of(tmp_path / "a") == whole

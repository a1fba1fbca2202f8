"""Frames for benchmarks: real street photographs where they are, drawn ones elsewhere, written as a `folder` dump."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "street-exif"


def pictures(size: tuple[int, int]) -> Iterator[bytes]:
    """JPEGs of quality 90 at `size` = (width, height), over and over: crops of real photographs, or noise in blocks."""
    paths = sorted(REAL.glob("*.jpg"))
    images = [Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS) for path in paths]
    random = np.random.default_rng(0)
    while not len(images) >= 16:
        noise = random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        images.append(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
    return cycle([simplejpeg.encode_jpeg(np.asarray(image), quality=90) for image in images])


def write_street(raw: Path, frames: int, size: tuple[int, int] = (640, 480), drives: int = 1) -> Path:
    """`frames` frames of `size` = (width, height) in equal drives, 3 m apart; no two files are equal."""
    raw.mkdir()
    rows = ["image,easting,northing,zone,drive,role"]
    for number, picture in zip(range(frames), pictures(size), strict=False):
        drive, position = divmod(number, frames // drives)
        name = f"{number:06d}.jpg"
        # A comment segment after the first marker makes each file's bytes its own.
        (raw / name).write_bytes(picture[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + picture[2:])
        rows.append(f"{name},{500_000 + 3 * position},{5_000_000 + 500 * drive},32N,drive{drive},database")
    (raw / "positions.csv").write_text("\n".join(rows) + "\n")
    return raw

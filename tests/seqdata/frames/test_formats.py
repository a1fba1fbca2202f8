"""Which files Pillow may open, and how much memory one picture may take."""

import ast
import io
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqdata.frames import formats, images
from seqdata.frames.decode import decode_image
from seqdata.frames.encode import prepare
from seqdata.frames.formats import RAW_FORMATS, STORED_FORMATS, BadImageError
from seqdata.sources.raw_frames import rgb_of_image

ROOT = Path(__file__).resolve().parents[3]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{ } loop\n"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def other_formats() -> list[str]:
    """What Pillow can write and a raw dump does not hold."""
    Image.init()
    # PALM and PDF are written only; XBM and the like take pictures of one bit; a plugin for a missing library fails.
    kinds = []
    for kind in sorted(set(Image.SAVE) & set(Image.OPEN) - set(RAW_FORMATS) - {"MPO"}):
        try:
            encoded(Image.new("1" if kind == "XBM" else "L", (64, 64)), kind)
        except (OSError, KeyError, ValueError, AttributeError):
            continue
        kinds.append(kind)
    return kinds


def test_only_one_module_opens_pictures() -> None:
    calls = []
    for path in [path for floor in ("seqdata", "indexer", "train", "cli") for path in (ROOT / floor).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            is_open = (
                isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")
            )
            is_import = isinstance(node, ast.ImportFrom) and node.module == "PIL.Image"
            if is_open or is_import:
                calls.append(path.relative_to(ROOT).as_posix())
    assert calls == ["seqdata/frames/formats.py"]


@pytest.mark.parametrize("kind", other_formats())
def test_other_formats_are_no_images(kind: str) -> None:
    data = encoded(Image.new("1" if kind == "XBM" else "L", (64, 64)), kind)
    with pytest.raises(BadImageError) as raised:
        prepare(data)
    assert raised.value.reason == "bad_image"


@pytest.mark.parametrize("kind", sorted(set(RAW_FORMATS) - set(STORED_FORMATS)))
def test_a_stored_frame_is_a_jpeg_or_a_png(kind: str) -> None:
    data = encoded(Image.new("RGB", (64, 64)), kind)
    assert prepare(data).suffix == "jpg"
    with pytest.raises(BadImageError, match="no image of a kind that is read"):
        decode_image(data)


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for read in (prepare, decode_image):
        with pytest.raises(BadImageError, match="no image of a kind that is read"):
            read(EPS)
    with pytest.raises(BadImageError, match="format EPS is not read"):
        rgb_of_image(Image.open(io.BytesIO(EPS)), None)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_heic_and_avif_are_named(brand: bytes) -> None:
    with pytest.raises(BadImageError, match="HEIC or AVIF picture, a kind that is not read; convert it"):
        prepare(b"\0\0\0\x18ftyp" + brand + bytes(64))


def hostile(kind: str, side: int) -> bytes:
    """A picture of side² pixels of one kind, most of them a few kilobytes long."""
    name, _, mode = kind.partition(" ")
    options: dict[str, object] = {}
    if mode == "turned":
        mode, exif = "L", Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    if mode == "progressive":
        mode, options = "RGB", {"progressive": True, "subsampling": 0}
    if mode == "cmyk scans":
        mode, options = "CMYK", {"progressive": True}
    if name == "WEBP":
        options = {"method": 0}
    if mode == "strip":
        mode, options = "RGB", {"compression": "tiff_deflate", "strip_size": 1 << 30}
    return encoded(Image.new(mode, (side, side)), name, **options)


KINDS = (
    "PNG L", "PNG turned", "PNG RGB", "PNG RGBA", "PNG LA", "PNG P", "PNG 1", "PNG I;16", "TIFF strip", "TIFF F",
    "TIFF I;16", "WEBP RGB", "BMP RGB", "PPM RGB", "JPEG RGB", "JPEG progressive", "JPEG cmyk scans",
)  # fmt: skip


def growth(action: Callable[[], object]) -> float:
    """Bytes by which the peak memory of a forked process grows while it runs `action`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        action()
        os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    kilobytes = os.read(reader, 64)
    os.close(reader)
    os.close(writer)
    return int(kilobytes) * 1024.0


@pytest.mark.parametrize("kind", KINDS)
def test_no_picture_takes_more_than_the_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A twelfth of the real limit, so that the test is quick; what grows with pixels grows alike.
    monkeypatch.setattr(formats, "GREATEST_BYTES", formats.GREATEST_BYTES // 12)
    monkeypatch.setattr(images, "_BAND_PIXELS", 1 << 18)
    taken = []
    # Just below the sides at which 19, 16, 15, 7 and 6 bytes a pixel reach the limit, and far above all.
    for side in (1850, 2050, 2100, 3100, 3350, 5500):
        data = hostile(kind, side)
        prepare(encoded(Image.new("RGB", (64, 64)), "PNG"))

        def read(data: bytes = data) -> None:
            try:
                prepare(data, check="decode")
            except BadImageError:
                return

        taken.append(growth(read))
    assert max(taken) < formats.GREATEST_BYTES * 1.25
    assert taken[-1] < taken[-2] or taken[-1] < 16e6, "the greatest is refused before it is decoded"


def test_sixteen_bits_are_divided_as_whole_numbers() -> None:
    wide = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    pixels = images.to_rgb(Image.fromarray(wide))
    assert (pixels == (wide / 257.0).astype(np.uint8)[..., None]).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_bands_convert_as_the_whole_image_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(3)
    if mode in ("I;16", "I", "F"):
        kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        image = Image.fromarray(numbers.integers(0, 60_000, (50, 40)).astype(kinds[mode]))
    else:
        image = Image.fromarray(numbers.integers(0, 255, (50, 40, 3), np.uint8)).convert("L" if mode == "LA" else "RGB")
        image = image.convert(mode)
    whole = images.to_rgb(image)
    monkeypatch.setattr(images, "_BAND_PIXELS", 40 * 7)
    assert (images.to_rgb(image) == whole).all()


@pytest.mark.parametrize("turn", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(turn: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image = Image.fromarray(pixels)
    turned = image if turn == 1 else image.transpose(turns[turn])
    assert (images.upright(pixels, turn) == np.asarray(turned)).all()

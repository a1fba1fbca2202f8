"""Pixels: what passes through, what is rewritten, and that no damaged file raises anything but BadImageError."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seqdata import pixels
from seqdata.pixels import BadImageError, decode, prepare
from tests.conftest import jpeg

WHOLE = jpeg(3)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8)
    return Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)).convert(mode)


def test_a_whole_upright_jpeg_keeps_its_bytes() -> None:
    stored = prepare(WHOLE)
    assert stored.data == WHOLE
    assert (stored.suffix, stored.width, stored.height) == ("jpg", 32, 24)
    assert prepare(WHOLE, check="decode").data == WHOLE
    assert prepare(WHOLE + b"\x00" * 50).data.startswith(WHOLE), "padding after the end marker is no damage"


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_pass_through_and_decode_to_rgb(mode: str) -> None:
    data = encoded(picture(mode), "JPEG", quality=95)
    assert prepare(data, check="decode").data == data
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(decode(data).astype(int) - wanted).max() <= 3


def test_a_turned_jpeg_is_stored_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "JPEG", quality=100, exif=exif.tobytes())
    stored = prepare(data)
    assert (stored.width, stored.height) == (24, 40)
    turned = np.asarray(picture().rotate(-90, expand=True)).transpose(2, 0, 1)
    assert np.abs(decode(stored.data).astype(int) - turned).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "I;16", "1"])
def test_every_png_becomes_a_jpeg_of_quality_95_or_stays(mode: str) -> None:
    image = picture("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    data = encoded(image, "PNG")
    stored = prepare(data)
    assert stored.suffix == "jpg"
    assert decode(stored.data).shape == (3, 24, 40)
    grey = picture("L") if mode in ("L", "I;16", "LA") else None
    if grey is not None:
        assert np.abs(decode(stored.data)[0].astype(int) - np.asarray(grey)).mean() < 2
    assert prepare(data, keep_png=True).data == data
    assert decode(data).shape == (3, 24, 40)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_jpeg_is_bad_wherever_it_is_cut(length: int) -> None:
    with pytest.raises(BadImageError) as raised:
        prepare(WHOLE[:length])
    assert raised.value.reason == ("empty_image" if length == 0 else "bad_image")


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_jpeg_is_stored_or_bad_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    try:
        stored = prepare(bytes(data), check="decode")
    except BadImageError:
        return
    assert decode(stored.data).shape[0] == 3


@given(st.binary(max_size=200))
def test_bytes_that_are_no_image_are_bad(data: bytes) -> None:
    with pytest.raises(BadImageError):
        prepare(data)


def test_decoding_agrees_with_simplejpeg() -> None:
    assert (decode(WHOLE) == simplejpeg.decode_jpeg(WHOLE).transpose(2, 0, 1)).all()


def announced_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces width × height grey pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("side", [20_001, 30_000, 65_000])  # over the limit, over twice the limit, over all
def test_a_picture_of_too_many_pixels_is_bad(side: int, action: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        for keep_png in (False, True):
            with pytest.raises(BadImageError) as raised:
                prepare(announced_png(side, side), keep_png=keep_png)
            assert raised.value.reason == "bad_image"
    frame = WHOLE.index(b"\xff\xc0")
    data = WHOLE[: frame + 5] + struct.pack(">HH", side, side) + WHOLE[frame + 9 :]
    with pytest.raises(BadImageError, match="pixels are more than"):
        prepare(data)


def test_a_side_that_no_jpeg_can_have_is_bad() -> None:
    data = encoded(Image.new("L", (65_501, 1)), "PNG")
    with pytest.raises(BadImageError, match="65,500") as raised:
        prepare(data)
    assert raised.value.reason == "bad_image"
    assert prepare(data, keep_png=True).width == 65_501
    assert prepare(encoded(Image.new("L", (65_500, 1)), "PNG")).width == 65_500


def test_what_the_encoder_refuses_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise ValueError("no")

    monkeypatch.setattr(pixels.simplejpeg, "encode_jpeg", refuse)
    with pytest.raises(BadImageError, match="cannot be written as JPEG"):
        prepare(encoded(picture(), "PNG"))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "BMP"])
def test_other_formats_under_a_wrong_name_are_rewritten(kind: str) -> None:
    assert prepare(encoded(picture(), kind)).suffix == "jpg"


@given(
    st.sampled_from(["PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_other_damaged_formats_are_stored_or_bad_and_nothing_else(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(picture(), kind))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    try:
        assert prepare(bytes(data)).suffix == "jpg"
    except BadImageError:
        return

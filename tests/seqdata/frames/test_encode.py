"""Pixels: what passes through, what is rewritten, and that no damaged file raises anything but BadImageError."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seqdata.frames import encode as pixels
from seqdata.frames import images
from seqdata.frames.decode import channels_first, decode_image
from seqdata.frames.encode import prepare
from seqdata.frames.images import BadImageError
from tests.conftest import jpeg

WHOLE = jpeg(3)


def decode(data: bytes) -> np.ndarray:
    """Pixels (3, H, W)."""
    return channels_first(decode_image(data))


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
    with pytest.raises(BadImageError, match=r"pixels need .* of memory"):
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


@pytest.mark.parametrize("kind", ["PPM", "TIFF", "WEBP", "BMP", "MPO"])
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


def reference(data: bytes) -> np.ndarray:
    """What Pillow alone reads: RGB (H, W, 3), upright."""
    from PIL import ImageOps

    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Decibels of the difference of two 8-bit pictures."""
    return float(10 * np.log10(255**2 / max(np.mean((first.astype(float) - second.astype(float)) ** 2), 1e-9)))


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with detail at every scale, as photos have it."""
    random, total = np.random.default_rng(seed), np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), float) / cells
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.sampled_from(["JPEG", "PNG"]))
@settings(deadline=None, max_examples=40)
def test_short_side_is_reached_exactly_and_never_from_below(width: int, height: int, short: int, kind: str) -> None:
    data = encoded(scene(width, height), kind)
    stored = prepare(data, short_side=short)
    least = min(width, height)
    assert min(stored.width, stored.height) == min(short, least)
    assert reference(stored.data).shape == (stored.height, stored.width, 3)
    if least <= short:
        assert (stored.width, stored.height) == (width, height)
        assert stored.data == prepare(data).data
        assert (stored.data == data) == (kind == "JPEG")
    else:
        longer = max(stored.width, stored.height) / max(width, height)
        assert abs(longer - short / least) <= 0.5 / max(width, height) + 1e-9


@pytest.mark.parametrize("size", [(1017, 761), (763, 1021), (641, 481)])
@pytest.mark.parametrize("short", [240, 190, 120, 60, 33])
def test_a_jpeg_decoded_at_a_part_of_its_size_is_as_good_as_one_decoded_whole(
    size: tuple[int, int], short: int
) -> None:
    data = encoded(scene(*size), "JPEG", quality=95)
    stored = prepare(data, short_side=short, quality=100)
    wanted = (stored.width, stored.height)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize(wanted, Image.Resampling.LANCZOS)
    assert psnr(images.read_shrunk(data, wanted), np.asarray(whole)) > 53
    assert psnr(reference(stored.data), np.asarray(whole)) > 40


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_shrunk_and_turned_as_pillow_turns_it(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(scene(200, 120), "JPEG", quality=98, exif=exif.tobytes())
    stored = prepare(data, short_side=60, quality=100)
    assert (stored.width, stored.height) == ((100, 60) if turn < 5 else (60, 100))
    wanted = Image.fromarray(reference(data)).resize((stored.width, stored.height), Image.Resampling.LANCZOS)
    assert psnr(reference(stored.data), np.asarray(wanted)) > 38
    whole = prepare(data, quality=100)
    assert (whole.data == data) == (turn == 1)
    assert psnr(decode(whole.data).transpose(1, 2, 0), reference(data)) > 38


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", [1, 3, 6, 7])
def test_other_formats_are_turned_once(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(scene(80, 48), kind, exif=exif)
    stored = prepare(data, quality=100)
    assert (stored.width, stored.height) == ((80, 48) if turn < 5 else (48, 80))
    assert psnr(reference(stored.data), reference(data)) > 35


def test_an_orientation_that_is_none_leaves_the_bytes() -> None:
    for value in (0, 9, 600):
        exif = Image.Exif()
        exif[0x0112] = value
        data = encoded(picture(), "JPEG", exif=exif.tobytes())
        assert prepare(data).data == data


def test_quality_decides_the_bytes_of_what_is_rewritten_and_95_is_the_default() -> None:
    data = encoded(scene(80, 60), "PNG")
    sizes = [len(prepare(data, quality=quality).data) for quality in (70, 92, 95, 100)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4
    assert prepare(data).data == prepare(data, quality=95).data
    assert prepare(data).data == simplejpeg.encode_jpeg(np.asarray(scene(80, 60)), quality=95, colorsubsampling="444")
    assert prepare(WHOLE, quality=10).data == WHOLE


def test_pixels_of_a_source_are_stored_as_a_png_of_them_would_be() -> None:
    image = scene(70, 50)
    array, data = np.asarray(image), encoded(image, "PNG")
    assert prepare(array).data == prepare(data).data
    assert prepare(array, short_side=20, quality=80) == prepare(data, short_side=20, quality=80)
    assert prepare(array[::-1, ::2]).width == 35, "views are as good as arrays of their own"
    for wrong in (array[..., 0], array.astype(np.float32), np.dstack([array, array[..., :1]]), array[:0]):
        with pytest.raises(ValueError, match="uint8"):
            prepare(wrong)
    with pytest.raises(BadImageError, match="65,500"):
        prepare(np.zeros((1, 65_501, 3), np.uint8))


def test_a_png_that_is_shrunk_becomes_a_jpeg_also_where_pngs_are_kept() -> None:
    data = encoded(scene(80, 60), "PNG")
    assert prepare(data, keep_png=True, short_side=60).data == data
    assert prepare(data, keep_png=True, short_side=59).suffix == "jpg"


def adobe_transform(data: bytes, transform: int) -> bytes:
    """The same four-channel JPEG with another colour transform in its Adobe marker (0: CMYK, 2: YCCK)."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


@pytest.mark.parametrize("transform", [0, 2])
def test_cmyk_and_ycck_are_read_as_pillow_reads_them_whole_and_shrunk(transform: int) -> None:
    data = adobe_transform(encoded(scene(160, 120).convert("CMYK"), "JPEG", quality=95), transform)
    assert prepare(data, check="decode").data == data
    assert np.abs(decode(data).transpose(1, 2, 0).astype(int) - reference(data)).max() <= 3
    stored = prepare(data, short_side=60, quality=100)
    wanted = Image.fromarray(reference(data)).resize((80, 60), Image.Resampling.LANCZOS)
    assert psnr(reference(stored.data), np.asarray(wanted)) > 30
    other = adobe_transform(data, 2 - transform)
    assert psnr(decode(other).transpose(1, 2, 0), reference(data)) < 25, "the marker is read, not guessed"


def test_a_progressive_jpeg_keeps_its_bytes_and_a_cut_one_is_bad() -> None:
    data = encoded(scene(160, 120), "JPEG", progressive=True)
    assert prepare(data, check="decode").data == data
    assert psnr(decode(data).transpose(1, 2, 0), reference(data)) > 45
    assert prepare(data, short_side=40).height == 40
    for options in ({}, {"short_side": 40}, {"check": "decode"}):
        with pytest.raises(BadImageError):
            prepare(data[: len(data) // 2], **options)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colour. `rows` without filter bytes; `extra` are chunks."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = len(rows) // height
    lines = b"".join(b"\x00" + rows[n * size : (n + 1) * size] for n in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_sixteen_bits_become_eight_by_the_full_range_however_little_of_it_is_used() -> None:
    random = np.random.default_rng(1)
    for top in (65_535, 4_095, 255, 1):
        grey = random.integers(0, top + 1, (24, 40)).astype(np.uint16)
        seen = decode(png(40, 24, 16, 0, grey.astype(">u2").tobytes()))
        assert (seen == (grey.astype(int) * 255 // 65_535)[None]).all()
    colour = random.integers(0, 65_536, (24, 40, 3)).astype(np.uint16)
    data = png(40, 24, 16, 2, colour.astype(">u2").tobytes())
    assert (decode(data) == (colour >> 8).transpose(2, 0, 1)).all()
    assert (decode(data).transpose(1, 2, 0) == reference(data)).all()
    assert psnr(decode(prepare(data, quality=100).data), decode(data)) > 30


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_what_is_transparent_becomes_black_and_what_is_not_keeps_its_colour(mode: str) -> None:
    image = Image.new("RGB", (32, 16), (200, 200, 200))
    if mode == "1":
        data = encoded(image.convert("1"), "PNG", transparency=1)
    elif mode == "P":
        palette = image.quantize(4)
        palette.paste(palette.getpixel((0, 0)) ^ 1, (16, 0, 32, 16))
        data = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    else:
        clear = image.convert(mode)
        clear.putalpha(Image.fromarray(np.repeat([[0] * 16 + [255] * 16], 16, 0).astype(np.uint8)))
        data = encoded(clear, "PNG")
    assert (decode(data)[:, :, :16] == 0).all()
    if mode in ("RGBA", "LA"):
        assert (decode(data)[:, :, 16:] == 200).all()


def test_palette_and_bilevel_pictures_are_read_as_pillow_reads_them() -> None:
    for mode in ("P", "1", "L"):
        data = encoded(scene(64, 48).convert(mode), "PNG")
        assert (decode(data).transpose(1, 2, 0) == reference(data)).all()
        assert psnr(reference(prepare(data, quality=100).data), reference(data)) > 30


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_moving_pictures_the_first_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (32, 24), (250, 0, 0)), Image.new("RGB", (32, 24), (0, 0, 250))
    data = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    red, _, blue = decode(prepare(data).data)[:, 12, 16].tolist()
    assert red > 200
    assert blue < 60


@pytest.mark.real
def test_real_photos_shrink_to_what_pillow_makes_of_them(real: Path) -> None:
    for path in sorted((real / "street-exif").glob("*.jpg"))[::7]:
        data = path.read_bytes()
        assert prepare(data, short_side=768).data == data
        stored = prepare(data, short_side=240, quality=92)
        wanted = Image.open(io.BytesIO(data)).convert("RGB").resize((320, 240), Image.Resampling.LANCZOS)
        assert (stored.width, stored.height) == (320, 240)
        assert psnr(reference(stored.data), np.asarray(wanted)) > 33
        assert len(stored.data) < len(data) / 4


@pytest.mark.real
def test_real_photos_with_broken_exif_keep_their_bytes(real: Path) -> None:
    for path in sorted((real / "bad-images").glob("*.jpg")):
        data = path.read_bytes()
        assert prepare(data).data == data
        assert prepare(data, short_side=8).height == 8

"""Resize kernels: against a literal float64 filter, the same bits on every processor, and by name in every reader."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, MissingDependencyError
from seqdata.frames.decode import decode_image
from seqdata.frames.images import Pixels
from seqdata.frames.resize import KERNELS, Kernel, check_kernel, default_kernel, resize
from seqdata.storage.hashing import xxh3_hex

cykooz = pytest.importorskip("cykooz_resizer", reason="it has no wheels for this machine")

DIGESTS = [
    "3f319a2e13c8b95af4d0da3c3dc29b86",
    "83e299be38635e0362109d4fd936a5ab",
    "ceb69c09836f1ad68e6ac1eb99d2c892",
]
"""XXH3-128 of a picture resized to three sizes by cykooz-resizer 4.0.1."""


def picture(height: int = 96, width: int = 128) -> Pixels:
    """Waves, an edge and some noise."""
    rows, columns = np.indices((height, width))
    waves = 120 + 60 * np.sin(rows / 7) + 50 * np.cos(columns / 5) * (columns > width // 2)
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return np.clip(waves[..., None] + noise, 0, 255).astype(np.uint8)


def weights(source: int, target: int) -> npt.NDArray[np.float64]:
    """Weights (target, source) of a triangle as wide as the reduction, literally."""
    scale = source / target
    support = max(scale, 1.0)
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * scale
        for column in range(source):
            matrix[row, column] = max(0.0, 1 - abs(column + 0.5 - centre) / support)
    return matrix / matrix.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(48, 64), (30, 100), (96, 50), (120, 150), (33, 33), (1, 1)])
@pytest.mark.parametrize("kernel", ["pillow", "fast"])
def test_kernels_are_a_triangle_filter_to_one_grey_level(size: tuple[int, int], kernel: Kernel) -> None:
    pixels = picture()
    exact = np.einsum("ij,jkc,lk->ilc", weights(96, size[0]), pixels.astype(float), weights(128, size[1]))
    # Half a level for each of two passes, and what their weights are rounded by.
    assert np.abs(resize(pixels, size, kernel) - exact).max() <= 1.01


@pytest.mark.parametrize("extension", ["none", "sse4_1", "avx2"])
def test_the_fast_kernel_gives_the_same_bits_on_every_processor(
    extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name stands in identities, so its pixels must not change with a processor or a version."""
    library = cykooz.Resizer()
    try:
        library.cpu_extensions = getattr(cykooz.CpuExtensions, extension)
    except Exception:
        pytest.skip(f"this processor has no {extension}")
    options = cykooz.ResizeOptions(cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear), use_alpha=False)
    monkeypatch.setattr("seqdata.frames.resize._fast", lambda: (cykooz, library, options))
    digests = [xxh3_hex(resize(picture(), size, "fast").tobytes()) for size in ((48, 64), (30, 100), (120, 150))]
    assert digests == DIGESTS


def test_no_kernel_touches_pixels_that_have_the_size() -> None:
    pixels = picture()
    for kernel in KERNELS:
        assert resize(pixels, (96, 128), kernel) is pixels
        assert resize(pixels, None, kernel) is pixels


def test_threads_resize_alike() -> None:
    pixels = picture()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: resize(pixels, (40, 60), "fast"), range(16)))
    assert all(np.array_equal(results[0], result) for result in results)


def test_a_reduced_jpeg_is_near_the_whole_one_and_only_where_half_is_enough() -> None:
    data = simplejpeg.encode_jpeg(picture(480, 640), quality=95)
    whole, reduced = (decode_image(data, (100, 140), kernel=kernel) for kernel in ("fast", "scaled"))
    assert not np.array_equal(whole, reduced)
    assert np.abs(whole.astype(int) - reduced).mean() < 2.0
    for size in ((300, 400), (480, 640), (600, 800)):
        np.testing.assert_array_equal(
            decode_image(data, size, kernel="scaled"), decode_image(data, size, kernel="fast")
        )


def test_every_reader_takes_a_kernel_by_name(dataset: Dataset) -> None:
    whole = dataset.read_frames([3])[0].transpose(1, 2, 0)
    table = dataset.sequences(length=1)
    for kernel in ("pillow", "fast"):
        expected = resize(np.ascontiguousarray(whole), (12, 20), kernel)
        for pixels in (
            dataset.read_frames([3], (12, 20), kernel)[0],
            dataset.read(table, [3], (12, 20), kernel)[0, 0],
            dataset.stream(table, size=(12, 20), shuffle="none", resize=kernel)[3]["frames"][0],
        ):
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), expected)


def test_unknown_and_absent_kernels_are_told_before_a_frame_is_read(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ContractError, match="resize kernel 'lanczos': expected pillow, fast, scaled"):
        dataset.stream(dataset.sequences(length=1), size=(8, 8), resize="lanczos")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    monkeypatch.setattr("seqdata.frames.resize._own", type("Fresh", (), {})())
    with pytest.raises(MissingDependencyError, match="pip install cykooz-resizer"):
        check_kernel("fast")
    check_kernel("pillow")
    monkeypatch.setattr("seqdata.frames.resize.find_spec", lambda name: None)
    assert default_kernel() == "pillow"

"""Frame matching against a slow direct loop, and the thumbnails."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.matching.aligned import match_aligned, match_single, smallest
from indexer.matching.thumbnails import thumbnails
from seqdata.errors import ContractError

METRICS = {
    "l1": lambda a, b: np.abs(a - b).mean(),
    "l2": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    "cosine": lambda a, b: 1 - (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()),
}


def literal(
    query_frames: Any, query_windows: Any, database_frames: Any, database_windows: Any, k: Any, metric: Any = "l1"
) -> Any:
    """Every pair of windows, every pair of frames, every value."""
    apart = np.zeros((len(query_windows), len(database_windows)))
    for i, one in enumerate(query_windows):
        for j, other in enumerate(database_windows):
            pairs = zip(one, other, strict=True)
            apart[i, j] = np.mean([METRICS[metric](query_frames[a], database_frames[b]) for a, b in pairs])
    rows = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(apart, rows, 1), rows


def windows(count: int, length: int, step: int = 1) -> np.ndarray:
    return np.arange(count - (length - 1) * step)[:, None] + step * np.arange(length)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("length", [1, 3, 4])
@pytest.mark.parametrize("block", [1, 200, 1 << 25])
def test_aligned_equals_direct_loop(length: int, block: int, metric: str) -> None:
    rng = np.random.default_rng(length)
    queries, database = rng.normal(size=(17, 12)).astype("f4"), rng.normal(size=(23, 12)).astype("f4")
    asked = rng.permutation(windows(17, length, 2))
    stored = windows(23, length, 2)[2:]  # the first frames are in no window
    distances, rows = match_aligned(queries, asked, database, stored, 5, block=block, metric=metric)
    expected, expected_rows = literal(queries, asked, database, stored, 5, metric)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-5)
    assert (distances.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(("length", "centre"), [(1, 0), (4, 1), (5, 2)])
def test_single_looks_at_the_centre_frame(length: int, centre: int) -> None:
    rng = np.random.default_rng(0)
    queries, database = rng.normal(size=(12, 8)).astype("f4"), rng.normal(size=(15, 8)).astype("f4")
    asked, stored = windows(12, length), windows(15, length)
    _, rows = match_single(queries, asked, database, stored, 4)
    _, expected = literal(queries, asked[:, [centre]], database, stored[:, [centre]], 4)
    np.testing.assert_array_equal(rows, expected)


def test_k_and_progress() -> None:
    frames = np.random.default_rng(0).normal(size=(9, 4)).astype("f4")
    done: list[int] = []
    distances, _ = match_aligned(frames, windows(9, 2), frames, windows(9, 2), 50, block=40, progress=done.append)
    assert distances.shape == (8, 8)
    assert done[-1] == 8
    assert done == sorted(done)


def test_ties_are_ordered_by_row() -> None:
    values = np.array([[2, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.float32)
    assert smallest(values, 3)[1].tolist() == [[4, 1, 2], [0, 1, 2]]
    assert smallest(values, 9)[1].tolist() == [[4, 1, 2, 3, 0], [0, 1, 2, 3, 4]]


def test_refusals() -> None:
    frames, table = np.zeros((5, 4), np.float32), windows(5, 2)
    for arguments in (
        (frames, table, frames[:, :3], table, 1),
        (frames, table, frames, windows(5, 3), 1),
        (frames, table, frames, table, 0),
        (frames, table, frames, table[:0], 1),
    ):
        with pytest.raises(ContractError):
            match_aligned(*arguments)


def test_thumbnails_equal_direct_loop() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 64), dtype=np.uint8)
    for softening in (0.0, 5.0):
        made = thumbnails(frames, softening=softening)
        for row, frame in enumerate(frames):
            grey = 0.299 * frame[0] + 0.587 * frame[1] + 0.114 * frame[2]
            expected = np.empty((32, 64))
            for top in range(0, 32, 8):
                for left in range(0, 64, 8):
                    patch = grey[top : top + 8, left : left + 8]
                    expected[top : top + 8, left : left + 8] = (patch - patch.mean()) / (patch.std() + softening)
            np.testing.assert_allclose(made[row], expected.ravel(), atol=1e-4)


def test_large_frames_are_averaged_not_sampled() -> None:
    """Pixel noise of a big frame averages out; picking single pixels would keep it."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 480, 640), dtype=np.uint8)
    image = Image.fromarray(noise[0]).resize((64, 32), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(thumbnails(noise), thumbnails(np.asarray(image)[None]), atol=0.2)
    assert np.asarray(image).std() < 12


def test_flat_frames_and_bad_frames() -> None:
    for softening in (0.0, 5.0):
        assert (thumbnails(np.full((2, 3, 50, 70), 77, np.uint8), softening=softening) == 0).all()
    assert thumbnails(np.empty((0, 3, 8, 8), np.uint8)).shape == (0, 2048)
    for wrong in (np.zeros((1, 4, 8, 8), np.uint8), np.zeros((1, 3, 8, 8)), np.zeros((8, 8), np.uint8)):
        with pytest.raises(ContractError):
            thumbnails(wrong)
    with pytest.raises(ContractError, match="patches"):
        thumbnails(np.zeros((1, 8, 8), np.uint8), size=(30, 64))


@pytest.mark.real
def test_nordland_reference(real: Path) -> None:
    """Winter against summer on the clean frames: .196 R@1 with the plain z-score, within ±1 rank."""
    wanted = (real / "nordland" / "clean_frames.txt").read_text().split()

    def load(season: str) -> np.ndarray:
        with zipfile.ZipFile(real / "nordland" / f"{season}.zip") as archive:
            inside = set(archive.namelist())
            names = [f"{season}/{name}" for name in wanted if f"{season}/{name}" in inside]
            return np.stack([np.asarray(Image.open(archive.open(name)).convert("L")) for name in names])

    summer, winter = load("summer"), load("winter")
    assert len(summer) == 2761
    for softening, first, length, expected in ((0.0, 0, 1, 0.196), (5.0, 1900, 1, 0.231), (5.0, 1900, 5, 0.620)):
        queries = thumbnails(winter[first:], softening=softening)
        database = thumbnails(summer[first:], softening=softening)
        table = windows(len(queries), length)
        _, rows = match_aligned(queries, table, database, table, 1)
        assert (np.abs(rows[:, 0] - np.arange(len(table))) <= 1).mean() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1000, 1), (1, 1e-3), (0, 1e-25), (0, 1e18)])
@pytest.mark.parametrize("length", [1, 3])
def test_nearest_frames_are_right_where_descriptors_share_a_part(
    metric: str, offset: float, scale: float, length: int
) -> None:
    """A matrix product in float32 loses the digits that differ; the nearest must not depend on what all share."""
    rng = np.random.default_rng(0)
    path = np.cumsum(rng.standard_normal((120, 16)), axis=0) / 10
    database = (offset + scale * path).astype("f4")
    queries = (offset + scale * (path[20:100] + 0.03 * rng.standard_normal((80, 16)))).astype("f4")
    table = windows(120, length)
    search = match_single if length == 1 else match_aligned
    rows = search(queries, windows(80, length), database, table, 3, metric=metric)[1]
    expected = literal(queries.astype("f8"), windows(80, length), database.astype("f8"), table, 3, metric)[1]
    assert (rows[:, 0] == expected[:, 0]).mean() > 0.98


def test_equal_frames_rank_by_row() -> None:
    frames = np.full((50, 16), 7.7, np.float32)
    for metric in ("l1", "l2", "cosine"):
        for search in (match_single, match_aligned):
            distances, rows = search(frames, windows(50, 3), frames, windows(50, 3), 4, metric=metric)
            assert (rows == np.arange(4)).all()
            assert not distances.any()
    zeros = np.zeros((9, 16), np.float32)
    for search in (match_single, match_aligned):
        assert (search(zeros, windows(9, 3), frames[:9], windows(9, 3), 4, metric="cosine")[0] == 1).all()

"""SeqSLAM against a slow direct loop, its contrast and lines, and the reference figures on real frames."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.matching.delta import deltas
from indexer.matching.seqslam import SeqSlam, enhance, line_offsets, match_seqslam
from indexer.matching.thumbnails import thumbnails
from seqdata.errors import ContractError


def windows(count: int, length: int) -> np.ndarray:
    return np.arange(count - length + 1)[:, None] + np.arange(length)


def literal_contrast(apart: list[list[float]], runs: list[int], neighbours: int) -> list[list[float]]:
    """Value by value, the neighbourhood gathered by hand."""
    result = []
    for line in apart:
        new = []
        for at, value in enumerate(line):
            near = [
                line[other]
                for other in range(len(line))
                if abs(other - at) <= neighbours // 2 and runs[other] == runs[at]
            ]
            deviation = np.std(near, ddof=1) if len(near) > 1 else 0.0
            new.append(float((value - np.mean(near)) / deviation) if deviation > 1e-9 else 0.0)
        result.append(new)
    return result


def literal_seqslam(queries: Any, asked: Any, database: Any, stored: Any, runs: Any, k: Any, chosen: Any) -> Any:
    """Every query window, every database window, every velocity, every frame of the line."""
    apart = [[float(np.abs(q - d).mean()) for d in database] for q in queries]
    contrast = literal_contrast(apart, runs, chosen.neighbours)
    scores = np.empty((len(asked), len(stored)))
    for i, window in enumerate(asked):
        middle = (len(window) - 1) // 2
        for j, other in enumerate(stored):
            best = np.inf
            for velocity in chosen.velocities:
                total, inside = 0.0, True
                for place, query in enumerate(window):
                    frame = other[middle] + int(np.floor(round(velocity * (place - middle), 9) + 0.5))
                    if not 0 <= frame < len(database) or runs[frame] != runs[other[middle]]:
                        inside = False
                        break
                    total += contrast[query][frame]
                if inside:
                    best = min(best, total / len(window))
            scores[i, j] = best
    rows = np.argsort(scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(0, 12), st.integers(1, 300), st.integers(0, 999))
def test_equals_direct_loop(length: int, neighbours: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = rng.normal(size=(13, 6)).astype("f4"), rng.normal(size=(26, 6)).astype("f4")
    asked = rng.permutation(windows(13, length))
    cut = int(rng.integers(length, 26 - length + 1))
    stored = np.concatenate([windows(cut, length), cut + windows(26 - cut, length)])
    runs = [0] * cut + [1] * (26 - cut)
    chosen = SeqSlam(neighbours, (0.5, 0.9, 1.0, 1.3))
    distances, rows = match_seqslam(queries, asked, database, stored, 4, settings=chosen, block=block)
    expected, expected_rows = literal_seqslam(queries, asked, database, stored, runs, 4, chosen)
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-4)
    clear = np.diff(expected, axis=1).min(axis=1, initial=np.inf) > 1e-3
    np.testing.assert_array_equal(rows[clear][:, :3], expected_rows[clear][:, :3])


def test_contrast_stays_in_its_run_and_flat_stretches_are_zero() -> None:
    apart = np.array([[1, 2, 3, 50, 60, 70, 7, 7, 7]], np.float32)
    runs = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(enhance(apart, runs, 10), [[-1, 0, 1, -1, 0, 1, 0, 0, 0]], atol=1e-6)
    near_flat = np.full((1, 20), 0.7, np.float32)
    near_flat[0, ::2] += np.float32(6e-8)
    assert (enhance(near_flat, np.zeros(20, int), 10) == 0).all()


def test_reference_neighbourhood_is_five_each_side() -> None:
    apart = np.random.default_rng(0).random((2, 30)).astype("f4")
    made = enhance(apart, np.zeros(30, int), 10)
    near = apart[1, 7:18]
    assert made[1, 12] == pytest.approx((apart[1, 12] - near.mean()) / near.std(ddof=1), rel=1e-5)
    first = apart[0, :6]
    assert made[0, 0] == pytest.approx((apart[0, 0] - first.mean()) / first.std(ddof=1), rel=1e-5)


def test_lines() -> None:
    assert line_offsets(5, (0.8, 0.9, 1.0, 1.1, 1.2)).tolist() == [[-2, -1, 0, 1, 2]]
    assert line_offsets(10, (0.8,)).tolist() == [[-3, -2, -2, -1, 0, 1, 2, 2, 3, 4]]
    assert line_offsets(10, (0.8, 0.9, 1.0, 1.1, 1.2)).shape == (4, 10)  # two lines are one


def test_other_speed_is_found_where_the_diagonal_fails() -> None:
    """The database was driven at 0.8 of the queries' speed."""
    path = np.cumsum(np.random.default_rng(1).normal(size=(300, 16)), axis=0).astype("f4")
    database, queries = path[:240], path[np.arange(0, 280, 5) * 4 // 5]
    asked = windows(len(queries), 11)
    stored = windows(240, 11)
    _, found = match_seqslam(queries, asked, database, stored, 1, settings=SeqSlam(velocities=(4.0,)))
    centres = stored[found[:, 0], 5]
    wanted = asked[:, 5] * 4
    inside = (wanted >= 21) & (wanted < 218)
    assert (np.abs(centres - wanted)[inside] <= 1).mean() > 0.95


def test_refusals() -> None:
    frames = np.zeros((9, 4), np.float32)
    for bad in (windows(9, 1), np.arange(6)[:, None] + 2 * np.arange(2)):
        with pytest.raises(ContractError, match="SeqSLAM"):
            match_seqslam(frames, bad, frames, bad, 1)
    with pytest.raises(ContractError, match="differ in length"):
        match_seqslam(frames, windows(9, 3), frames, windows(9, 2), 1)


@pytest.mark.parametrize("length", [2, 5, 16])
def test_deltas_equal_direct_loop(length: int) -> None:
    frames = np.random.default_rng(length).normal(size=(20, 7)).astype("f4")
    made = deltas(frames, windows(20, length))
    for row, window in zip(made, windows(20, length), strict=True):
        half = length // 2
        gap = frames[window[length - half :]].mean(0) - frames[window[:half]].mean(0)
        np.testing.assert_allclose(row, gap / np.linalg.norm(gap), rtol=1e-4, atol=1e-6)
    with pytest.raises(ContractError, match="two frames"):
        deltas(frames, windows(20, 1))


@pytest.mark.real
def test_nordland_reference(real: Path) -> None:
    """Winter against summer, ds = 10, contrast over five frames each side, plain z-score, within one frame: .894."""
    wanted = (real / "nordland" / "clean_frames.txt").read_text().split()

    def load(season: str) -> np.ndarray:
        with zipfile.ZipFile(real / "nordland" / f"{season}.zip") as archive:
            inside = set(archive.namelist())
            names = [f"{season}/{name}" for name in wanted if f"{season}/{name}" in inside]
            pixels = np.stack([np.asarray(Image.open(archive.open(name)).convert("L")) for name in names])
        return thumbnails(pixels, softening=0)

    summer, winter = load("summer"), load("winter")
    assert len(summer) == len(winter) == 2761
    table = windows(2761, 10)
    _, rows = match_seqslam(winter, table, summer, table, 1)
    assert (np.abs(rows[:, 0] - np.arange(len(table))) <= 1).mean() == pytest.approx(0.894, abs=0.005)

"""What `info` says of a dataset, against slow literal counting."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.info import STANDING_SPEED, STANDING_STEP, TIMED, describe, motion
from tests.conftest import jpeg

Frame = tuple[str, int, float, "int | None"]


def literal(frames: list[Frame]) -> dict:
    """Steps, speeds and standing frames, a frame at a time."""
    steps, speeds, standing, stretches, seconds, timed, was = [], [], 0, 0, 0.0, False, False
    for before, after in zip([None, *frames[:-1]], frames, strict=True):
        still = False
        if before is not None and before[0] == after[0] and before[1] + 1 == after[1]:
            step = after[2] - before[2]
            steps.append(step)
            took = None if None in (before[3], after[3]) else (after[3] - before[3]) / 1e6
            if took is not None and 0 < took <= TIMED:
                timed = True
                speeds.append(step / took)
                still = step / took < STANDING_SPEED
                seconds += took if still else 0
            else:
                still = step < STANDING_STEP
        standing += still
        stretches += still and not was
        was = still
    return {
        "steps": sorted(steps),
        "speeds": sorted(speeds),
        "standing": {"frames": standing, "stretches": stretches, "seconds": seconds if timed else None},
    }


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_motion_against_literal_counting(data: st.DataObject) -> None:
    frames: list[Frame] = []
    for drive in "ab"[: data.draw(st.integers(1, 2))]:
        position, metres, clock = 0, 0.0, 1_400_000_000_000_000
        timed = data.draw(st.booleans())
        for _ in range(data.draw(st.integers(1, 12))):
            frames.append((drive, position, metres, clock if timed else None))
            position += data.draw(st.sampled_from([1, 1, 1, 2]))
            metres += data.draw(st.sampled_from([0.0, 0.02, 0.3, 2.0, 25.0, 400.0]))
            clock += data.draw(st.sampled_from([0, 62_500, 1_000_000, 86_400_000_000]))
    table = pl.DataFrame(
        {
            "city": "x",
            "role": pl.Series([None] * len(frames), dtype=pl.String),
            "trajectory": [frame[0] for frame in frames],
            "position": pl.Series([frame[1] for frame in frames], dtype=pl.Int32),
            "track_m": [frame[2] for frame in frames],
            "time": pl.Series([frame[3] for frame in frames], dtype=pl.Int64),
        }
    )
    (found,) = motion(table.lazy()).to_dicts()
    expected = literal(frames)
    for name, values in (("spacing_m", expected["steps"]), ("speed_m_s", expected["speeds"])):
        if not values:
            assert found[name] is None
            continue
        assert found[name]["max"] == values[-1]
        for key, share in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95)):
            below = values[math.floor(share * (len(values) - 1))], values[math.ceil(share * (len(values) - 1))]
            assert found[name][key] in below
    standing = found["standing"]
    assert (standing["frames"], standing["stretches"]) == (
        expected["standing"]["frames"],
        expected["standing"]["stretches"],
    )
    assert standing["seconds"] == pytest.approx(expected["standing"]["seconds"])
    assert standing["share"] == pytest.approx(
        standing["frames"] / len(expected["steps"]) if expected["steps"] else None
    )


def drive(raw: Path, metres: list[float], clock: Iterator[float] | None) -> seqdata.Dataset:
    """One drive along the easting, with a time for each frame where there is a clock."""
    raw.mkdir(parents=True)
    lines = ["image,easting,northing,zone" + (",time" if clock else "")]
    for number, along in enumerate(metres):
        (raw / f"{number:03d}.jpg").write_bytes(jpeg(number))
        lines.append(f"{number:03d}.jpg,{500_000 + along},5000000,32N" + (f",{next(clock):.6f}" if clock else ""))
    (raw / "positions.csv").write_text("\n".join(lines) + "\n")
    build(BuildRequest("folder", raw, raw.parent / "dataset"))
    return seqdata.open(raw.parent / "dataset")


def test_a_drive_that_halts_twice(tmp_path: Path) -> None:
    """16 Hz: 20 frames at 8 m/s, 32 standing, 20 at 8 m/s, 16 standing, 1 on."""
    steps = [0.5] * 20 + [0.0] * 32 + [0.5] * 20 + [0.01] * 16 + [0.5]
    dataset = drive(tmp_path / "raw", np.cumsum([0.0, *steps]).tolist(), iter(1.4e9 + np.arange(99) / 16))
    described = json.loads(json.dumps(describe(dataset)))
    (group,) = described["groups"]
    assert group["speed_m_s"]["p95"] == group["speed_m_s"]["max"] == pytest.approx(8, abs=1e-3)
    assert group["standing"]["frames"] == 48
    assert group["standing"]["stretches"] == 2
    assert group["standing"]["seconds"] == pytest.approx(3, abs=1e-3)
    assert group["standing"]["share"] == pytest.approx(48 / 89, abs=1e-3)
    assert group["spacing_m"]["max"] == pytest.approx(0.5)
    assert described["resampling"]["kept"] == group["resampled"] < 15
    assert described["resampling"]["note"] == ""


@pytest.mark.parametrize(("step", "said"), [(25.0, "changes nothing: it keeps every frame"), (0.5, "")])
def test_it_says_when_resampling_changes_nothing(step: float, said: str, tmp_path: Path) -> None:
    described = describe(drive(tmp_path / "raw", [step * number for number in range(12)], None))
    assert described["groups"][0]["speed_m_s"] is None
    assert described["groups"][0]["standing"] == {"frames": 0, "share": 0.0, "stretches": 0, "seconds": None}
    assert described["resampling"]["note"].endswith(said)
    assert bool(described["resampling"]["note"]) == bool(said)


def test_one_stop_in_a_wide_drive_is_next_to_nothing(tmp_path: Path) -> None:
    described = describe(drive(tmp_path / "raw", [0, 25, 50, 50, 75, 100], None))
    assert described["resampling"]["note"] == (
        "frames are 25 m apart or more in the median; resampling to 2 m removes 1 frame, 1 recorded while standing"
    )
    assert (described["resampling"]["kept"], described["resampling"]["frames"]) == (5, 6)
    assert described["groups"][0]["standing"]["frames"] == 1


def test_frames_removed_in_motion_are_not_called_standing(tmp_path: Path) -> None:
    """25 m apart in the median, with three frames 1.5 m apart (moving) and one halt."""
    metres = [0, 25, 50, 51.5, 75, 76.5, 100, 101.5, 125, 125, 150, 175, 200]
    described = describe(drive(tmp_path / "raw", metres, None))
    assert described["resampling"]["note"] == (
        "frames are 23.5 m apart or more in the median; resampling to 2 m removes 4 frames, 1 recorded while standing"
    )
    assert described["groups"][0]["standing"]["frames"] == 1


def test_counts_sizes_and_schema(cut_dataset: seqdata.Dataset) -> None:
    described = json.loads(json.dumps(describe(cut_dataset)))
    frames = cut_dataset.frames.collect()
    assert sum(group["frames"] for group in described["groups"]) == described["frames"] == frames.height == 240
    assert sum(group["image_bytes"] for group in described["groups"]) == described["image_bytes"]
    assert described["shard_bytes"] == sum(path.stat().st_size for path in (cut_dataset.path / "shards").glob("*.tar"))
    tables = {table["name"]: table for table in described["tables"]}
    assert tables["frames.parquet"]["rows"] == 240
    assert {table["contract"] for table in tables.values()} >= {"frames", "tracks", "sequences", "positives"}
    assert tables["frames.parquet"]["contract_version"] == 1
    by_role = {group["role"]: group for group in described["groups"]}
    assert by_role["database"]["spacing_m"] == {"p5": 3.0, "p50": 3.0, "p95": 3.0, "max": 3.0}
    assert by_role["database"]["trajectories"] == 2
    assert by_role["query"]["kilometres"] == pytest.approx(0.267)

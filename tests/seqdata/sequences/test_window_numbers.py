"""Numbers of windows: ranges on disk and back, and what stays the same window when trajectories change."""

import numpy as np
import polars as pl
import pytest

from seqdata.errors import ContractError
from seqdata.sequences.sequencer import Sequencer, TrackPolicy
from seqdata.sequences.window_numbers import SplitWindows, WindowNumbers, from_table, renumber, to_table


@pytest.mark.parametrize("numbers", [[], [0, 1, 2], [4, 5, 9, 2, 3], [7]])
def test_ranges_give_the_numbers_back(numbers: list[int]) -> None:
    side = WindowNumbers(np.array(numbers, dtype=np.int64), 12)
    table = to_table({("test", "query"): side, ("test", "database"): WindowNumbers.first(3)})
    again = from_table(table, 12)
    assert list(again) == [("test", "query"), ("test", "database")]
    assert again["test", "query"].numbers.tolist() == numbers
    assert again["test", "query"].next == 12
    rows = side.rows()
    assert [int(rows[number]) for number in numbers] == list(range(1, len(numbers) + 1))
    assert np.count_nonzero(rows) == len(numbers)


@pytest.mark.parametrize(
    "ranges", [[(0, 3), (2, 4), (9, 9)], [(5, 3), (9, 9)], [(0, 20), (9, 9)], [(0, 1), (1 << 40, 1 << 40)]]
)
def test_ranges_of_no_build_are_refused(ranges: list[tuple[int, int]]) -> None:
    table = pl.DataFrame(ranges, schema={"start": pl.Int64, "stop": pl.Int64}, orient="row")
    with pytest.raises(ContractError, match="numbering"):
        from_table(table.with_columns(split=pl.lit("test"), role=pl.lit("query")), 15)


def split_windows(positions: dict[str, list[int]], first_rows: dict[str, int], length: int = 3) -> SplitWindows:
    """Windows over drives that hold some positions; a drive's stored rows begin at a number."""
    parts = [(name, at, first_rows[name] + at) for name, every in positions.items() for at in every]
    frames = pl.DataFrame({"trajectory": [name for name, _, _ in parts], "position": [at for _, at, _ in parts]})
    whole = frames.with_columns(
        clean_position=pl.lit(None, pl.Int32), city=pl.lit("a"), role=pl.lit("query"), zone=pl.lit("32N"),
        easting=pl.col("position").cast(pl.Float64), northing=pl.lit(0.0), heading=pl.lit(0.0),
        panorama=pl.lit(False), resampled=pl.lit(True), subtasks=pl.lit(""),
    )  # fmt: skip
    sequencer = Sequencer(whole)
    table = sequencer.windows(TrackPolicy("keep"), length)
    return SplitWindows(sequencer, np.array([row for _, _, row in parts], dtype=np.int64), table)


def test_windows_that_lost_a_frame_go_and_new_ones_get_new_numbers() -> None:
    first_rows = {"a": 0, "b": 8, "c": 14}
    before = split_windows({"a": list(range(8)), "b": list(range(6))}, first_rows)
    first = WindowNumbers.first(before.table.height)
    assert first.numbers.tolist() == list(range(10))
    grown = split_windows({"a": list(range(8)), "b": list(range(6)), "c": list(range(4))}, first_rows)
    appended, is_new = renumber(None, None, grown, ["c"])
    assert appended.numbers.tolist() == list(range(12))
    assert is_new.tolist() == [False] * 10 + [True] * 2
    lost = split_windows({"a": [0, 1, 2, 3, 5, 6, 7], "b": list(range(6)), "c": list(range(4))}, first_rows)
    changed = split_windows({"a": list(range(8))}, first_rows)
    left, is_new = renumber(appended, changed, lost, ["a"])
    assert left.numbers.tolist() == [0, 1, 5, *range(6, 12)]
    assert not is_new.any()
    assert left.next == 12
    with pytest.raises(ContractError, match="lists 9 windows where the frames make 12"):
        renumber(left, changed, lost, ["a"])

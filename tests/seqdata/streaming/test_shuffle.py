"""The order of an epoch: a permutation, pure, with neighbours near, in lanes that ranks keep, and how well it mixes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdata.errors import ContractError
from seqdata.streaming.shuffle import BLOCK, LANES, OPEN, Shuffle, open_blocks, order
from tests.support.mixing import mixing


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 6000), st.integers(0, 2**31), st.integers(0, 50), st.sampled_from(["blocks", "global", "none"]))
def test_an_order_is_a_permutation_and_pure(windows: int, seed: int, epoch: int, shuffle: Shuffle) -> None:
    rows = order(windows, seed, epoch, shuffle)
    assert rows.dtype == np.int64
    assert (np.sort(rows) == np.arange(windows)).all()
    assert (rows == order(windows, seed, epoch, shuffle)).all()


@pytest.mark.parametrize("shuffle", ["blocks", "global"])
def test_seed_and_epoch_each_give_another_order(shuffle: Shuffle) -> None:
    rows = order(5000, 3, 1, shuffle)
    for other in (order(5000, 3, 2, shuffle), order(5000, 4, 1, shuffle)):
        assert (rows == other).mean() < 0.1


def test_the_order_never_changes_between_versions() -> None:
    """A saved state must mean the same windows for ever: these rows were written down once."""
    assert order(2000, 7, 3)[:6].tolist() == [375, 1875, 1437, 1125, 1750, 875]
    assert order(2000, 7, 3, "global")[:6].tolist() == [859, 1710, 1593, 1057, 1882, 1731]


def test_none_is_the_tables_order() -> None:
    assert order(9, 5, 5, "none").tolist() == list(range(9))


def test_wrong_words_and_numbers_are_refused() -> None:
    with pytest.raises(ContractError, match="blocks, global or none"):
        order(9, 0, 0, "chunks")  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="seed -1"):
        order(9, -1, 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(LANES, 40_000), st.integers(0, 99))
def test_windows_of_a_stretch_stay_near_and_in_their_lane(windows: int, seed: int) -> None:
    """Row r + 1 comes at most two rounds of open blocks after row r, and for the same rank, but at block cuts."""
    rows = order(windows, seed, 0)
    place = np.empty(windows, np.int64)
    place[rows] = np.arange(windows)
    ahead = np.diff(place)
    near = (ahead > 0) & (ahead < 2 * open_blocks(windows))
    blocks = LANES * -(-windows // (LANES * BLOCK))
    assert (~near).sum() <= blocks - 1
    for ranks in (2, 4, 8):
        strays = near & (place[1:] % ranks != place[:-1] % ranks)
        # Two whole blocks of one stretch may follow each other by chance; inside a block none may stray.
        cuts = np.arange(1, blocks) * windows // blocks - 1
        assert not np.delete(strays, cuts).any()


def test_open_blocks_bound_the_frames_in_use() -> None:
    assert open_blocks(100) == LANES
    assert open_blocks(1_000_000) == OPEN
    rows = order(100_000, 1, 1)
    blocks = LANES * -(-100_000 // (LANES * BLOCK))
    cuts = np.arange(blocks + 1) * 100_000 // blocks
    block = np.searchsorted(cuts, rows, side="right")
    in_use = [len(np.unique(block[start : start + 200])) for start in range(0, 99_000, 700)]
    assert max(in_use) <= 2 * OPEN
    assert np.median(in_use) <= OPEN
    assert min(in_use) > OPEN // 2  # the last blocks are mixed too


def test_mixing_against_a_literal_count() -> None:
    """A global shuffle scores 1, the table's own order as few blocks as fit, and the formula is the literal mean."""
    shuffled = np.random.default_rng(1).permutation(64 * 50)
    assert mixing(shuffled, 32) == pytest.approx(1.0, abs=0.02)
    rows = order(64 * 50, 0, 0, "none")
    drawn = [len({int(row) // BLOCK for row in np.random.default_rng(n).permutation(3200)[:32]}) for n in range(400)]
    assert mixing(rows, 32) == pytest.approx(1.0 / np.mean(drawn), rel=0.02)
    assert mixing(order(100_000, 0, 0), 32) > 0.9

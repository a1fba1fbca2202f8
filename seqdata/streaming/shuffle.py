"""The order of an epoch: a pure function of (number of windows, seed, epoch), the same for any ranks and workers.

Convention: a *block* is a stretch of about `BLOCK` neighbouring rows of the window table, so its windows share frames.
Blocks are shuffled and opened at most `OPEN` at a time; each round takes the next window of every open block, in a
fresh order. Position p of a full round belongs to *lane* p mod `LANES`, and a block never leaves its lane, so ranks
that take every R-th position (R divides `LANES`) never decode each other's frames. The constants are part of the
order: another value is another order.
"""

from typing import Literal

import numpy as np

from seqdata.errors import ContractError
from seqdata.geometry import IntArray

Shuffle = Literal["blocks", "global", "none"]

# A block of 64 windows of 5 frames holds 68 frames, each decoded about once. 8 lanes serve 1, 2, 4 or 8 ranks. How
# well 64 open blocks mix is measured by bench_stream.
BLOCK = 64
LANES = 8
OPEN = 64


def order(windows: int, seed: int, epoch: int, shuffle: Shuffle = "blocks") -> IntArray:
    """Order the rows of a window table.

    Args:
        windows: Number of rows.
        seed: At least 0.
        epoch: At least 0.
        shuffle: "blocks" keeps neighbours near, so that decoded frames are used again; "global" is a uniform
            permutation; "none" is the table's own order.

    Returns:
        Rows int64 (windows,), each once; the same for equal arguments on every machine.

    Raises:
        ContractError: For another word, or a negative seed or epoch.

    Example:
        >>> order(4, seed=0, epoch=1, shuffle="none").tolist()
        [0, 1, 2, 3]
        >>> sorted(order(1000, seed=0, epoch=1).tolist()) == list(range(1000))
        True
    """
    if min(seed, epoch) < 0:
        raise ContractError(f"seed {seed}, epoch {epoch}: expected whole numbers from 0 on")
    # The generator is named, not numpy's default of the day: an order is stored in runs by its seed and must stay.
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    if shuffle == "blocks":
        return _by_blocks(windows, generator)
    if shuffle == "global":
        return generator.permutation(windows)
    if shuffle == "none":
        return np.arange(windows)
    raise ContractError(f"shuffle '{shuffle}': expected blocks, global or none")


def open_blocks(windows: int) -> int:
    """Blocks open at once in an epoch of `windows` windows: as many stretches of frames are in use at a time."""
    return min(OPEN, _blocks(windows))


def _blocks(windows: int) -> int:
    return LANES * max(1, -(-windows // (LANES * BLOCK)))


def _by_blocks(windows: int, generator: np.random.Generator) -> IntArray:
    count = _blocks(windows)
    edges = np.arange(count + 1) * windows // count
    dealt = generator.permutation(count).reshape(-1, LANES)
    opened = [blocks.ravel() for blocks in np.array_split(dealt, -(-count // OPEN))]
    return np.concatenate([_rounds(edges[blocks], np.diff(edges)[blocks], generator) for blocks in opened])


def _rounds(start: IntArray, size: IntArray, generator: np.random.Generator) -> IntArray:
    """Rows of the open blocks, round by round; sizes differ by one at most, and longer blocks stand first.

    Standing first keeps the last, shorter round in the lanes of the full ones.
    """
    longer = np.argsort(-size, kind="stable")
    start, size = start[longer], size[longer]
    full = int(size.min())
    # Row r of `walk` is round r: the r-th window of every open block. Shuffling within lanes keeps blocks in theirs.
    walk = start + np.arange(full)[:, None]
    mixed = generator.permuted(walk.reshape(full, len(start) // LANES, LANES), axis=1)
    return np.concatenate([mixed.ravel(), start[size > full] + full])

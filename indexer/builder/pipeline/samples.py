"""Which windows an index is fitted on, and which it is measured by."""

import logging
from dataclasses import dataclass

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset
from seqdata.geometry import IntArray

logger = logging.getLogger(__name__)

HELD_OUT = 500
"""Query windows that an index is measured by: recall within about ±1 % at .99."""


@dataclass(frozen=True)
class HeldOut:
    """Query windows that an index is measured by, and whose they are ("val queries")."""

    windows: pl.DataFrame
    queries_of: str


def held_out(dataset: Dataset, protocol: Protocol, indexed: str, database: pl.DataFrame, seed: int) -> HeldOut | None:
    """Draw query windows that an index is measured by, from the validation split, else from train.

    Args:
        dataset: The dataset.
        protocol: Cuts the windows.
        indexed: The split whose database is indexed; its own queries are never used.
        database: Its windows; queries that share a frame with them are left out.
        seed: Seed of the draw, which takes the same share of every trajectory.

    Returns:
        Up to 500 windows, or None where no split has any: an index is then measured by rows of its own.
    """
    database_frames = np.unique(dataset.frame_rows(database))
    for split in ("val", "train"):
        if split == indexed or split not in protocol.splits:
            continue
        windows = dataset.sequences(protocol, split, "query")
        if windows.height:
            shared = np.isin(dataset.frame_rows(windows), database_frames).any(axis=1)
            windows = windows.filter(pl.Series(~shared))
        if windows.height:
            rows = stratified_rows(windows["trajectory"], min(HELD_OUT, windows.height), seed)
            return HeldOut(windows[rows], f"{split} queries")
    return None


def pca_sample(
    dataset: Dataset, protocol: Protocol, indexed: str, count: int | None, seed: int
) -> tuple[str, pl.DataFrame]:
    """Draw the windows that PCA is fitted on, from train, or from the indexed split where there is no train.

    Args:
        dataset: The dataset.
        protocol: Cuts the windows.
        indexed: The split whose database is indexed.
        count: Most windows; None for all.
        seed: Seed of the draw.

    Returns:
        The split, and its database windows.
    """
    split = "train" if "train" in protocol.splits else indexed
    windows = dataset.sequences(protocol, split, "database")
    if not windows.height:
        logger.warning("split %s has no database window here: PCA is fitted on split %s itself", split, indexed)
        split, windows = indexed, dataset.sequences(protocol, indexed, "database")
    if count is None or windows.height <= count:
        return split, windows
    return split, windows[stratified_rows(windows["trajectory"], count, seed)]


def stratified_rows(trajectory: pl.Series, count: int, seed: int) -> IntArray:
    """Draw `count` rows int64 (count,), rising, at random with the same share of every trajectory.

    >>> stratified_rows(pl.Series(["a"] * 8 + ["b"] * 4), 3, seed=0).tolist()
    [2, 3, 11]
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.random(len(trajectory))
    codes = trajectory.rank("dense").to_numpy()
    # Rows by trajectory, shuffled within. Each gets its rank divided by the length of its trajectory, so that cutting
    # all trajectories at one value takes the same share of each.
    order = np.lexsort((shuffled, codes))
    sizes = np.bincount(codes)[codes[order]]
    firsts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    within = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    # A random offset within its step, or short trajectories would always come first.
    share = (within + generator.random(len(order))) / sizes
    return np.sort(order[np.argsort(share, kind="stable")[:count]])

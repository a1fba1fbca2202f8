"""Which windows an index is fitted on, and which it is measured by."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from seqdata.contracts.protocol import Protocol
from seqdata.dataset.dataset import Dataset

logger = logging.getLogger(__name__)

HELD_OUT = 500


@dataclass(frozen=True)
class HeldOut:
    """Query windows that an index is measured by, and whose they are ("val queries")."""

    windows: pl.DataFrame
    queries_of: str


def held_out(dataset: Dataset, protocol: Protocol, indexed: str, database: pl.DataFrame, seed: int) -> HeldOut | None:
    """Up to 500 query windows of the validation split, else of train: the same share of every trajectory, seeded.

    None where those splits have no query, are the `indexed` split themselves, or share all frames with its `database`:
    an index is then measured by rows of its own.
    """
    stored = np.unique(dataset.frame_rows(database))
    for split in ("val", "train"):
        if split == indexed or split not in protocol.splits:
            continue
        windows = dataset.sequences(protocol, split, "query")
        if windows.height:
            shared = np.isin(dataset.frame_rows(windows), stored).any(axis=1)
            windows = windows.filter(pl.Series(~shared))
        if windows.height:
            rows = stratified_rows(windows["trajectory"], min(HELD_OUT, windows.height), seed)
            return HeldOut(windows[rows], f"{split} queries")
    return None


def pca_sample(
    dataset: Dataset, protocol: Protocol, indexed: str, count: int | None, seed: int
) -> tuple[str, pl.DataFrame]:
    """Windows that PCA is fitted on, and the split they are of: train, or the `indexed` one where there is no train.

    At most `count` of its database windows, all without one.
    """
    split = "train" if "train" in protocol.splits else indexed
    windows = dataset.sequences(protocol, split, "database")
    if not windows.height:
        logger.warning("split %s has no database window here: PCA is fitted on split %s itself", split, indexed)
        split, windows = indexed, dataset.sequences(protocol, indexed, "database")
    if count is None or windows.height <= count:
        return split, windows
    return split, windows[stratified_rows(windows["trajectory"], count, seed)]


def stratified_rows(trajectory: pl.Series, count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`count` rows, rising, drawn at random with the same share of every trajectory: int64 (count,)."""
    generator = np.random.default_rng(seed)
    shuffled = generator.random(len(trajectory))
    codes = trajectory.rank("dense").to_numpy()
    order = np.lexsort((shuffled, codes))
    sizes = np.bincount(codes)[codes[order]]
    firsts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    within = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    share = (within + generator.random(len(order))) / sizes
    return np.sort(order[np.argsort(share, kind="stable")[:count]])

"""Mined triplets of a round on disk, with what they were mined from: a resumed round trains on the same ones."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqdata.errors import ContractError
from seqdata.storage.parquet import read_metadata, read_parquet, write_parquet_atomic
from train.sampling.mining import Triplets

SCHEMA = {"query": pl.Int64(), "positive": pl.Int64(), "negatives": pl.List(pl.Int64())}


@dataclass(frozen=True)
class Origin:
    """What triplets belong to: dataset id, protocol hash, hash of the weights they were mined with, epoch, round."""

    dataset: str
    protocol: str
    weights: str
    epoch: int
    round: int

    def path(self, folder: Path) -> Path:
        """Path of their file below `folder`."""
        return folder / f"epoch-{self.epoch:04d}-round-{self.round:02d}.parquet"


def save(folder: Path, triplets: Triplets, origin: Origin) -> None:
    """Write triplets: rows of the query table, of the database table, and lists of the latter.

    Raises:
        OutputError: When it cannot be written.
    """
    columns = {"query": triplets.query, "positive": triplets.positive, "negatives": triplets.negatives.tolist()}
    metadata = {key: str(value) for key, value in asdict(origin).items()}
    write_parquet_atomic(pl.DataFrame(columns, schema=SCHEMA), origin.path(folder), metadata)


def load(folder: Path, origin: Origin) -> Triplets:
    """Read the triplets of `origin`.

    Raises:
        ContractError: If they are missing, or were mined from something else.
    """
    path = origin.path(folder)
    if not path.is_file():
        raise ContractError(f"{path}: missing, though the run stopped in this round; start a new run with --out")
    # Weights and epoch are compared too: triplets mined by other weights are no longer the hard ones.
    metadata = read_metadata(path)
    for field, value in asdict(origin).items():
        if metadata.get(field) != str(value):
            raise ContractError(
                f"{path}: stale tuples, {field} is {metadata.get(field)} there and {value} in this run; "
                "start a new run with --out"
            )
    table = read_parquet(path)
    if not _is_whole(table):
        raise ContractError(f"{path}: no table of mined triplets, or damaged; start a new run with --out")
    negatives = np.array(table["negatives"].to_list(), np.int64)
    return Triplets(table["query"].to_numpy(), table["positive"].to_numpy(), negatives)


def _is_whole(table: pl.DataFrame) -> bool:
    """Whether a table holds triplets: its columns, no empty or negative rows, lists of one length."""
    if table.schema != pl.Schema(SCHEMA) or any(table.null_count().row(0)):
        return False
    rows = pl.concat([table["query"], table["positive"], table["negatives"].explode()])
    return table["negatives"].list.len().n_unique() <= 1 and not rows.null_count() and not (rows < 0).any()

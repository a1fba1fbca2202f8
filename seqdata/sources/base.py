"""What a source is: a listing of frame records, and a way to read one image's bytes."""

from dataclasses import dataclass
from typing import Protocol

import polars as pl

import seqdata.protocols
from seqdata.contracts.tables import table_contract
from seqdata.frames.images import Pixels


@dataclass(frozen=True)
class Listing:
    """All that a dump holds.

    Attributes:
        records: The frames to store, by the contract `records`, sorted by (city, role, trajectory, position).
        quarantine: The inputs that are left out already, by the contract `quarantine`.
        notes: Sentences for the user about how the dump was read; they are not stored.
    """

    records: pl.DataFrame
    quarantine: pl.DataFrame
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One raw dump at one place; what `open` of a kind's module returns (see `seqdata.sources.registry`).

    Attributes:
        attribution: Credits the dump's makers and names its licence.
    """

    attribution: str

    def listing(self) -> Listing:
        """List every frame of the dump.

        Raises:
            InputError: If the dump is of another kind.
            ContractError: If a table of it is bad.
        """
        ...

    def read(self, source: str) -> bytes | Pixels:
        """Read the image that a record's `source` names: its bytes, or RGB pixels where the source decodes by itself.

        Raises:
            FileNotFoundError, KeyError: If it is gone.
            BadImageError: `unreadable_image`, if it is there but cannot be read.
            OSError: For what is no fault of the file.
        """
        ...

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Check that the dump holds what `protocol` needs; by default it does.

        Raises:
            InputError: If it does not; the message names what is missing.
        """
        return None

    def pinned_options(self, protocol: seqdata.protocols.Protocol) -> dict[str, tuple[str, str]]:
        """Options that `protocol` pins to another value than this source has: option → (pinned value, own value).

        By default none: most dumps are read in one way.
        """
        return {}


def quarantine_rows(frames: pl.DataFrame, reason: str, message: str) -> pl.DataFrame:
    """Make quarantine rows for frames.

    Args:
        frames: One row a frame: `source`; `key`, `trajectory` and `position` are taken where present.
        reason: Code of `docs/errors.md`.
        message: What is wrong. It is stored and part of the dataset's id, so it must follow from the input alone.
    """
    rows = frames.with_columns(pl.lit(reason).alias("reason"), pl.lit(message).alias("message"))
    return table_contract("quarantine").conform(rows)


def quarantine_skipped(archive: str, skipped: pl.DataFrame) -> pl.DataFrame:
    """Make quarantine rows for what is never read from `archive` (its name below the dump): columns name, message."""
    rows = skipped.select(
        (pl.lit(f"{archive}!") + pl.col("name")).alias("source"),
        pl.lit("unreadable_image").alias("reason"),
        (pl.lit("never read from an archive: ") + pl.col("message")).alias("message"),
    )
    return table_contract("quarantine").conform(rows)


def split_duplicates(records: pl.DataFrame) -> Listing:
    """Keep the first record of each key; the others go to quarantine as `duplicate_key`."""
    # Keys name samples in shards: of equal ones a reader would see one frame and lose the other.
    first = pl.col("key").is_first_distinct()
    return Listing(
        records=table_contract("records").conform(records.filter(first)),
        quarantine=quarantine_rows(records.filter(~first), "duplicate_key", "another frame has the same key"),
    )

"""What a source is: a listing of frame records, and a way to read one image's bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import polars as pl

import seqdata.protocols
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError


@dataclass(frozen=True)
class Listing:
    """All that a dump holds: frame records to store and inputs that are left out already.

    `records` follows the contract `records`, sorted by (city, role, trajectory, position); `quarantine` follows the
    contract `quarantine`.
    """

    records: pl.DataFrame
    quarantine: pl.DataFrame


class Source(Protocol):
    """One kind of raw dump at one place; a module of this package has `open(raw, options)` that returns it.

    `attribution` credits the dump's makers and names its licence.
    """

    attribution: str

    def listing(self) -> Listing:
        """Every frame of the dump. Raises: InputError when it is of another kind, ContractError for a bad table."""
        ...

    def read(self, source: str) -> bytes:
        """The bytes of the image that a record's `source` names.

        Raises: FileNotFoundError or KeyError when it is gone, BadImageError (`unreadable_image`) when it is there but
        cannot be read, OSError for what is no fault of the file.
        """
        ...

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Nothing where the dump holds what `protocol` needs. Raises: InputError that names what is missing."""
        ...

    def pinned_options(self, protocol: seqdata.protocols.Protocol) -> dict[str, tuple[str, str]]:
        """Options that `protocol` pins to another value than this source has: option → (pinned value, own value)."""
        ...


def take_option(options: dict[str, str], name: str, default: str = "") -> str:
    """Remove and return one option."""
    return options.pop(name, default)


def refuse_unknown(options: Mapping[str, str], kind: str, known: str) -> None:
    """Raise ContractError when options are left that the source does not know."""
    if options:
        raise ContractError(f"source {kind} has no option '{next(iter(options))}'; it has {known}")


def quarantine_rows(frames: pl.DataFrame, reason: str, message: str) -> pl.DataFrame:
    """Quarantine rows for `frames` (needs `source`; key, trajectory and position are taken where present)."""
    rows = frames.with_columns(pl.lit(reason).alias("reason"), pl.lit(message).alias("message"))
    return table_contract("quarantine").conform(rows)


def quarantine_skipped(archive: str, skipped: pl.DataFrame) -> pl.DataFrame:
    """Quarantine rows for what is never read from `archive` (its name below the dump): columns name and message."""
    rows = skipped.select(
        (pl.lit(f"{archive}!") + pl.col("name")).alias("source"),
        pl.lit("unreadable_image").alias("reason"),
        (pl.lit("never read from an archive: ") + pl.col("message")).alias("message"),
    )
    return table_contract("quarantine").conform(rows)


def split_duplicates(records: pl.DataFrame) -> Listing:
    """Keep the first record of each key; the others go to quarantine as `duplicate_key`."""
    first = pl.col("key").is_first_distinct()
    return Listing(
        records=table_contract("records").conform(records.filter(first)),
        quarantine=quarantine_rows(records.filter(~first), "duplicate_key", "another frame has the same key"),
    )

"""A dataset that is positions alone: window tables, frame rows and positives, and no pixels behind them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seqdata import protocols
from seqdata.contracts.protocol import Protocol
from seqdata.sequences.positives import positives
from seqdata.sequences.tiles import WindowSet

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "msls-positions"
PROTOCOL = """
name = "positions"
source = "none"
length = {length}
unit = "metres"
rule = "any"
radius = 25.0
pool = "together"
[train]
positive_radius = 10.0
negative_radius = 25.0
rule = "any"
[splits.train]
"""


@dataclass
class PositionsDataset:
    """Frames drive after drive: columns trajectory, role, city (strings), easting, northing (metres)."""

    table: pl.DataFrame
    id: str = "0" * 64
    location: str = "positions"
    address: str = "positions"
    is_shared: bool = False

    def __post_init__(self) -> None:
        self._xy = self.table.select("easting", "northing").to_numpy()
        self._group = self.table["city"].rank("dense").to_numpy().astype(np.int64)

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return self.table.height

    def load_protocol(self, protocol: str | Path | Protocol) -> Protocol:
        """The protocol of a file."""
        return protocol if isinstance(protocol, Protocol) else protocols.load(str(protocol))

    def sequences(self, protocol: Protocol, split: str | None = None, role: str | None = None) -> pl.DataFrame:
        """Every stride-1 window of a role within one drive."""
        drive = self.table["trajectory"].rle_id().to_numpy()
        last = protocol.length - 1
        first = np.flatnonzero(drive[: len(drive) - last] == drive[last:]).astype(np.int32)
        at = self.table.select("trajectory", "role", "city")[first]
        fixed = {"track": pl.lit("all"), "length": pl.lit(protocol.length), "step": pl.lit(1), "split": pl.lit("train")}
        windows = at.with_columns(first=pl.Series(first), centre=pl.Series(first + last // 2), **fixed)
        return windows.filter(role is None or pl.col("role") == role)

    def frame_rows(self, table: pl.DataFrame) -> NDArray[np.int64]:
        """Frame rows `(n, L)`."""
        return table["first"].to_numpy().astype(np.int64)[:, None] + np.arange(int(table["length"][0]))

    def positives(
        self,
        query: pl.DataFrame,
        database: pl.DataFrame,
        radius: float,
        rule: str,
        unit: str,
        heading_max: object = None,
    ) -> pl.DataFrame:
        """Pairs of windows with any frames nearer than `radius` metres, in one city."""
        sides = (
            WindowSet.from_coordinates(self._xy, at, table["length"].to_numpy(), group=self._group[at])
            for table in (query, database)
            for at in (table["first"].to_numpy().astype(np.int64),)
        )
        return positives(*sides, radius=radius)

    def pair_finder(
        self, database: pl.DataFrame, radius: float, rule: str, unit: str
    ) -> Callable[[pl.DataFrame], pl.DataFrame]:
        """As `positives`, with one database."""
        return lambda query: self.positives(query, database, radius, rule, unit)


def real_city(name: str) -> pl.DataFrame:
    """The frames of a city of the MSLS sample, its database then its queries."""
    parts = []
    for role in ("database", "query"):
        frames = pl.read_csv(REAL / f"{name}-{role}.csv")
        trajectory = pl.format(role + "-{}", "sequence_start")
        parts.append(frames.select("easting", "northing", trajectory=trajectory, role=pl.lit(role), city=pl.lit(name)))
    return pl.concat(parts)


def write_protocol(folder: Path, length: int) -> str:
    """The training protocol of these windows: 10 m and 25 m, any frame to any frame."""
    path = folder / "positions.toml"
    path.write_text(PROTOCOL.format(length=length))
    return str(path)

"""A team's own drives: images in a folder, and a CSV that says where each was taken.

Convention: the CSV names `image` (path below the folder, a backslash counts as /) and either `latitude, longitude`
(WGS84 degrees) or `easting, northing, zone` (UTM metres; `zone` such as 32N or 56S, southern northings with the false
northing; rows of several zones are brought into that of the median position). Optional: `time` (ISO 8601, UTC where it
names no offset, or seconds since 1970), `heading` (degrees clockwise from north), `drive`, `role` (database or query).
Columns are separated by comma, semicolon or tab. Frames of a drive are ordered by time where all of it have one, else
in the CSV's order; a drive with both roles becomes the trajectories `<drive>/database` and `<drive>/query`.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

import seqdata.protocols
from seqdata.errors import InputError
from seqdata.sources.base import (
    Listing,
    find_images,
    inside,
    quarantine_rows,
    reading,
    refuse_unknown,
    split_duplicates,
    take_option,
)
from seqdata.sources.folder_csv import read_positions
from seqdata.storage import xxh3_hex

DEFAULT_PROTOCOL = "own"


def open(raw: Path, options: dict[str, str]) -> "FolderSource":
    """The drives at `raw`; option `positions` names the CSV (default positions.csv in the folder)."""
    positions = take_option(options, "positions")
    refuse_unknown(options, "folder", "positions")
    return FolderSource(raw, positions)


@dataclass(frozen=True)
class FolderSource:
    """A folder of images with a CSV of positions."""

    raw: Path
    positions: str = ""
    attribution: str = "the user's own drives"

    def listing(self) -> Listing:
        """Every frame.

        Raises: InputError without images, CSV or rows, ContractError for a missing column or a value that is none.
        """
        path = Path(self.positions) if self.positions else self.raw / "positions.csv"
        rows = read_positions(path)
        images = pl.DataFrame(
            find_images(self.raw, "**/*"), schema={"source": pl.String, "bytes": pl.Int64}, orient="row"
        )
        if not images.height:
            raise InputError(f"{self.raw}: no .jpg or .png image below it")
        named = pl.col("source") != ""
        joined = rows.filter(named).join(images, on="source", how="left", maintain_order="left")
        nameless = rows.filter(~named).with_columns(pl.format("{} row {}", pl.lit(path.name), "row").alias("source"))
        placed, present = pl.col("easting").is_not_null(), pl.col("bytes").is_not_null()
        kept = split_duplicates(_finish(joined.filter(present & placed)))
        left_out = [
            quarantine_rows(nameless, "missing_image", "the row names no image (row 1 follows the header)"),
            quarantine_rows(joined.filter(~present), "missing_image", f"listed in {path.name}, but no such image file"),
            quarantine_rows(joined.filter(present & ~placed), "no_position", f"no usable position in {path.name}"),
            quarantine_rows(
                images.join(rows, on="source", how="anti"), "no_row", f"an image without a row in {path.name}"
            ),
        ]
        return Listing(kept.records, pl.concat([*left_out, kept.quarantine]))

    def read(self, source: str) -> bytes:
        """The bytes of one image."""
        with reading(source):
            return inside(self.raw, source).read_bytes()

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Nothing: the dump has no clean list to miss."""


def _finish(rows: pl.DataFrame) -> pl.DataFrame:
    """The remaining fields of the record; keys come from the path, with what a shard's key may not hold replaced."""
    stem = pl.col("source").str.replace(r"\.[A-Za-z]+$", "").str.replace_all(r"[^A-Za-z0-9_-]+", "_")
    clash = stem.is_duplicated() | (stem.str.len_bytes() > 80)
    digest = pl.col("source").map_elements(_short_digest, return_dtype=pl.String)
    return rows.with_columns(
        pl.when(clash).then(stem.str.slice(0, 60) + "-" + digest).otherwise(stem).alias("key"),
        pl.lit("own").alias("city"),
        pl.lit(value=False).alias("night"),
        pl.lit(value=False).alias("panorama"),
        pl.lit(None, pl.String).alias("view_direction"),
        pl.lit("").alias("subtasks"),
    ).sort("role", "trajectory", "position", nulls_last=True, maintain_order=True)


def _short_digest(source: str) -> str:
    return xxh3_hex(source.encode())[:12]

"""A team's own drives: images in a folder, and a CSV that says where each was taken.

Convention: the CSV names `image` (path below the folder) and either `latitude, longitude` (WGS84 degrees) or `easting,
northing, zone` (UTM metres; `zone` such as 32N or 56S, southern northings with the false northing). Optional: `time`
(ISO 8601 or seconds since 1970), `heading` (degrees clockwise from north), `drive`, `role` (database or query). Frames
of a drive are ordered by time where all have one, else in the CSV's order.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata import geometry
from seqdata.errors import ContractError, InputError
from seqdata.sources.base import (
    Listing,
    inside,
    is_image,
    quarantine_rows,
    read_csv,
    refuse_unknown,
    split_duplicates,
    take_option,
)

DEFAULT_PROTOCOL = "own"
_NUMBERS: dict[str, pl.DataType] = {
    name: pl.Float64() for name in ("latitude", "longitude", "easting", "northing", "heading")
}


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
        """Every frame. Raises: InputError without images or CSV, ContractError for a missing or wrong column."""
        path = Path(self.positions) if self.positions else self.raw / "positions.csv"
        rows = _read_positions(path)
        images = _find_images(self.raw)
        if not images.height:
            raise InputError(f"{self.raw}: no .jpg or .png image below it")
        joined = rows.join(images, on="source", how="left", maintain_order="left")
        placed = pl.all_horizontal(pl.col("latitude", "longitude", "easting", "northing").is_not_null())
        present = pl.col("bytes").is_not_null()
        kept = split_duplicates(_finish(joined.filter(present & placed)))
        left_out = [
            quarantine_rows(joined.filter(~present), "missing_image", f"listed in {path.name}, but no such image file"),
            quarantine_rows(joined.filter(present & ~placed), "no_position", f"no usable position in {path.name}"),
            quarantine_rows(
                images.join(rows, on="source", how="anti"), "no_row", f"an image without a row in {path.name}"
            ),
        ]
        return Listing(kept.records, pl.concat([*left_out, kept.quarantine]))

    def read(self, source: str) -> bytes:
        """The bytes of one image."""
        return inside(self.raw, source).read_bytes()


def _find_images(raw: Path) -> pl.DataFrame:
    """All images below `raw`, sorted: source (relative path) and bytes."""
    paths = sorted(path for path in raw.rglob("*") if is_image(path.name) and path.is_file())
    found = [(path.relative_to(raw).as_posix(), path.stat().st_size) for path in paths]
    return pl.DataFrame(found, schema={"source": pl.String, "bytes": pl.Int64}, orient="row")


def _read_positions(path: Path) -> pl.DataFrame:
    """The CSV with both coordinate pairs filled in, one zone a city, in driving order with `position`."""
    header = read_csv(path, {"image": pl.String()})
    geographic = {"latitude", "longitude"} <= set(header.columns)
    if not geographic:
        read_csv(path, {"easting": pl.Float64(), "northing": pl.Float64(), "zone": pl.String()})
    wanted = {name: kind for name, kind in _NUMBERS.items() if name in header.columns}
    rows = read_csv(path, {"image": pl.String(), **wanted})
    rows = rows.select(
        pl.col("image").alias("source"),
        *wanted,
        *_text(rows, "zone"),
        _text(rows, "drive", "drive")[0].alias("trajectory"),
        _role(rows, path),
        _time(rows),
    )
    placed = _from_geographic(rows) if geographic else _from_utm(rows, path)
    timed = placed.sort("time", maintain_order=True) if not placed["time"].null_count() else placed
    order = timed.sort("trajectory", maintain_order=True)
    return order.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("trajectory").alias("position"))


def _text(rows: pl.DataFrame, name: str, default: str = "") -> list[pl.Expr]:
    """The text column `name` (nothing when absent and without a default)."""
    if name in rows.columns:
        return [pl.col(name).fill_null(default).str.strip_chars().replace("", default).alias(name)]
    return [pl.lit(default).alias(name)] if default else []


def _role(rows: pl.DataFrame, path: Path) -> pl.Expr:
    """The role column, null when absent. Raises: ContractError for another word."""
    if "role" not in rows.columns:
        return pl.lit(None, pl.String).alias("role")
    found = set(rows["role"].drop_nulls().str.strip_chars().to_list()) - {"database", "query", ""}
    if found:
        raise ContractError(f"{path}: column 'role' has '{min(found)}'; it takes database, query or nothing")
    return pl.col("role").str.strip_chars().replace("", None).alias("role")


def _time(rows: pl.DataFrame) -> pl.Expr:
    """Microseconds since 1970 from ISO text or seconds."""
    if "time" not in rows.columns:
        return pl.lit(None, pl.Int64).alias("time")
    seconds = (pl.col("time").cast(pl.Float64, strict=False) * 1e6).round().cast(pl.Int64, strict=False)
    iso = (
        pl.col("time").str.replace("Z$", "").str.replace(" ", "T").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False)
    )
    return pl.coalesce(seconds, iso.cast(pl.Int64)).alias("time")


def _from_geographic(rows: pl.DataFrame) -> pl.DataFrame:
    """Add zone, easting and northing; rows off the globe lose their position (and go to quarantine)."""
    sane = pl.col("latitude").is_between(-80, 84) & pl.col("longitude").is_between(-180, 180)
    rows = rows.with_columns(pl.when(sane).then(pl.col(name)).alias(name) for name in ("latitude", "longitude"))
    known = rows.filter(pl.col("latitude").is_not_null() & pl.col("longitude").is_not_null())
    if not known.height:
        return rows.with_columns(
            pl.lit("").alias("zone"), *(pl.lit(None, pl.Float64).alias(n) for n in ("easting", "northing"))
        )
    zone = geometry.choose_zone(known["latitude"].to_numpy(), known["longitude"].to_numpy())
    easting, northing = geometry.to_utm(rows["latitude"].to_numpy(), rows["longitude"].to_numpy(), zone)
    return rows.with_columns(
        pl.lit(zone).alias("zone"),
        pl.Series("easting", easting).fill_nan(None),
        pl.Series("northing", northing).fill_nan(None),
    )


def _from_utm(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Add latitude and longitude, zone by zone. Raises: ContractError for a zone that is none."""
    parts = []
    for (zone,), part in rows.group_by(["zone"], maintain_order=True):
        try:
            geometry.parse_zone(str(zone))
        except InputError as error:
            raise ContractError(f"{path}: column 'zone': {error}") from error
        latitude, longitude = geometry.to_latlon(part["easting"].to_numpy(), part["northing"].to_numpy(), str(zone))
        parts.append(
            part.with_columns(
                pl.Series("latitude", latitude).fill_nan(None),
                pl.Series("longitude", longitude).fill_nan(None),
            )
        )
    return pl.concat(parts) if parts else rows


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
    from seqdata.storage import xxh3_hex

    return xxh3_hex(source.encode())[:12]

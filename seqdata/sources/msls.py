"""MSLS as it unpacks: `train_val|test/<city>/{query,database}/images/<key>.jpg` and four CSVs a folder.

Convention: the published eastings and northings are used, but southern northings get the 10,000 km false northing that
the dump leaves out, and a city has one zone: positions published in a neighbouring zone are projected again from their
latitude and longitude. `position` is the dump's frame_number, so a removed image breaks windows.
Source: the dataset's own files and tools (MSLS, CVPR 2020).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import seqdata.protocols
from seqdata import geometry
from seqdata.errors import InputError
from seqdata.sources.base import (
    Listing,
    inside,
    list_images,
    on_globe,
    quarantine_rows,
    read_csv,
    reading,
    refuse_unknown,
    split_duplicates,
    take_option,
)

DEFAULT_PROTOCOL = "msls-seqvlad"
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
FALSE_NORTHING = 1e7
SAME_ZONE_METRES = 1000.0
_CSV_COLUMNS: dict[str, dict[str, pl.DataType]] = {
    "seq_info.csv": {"key": pl.String(), "sequence_key": pl.String(), "frame_number": pl.Int32()},
    "postprocessed.csv": {
        "key": pl.String(),
        "easting": pl.Float64(),
        "northing": pl.Float64(),
        "night": pl.Boolean(),
        "view_direction": pl.String(),
    },
    "raw.csv": {
        "key": pl.String(),
        "lon": pl.Float64(),
        "lat": pl.Float64(),
        "captured_at": pl.String(),
        "pano": pl.Boolean(),
    },
    "subtask_index.csv": {name: pl.Boolean() for name in SUBTASKS},
}


def open(raw: Path, options: dict[str, str]) -> "MslsSource":
    """The MSLS dump at `raw`; option `cities` is a comma-separated list of exact city names."""
    cities = tuple(name for name in take_option(options, "cities").split(",") if name)
    refuse_unknown(options, "msls", "cities")
    return MslsSource(raw, cities)


@dataclass(frozen=True)
class MslsSource:
    """An unpacked MSLS root; `cities` empty means all."""

    raw: Path
    cities: tuple[str, ...]
    attribution: str = "Mapillary Street-level Sequences (CC BY-NC-SA 4.0), Warburg et al., CVPR 2020"

    def listing(self) -> Listing:
        """Every frame of the chosen cities. Raises: InputError when this is not an MSLS root or a city is absent."""
        folders = self._city_folders()
        parts = [_list_city(self.raw, folder) for folder in folders]
        records = pl.concat([part.records for part in parts])
        # With the key the order is total: equal frame numbers do not come out by chance.
        kept = split_duplicates(records.sort("city", "role", "trajectory", "position", "key", maintain_order=True))
        return Listing(kept.records, pl.concat([part.quarantine for part in parts] + [kept.quarantine]))

    def read(self, source: str) -> bytes:
        """The bytes of one image."""
        with reading(source):
            return inside(self.raw, source).read_bytes()

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Nothing: the dump has no clean list to miss."""

    def _city_folders(self) -> list[Path]:
        folders = [
            city
            for part in ("train_val", "test")
            for city in sorted((self.raw / part).glob("*"))
            if any((city / role / "seq_info.csv").is_file() for role in ("database", "query"))
        ]
        if not folders:
            raise InputError(
                f"{self.raw}: no train_val/<city>/database/seq_info.csv below it; this is not an MSLS root"
            )
        absent = set(self.cities) - {folder.name for folder in folders}
        if absent:
            raise InputError(f"{self.raw}: no city '{min(absent)}'; it has {', '.join(f.name for f in folders)}")
        return [folder for folder in folders if not self.cities or folder.name in self.cities]


def _list_city(raw: Path, folder: Path) -> Listing:
    """Both roles of one city, in one zone."""
    present = [role for role in ("database", "query") if (folder / role / "seq_info.csv").is_file()]
    parts = [_list_role(raw, folder / role) for role in present]
    records = pl.concat([part.records for part in parts], how="diagonal_relaxed")
    return Listing(_one_zone(records), pl.concat([part.quarantine for part in parts]))


def _list_role(raw: Path, folder: Path) -> Listing:
    """Records of one `<city>/<role>` folder before the zone is chosen, and what is left out of it."""
    city, role = folder.parent.name, folder.name
    prefix = folder.relative_to(raw).as_posix()
    rows = _read_tables(folder).with_columns(
        (pl.lit(f"{prefix}/images/") + pl.col("key") + ".jpg").alias("source"),
        (pl.lit(f"{city}/{role}/") + pl.col("sequence_key")).alias("trajectory"),
        pl.lit(city).alias("city"),
        pl.lit(role).alias("role"),
    )
    images = list_images(folder / "images").with_columns((pl.lit(f"{prefix}/images/") + pl.col("file")).alias("source"))
    joined = rows.join(images, on="source", how="left", maintain_order="left")
    named = pl.all_horizontal(pl.col("key", "sequence_key").str.len_bytes() > 0).fill_null(value=False)
    nameless = joined.filter(~named).with_columns(
        pl.format("{}/seq_info.csv row {}", pl.lit(prefix), "row").alias("source")
    )
    present = named & pl.col("bytes").is_not_null()
    metres = pl.all_horizontal(pl.col("easting", "northing").is_finite()).fill_null(value=False)
    placed = on_globe("lat", "lon") & metres & pl.col("position").is_not_null()
    missing = joined.filter(named & pl.col("bytes").is_null())
    unplaced = joined.filter(present & ~placed)
    orphans = images.join(rows, on="source", how="anti").sort("source")
    left_out = [
        quarantine_rows(nameless, "missing_image", "the row's key or sequence_key is empty (row 1 follows the header)"),
        quarantine_rows(missing, "missing_image", "listed in seq_info.csv, but no such image file"),
        quarantine_rows(unplaced, "no_position", "no usable position in postprocessed.csv and raw.csv"),
        quarantine_rows(orphans, "no_row", "an image file without a row in seq_info.csv"),
    ]
    return Listing(joined.filter(present & placed), pl.concat(left_out))


def _read_tables(folder: Path) -> pl.DataFrame:
    """The four CSVs of a folder joined by key, with `row` from 1; positions stay empty where withheld (test cities)."""
    rows = read_csv(folder / "seq_info.csv", _CSV_COLUMNS["seq_info.csv"]).rename({"frame_number": "position"})
    rows = rows.drop("row", strict=False).with_row_index("row", offset=1)
    for name in ("postprocessed.csv", "raw.csv"):
        needed = _CSV_COLUMNS[name]
        if (folder / name).is_file() or folder.parent.parent.name == "train_val":
            table = read_csv(folder / name, needed).select(*needed).unique("key", keep="first", maintain_order=True)
        else:
            table = pl.DataFrame(schema=needed)
        rows = rows.join(table, on="key", how="left", maintain_order="left")
    return _add_flags(rows.with_columns(_subtasks(folder, rows)))


def _subtasks(folder: Path, rows: pl.DataFrame) -> pl.Series:
    """Names of the subtasks of each row; row i of subtask_index.csv is row i of seq_info.csv (it has no key column)."""
    path = folder / "subtask_index.csv"
    if not path.is_file():
        return pl.Series("subtasks", [""] * rows.height, dtype=pl.String)
    table = read_csv(path, _CSV_COLUMNS["subtask_index.csv"])
    if table.height != rows.height:
        raise InputError(
            f"{path}: {table.height} rows, but seq_info.csv beside it has {rows.height}; download it again"
        )
    member = [pl.when(name).then(pl.lit(name)) for name in SUBTASKS]
    return table.select(pl.concat_str(member, separator=" ", ignore_nulls=True).alias("subtasks"))["subtasks"]


def _add_flags(rows: pl.DataFrame) -> pl.DataFrame:
    date = pl.col("captured_at").str.to_date("%Y-%m-%d", strict=False)
    return rows.with_columns(
        date.cast(pl.Datetime("us")).cast(pl.Int64).alias("time"),
        pl.col("night").fill_null(value=False),
        pl.col("pano").fill_null(value=False).alias("panorama"),
    )


def _one_zone(records: pl.DataFrame) -> pl.DataFrame:
    """Positions of one city in one zone, southern northings with their false northing."""
    if not records.height:
        return records.with_columns(
            pl.lit(None, pl.String).alias("zone"),
            pl.col("lat").alias("latitude"),
            pl.col("lon").alias("longitude"),
        )
    latitude, longitude = records["lat"].to_numpy(), records["lon"].to_numpy()
    zone = geometry.choose_zone(latitude, longitude)
    easting, northing = geometry.to_utm(latitude, longitude, zone)
    published = records["northing"].to_numpy() + np.where(records["northing"].to_numpy() < 0, FALSE_NORTHING, 0.0)
    apart = np.hypot(records["easting"].to_numpy() - easting, published - northing)
    same = apart < SAME_ZONE_METRES
    return records.with_columns(
        pl.Series("easting", np.where(same, records["easting"].to_numpy(), easting)),
        pl.Series("northing", np.where(same, published, northing)),
        pl.lit(zone).alias("zone"),
        pl.col("lat").alias("latitude"),
        pl.col("lon").alias("longitude"),
    )

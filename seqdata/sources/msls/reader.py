"""MSLS: `train_val|test/<city>/{query,database}/images/<key>.jpg` and four CSVs a folder, unpacked or in its zips.

Convention: the published eastings and northings are used, but southern northings get the 10,000 km false northing that
the dump leaves out, and a city has one zone: positions published in a neighbouring zone are projected again from their
latitude and longitude, as are those of test cities that come with raw.csv alone. `position` is the dump's frame_number,
so a removed image breaks windows.
Source: the dataset's own files and tools (MSLS, CVPR 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError
from seqdata.sources.base import Listing, Source, quarantine_rows, split_duplicates
from seqdata.sources.csv_tables import has_fix, parse_columns, parse_text_csv
from seqdata.sources.detect import looks_like_another
from seqdata.sources.msls.files import ROLES, MslsFiles, find_files
from seqdata.sources.msls.files import recognise as recognise

SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
FALSE_NORTHING = 1e7
SAME_ZONE_METRES = 1000.0
# UTM zones of the test cities, for tables that come with metres alone (postprocessed.csv without raw.csv).
TEST_ZONES = {
    "athens": "34N",
    "bengaluru": "43N",
    "buenosaires": "21S",
    "kampala": "36N",
    "miami": "17N",
    "stockholm": "34N",
}
# Metres east: Stockholm lies on the border of zones 33 and 34, and each image is published in its own zone.
_ZONE_BORDER = 500_000.0
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


def open(raw: Path, options: Mapping[str, str]) -> "MslsSource":
    """Open the MSLS dump at `raw`; for the options see `seqdata.sources.registry`."""
    cities = tuple(name.strip() for name in options.get("cities", "").split(",") if name.strip())
    return MslsSource(find_files(raw), cities)


@dataclass(frozen=True)
class MslsSource(Source):
    """An MSLS root, unpacked or as the downloaded zips in one folder.

    Attributes:
        files: Where its files lie.
        cities: Exact names of the cities to build; empty means all.
        attribution: Credits the dump's makers.
    """

    files: MslsFiles
    cities: tuple[str, ...]
    attribution: str = "Mapillary Street-level Sequences (CC BY-NC-SA 4.0), Warburg et al., CVPR 2020"

    def listing(self) -> Listing:
        """List every frame of the cities.

        Raises:
            InputError: When this is not an MSLS root or a city is absent.
        """
        parts = [_list_city(self.files, city) for city in self._city_folders()]
        records = pl.concat([part.records for part in parts])
        # With the key the order is total: equal frame numbers do not come out by chance.
        listing = split_duplicates(records.sort("city", "role", "trajectory", "position", "key", maintain_order=True))
        left_out = [part.quarantine for part in parts] + [listing.quarantine, *self.files.refused()]
        others = self.files.other_zips()
        notes = (f"not read, since their names are not the published ones: {others}",) if others else ()
        return Listing(listing.records, pl.concat(left_out), notes)

    def read(self, source: str) -> bytes:
        """Read the bytes of one image, from its file or straight from its zip (`<zip>!<member>`)."""
        return self.files.read(source)

    def _city_folders(self) -> list[str]:
        """Folders of the cities to build, as `train_val/<city>`."""
        raw, folders = self.files.raw, self.files.cities()
        if not folders:
            others = self.files.other_zips()
            rename = f"; {others} may be zips of it: give them their published names" if others else ""
            raise InputError(
                f"{raw}: no train_val/<city>/database/seq_info.csv below it or in an msls_metadata.zip; this is not an "
                f"MSLS root{rename or looks_like_another(raw, 'msls')}"
            )
        names = [folder.split("/")[1] for folder in folders]
        absent = set(self.cities) - set(names)
        if absent:
            raise InputError(f"{raw}: no city '{min(absent)}'; it has {', '.join(names)}")
        return [city for city, name in zip(folders, names, strict=True) if not self.cities or name in self.cities]


def _list_city(files: MslsFiles, city: str) -> Listing:
    """Both roles of one city (`train_val/<name>`), in one zone."""
    tables = {role: files.table(f"{city}/{role}/seq_info.csv") for role in ROLES}
    parts = [_list_role(files, f"{city}/{role}", data) for role, data in tables.items() if data is not None]
    records = pl.concat([part.records for part in parts], how="diagonal_relaxed")
    # A city at a time: what is not kept takes memory.
    placed = table_contract("records").conform(_one_zone(records))
    return Listing(placed, pl.concat([part.quarantine for part in parts]))


def _list_role(files: MslsFiles, folder: str, sequences: bytes) -> Listing:
    """Records of one `<part>/<city>/<role>` folder before the zone is chosen, and what is left out of it."""
    _, city, role = folder.split("/")
    rows = _read_tables(files, folder, sequences).with_columns(
        (pl.lit(f"{folder}/images/") + pl.col("key") + ".jpg").alias("name"),
        (pl.lit(f"{city}/{role}/") + pl.col("sequence_key")).alias("trajectory"),
        pl.lit(city).alias("city"),
        pl.lit(role).alias("role"),
    )
    images = files.images(f"{folder}/images")
    joined = rows.join(images, on="name", how="left", maintain_order="left")
    # Rows without a key name no file, so that the row itself is what stands in quarantine.
    named = pl.all_horizontal(pl.col("key", "sequence_key").str.len_bytes() > 0).fill_null(value=False)
    nameless = joined.filter(~named).with_columns(
        pl.format("{}/seq_info.csv row {}", pl.lit(folder), "row").alias("source")
    )
    present = named & pl.col("bytes").is_not_null()
    metres = pl.all_horizontal(pl.col("easting", "northing").is_finite()).fill_null(value=False)
    placed = has_fix("lat", "lon") & (metres | pl.col("raw_alone")) & pl.col("position").is_not_null()
    missing = joined.filter(named & pl.col("bytes").is_null()).with_columns(pl.col("name").alias("source"))
    unplaced = joined.filter(present & ~placed)
    orphans = images.join(rows, on="name", how="anti").sort("name")
    left_out = [
        quarantine_rows(nameless, "missing_image", "the row's key or sequence_key is empty (row 1 follows the header)"),
        quarantine_rows(missing, "missing_image", "listed in seq_info.csv, but no such image file"),
        quarantine_rows(unplaced, "no_position", "no usable position in postprocessed.csv and raw.csv"),
        quarantine_rows(orphans, "no_row", "an image file without a row in seq_info.csv"),
    ]
    return Listing(joined.filter(present & placed), pl.concat(left_out))


def _read_tables(files: MslsFiles, folder: str, sequences: bytes) -> pl.DataFrame:
    """The four CSVs of a folder joined by key, with `row` from 1; positions stay empty where withheld (test cities)."""
    rows = _parse(files, f"{folder}/seq_info.csv", sequences).rename({"frame_number": "position"})
    rows = rows.drop("row", strict=False).with_row_index("row", offset=1)
    published = []
    for name in ("postprocessed.csv", "raw.csv"):
        needed, data = _CSV_COLUMNS[name], files.table(f"{folder}/{name}")
        published.append(data is not None)
        if data is None and folder.startswith("train_val/"):
            raise InputError(f"{files.raw / folder / name}: no such file; the dump is incomplete")
        if data is None:
            table = pl.DataFrame(schema=needed)
        else:
            table = _parse(files, f"{folder}/{name}", data).unique("key", keep="first", maintain_order=True)
        rows = rows.join(table, on="key", how="left", maintain_order="left")
    raw_alone = pl.lit(published == [False, True]).alias("raw_alone")
    if published == [True, False]:
        rows = _with_degrees(rows, folder.split("/")[1])
    return _add_flags(rows.with_columns(_subtasks(files, folder, rows.height), raw_alone))


def _with_degrees(rows: pl.DataFrame, city: str) -> pl.DataFrame:
    """Latitude and longitude of a test city's metres; a city whose zone is not known stays without."""
    if city not in TEST_ZONES:
        return rows
    easting, northing = (rows[name].fill_null(np.nan).to_numpy() for name in ("easting", "northing"))
    zone = TEST_ZONES[city]
    if zone.endswith("S"):
        northing = np.where(northing < 0, northing + FALSE_NORTHING, northing)
    latitude, longitude = geometry.to_latlon(easting, northing, zone)
    if city == "stockholm":
        west = easting > _ZONE_BORDER
        latitude[west], longitude[west] = geometry.to_latlon(easting[west], northing[west], "33N")
    return rows.with_columns(pl.Series("lat", latitude).fill_nan(None), pl.Series("lon", longitude).fill_nan(None))


def _parse(files: MslsFiles, name: str, data: bytes) -> pl.DataFrame:
    """The columns that are needed of one CSV. Raises: InputError, ContractError, naming it."""
    path, needed = files.raw / name, _CSV_COLUMNS[name.rsplit("/", 1)[1]]
    return parse_columns(parse_text_csv(data, path), path, needed).select(*needed)


def _subtasks(files: MslsFiles, folder: str, rows: int) -> pl.Series:
    """Names of the subtasks of each row; row i of subtask_index.csv is row i of seq_info.csv (it has no key column)."""
    name = f"{folder}/subtask_index.csv"
    data = files.table(name)
    if data is None:
        return pl.Series("subtasks", [""] * rows, dtype=pl.String)
    table = _parse(files, name, data)
    if table.height != rows:
        raise InputError(
            f"{files.raw / name}: {table.height} rows, but seq_info.csv beside it has {rows}; download it again"
        )
    # The dump has a column of True and False for each subtask; a record has their names.
    member = [pl.when(subtask).then(pl.lit(subtask)) for subtask in SUBTASKS]
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
    # The dump leaves the false northing out, so that southern northings are negative.
    published = records["northing"].to_numpy() + np.where(records["northing"].to_numpy() < 0, FALSE_NORTHING, 0.0)
    distance = np.hypot(records["easting"].to_numpy() - easting, published - northing)
    same = distance < SAME_ZONE_METRES
    return records.with_columns(
        pl.Series("easting", np.where(same, records["easting"].to_numpy(), easting)),
        pl.Series("northing", np.where(same, published, northing)),
        pl.lit(zone).alias("zone"),
        pl.col("lat").alias("latitude"),
        pl.col("lon").alias("longitude"),
    )

"""The positions file of a team's own drives: one CSV, read into rows with a place and a time.

Convention: see `seqdata.sources.folder.reader`. Rows keep their number below the header (`row`, from 1), so that a row
without an image name can be found again.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from seqdata import geometry
from seqdata.errors import ContractError, InputError
from seqdata.sources.csv_tables import has_fix, numbers, parse_columns, parse_degrees, read_text_csv, shorten
from seqdata.sources.folder.drives import NO_CITY, NO_DRIVE
from seqdata.sources.folder.times import is_rounded, parse_moment

_UTM: dict[str, pl.DataType] = {"easting": pl.String(), "northing": pl.String(), "zone": pl.String()}
_DEGREES = ("latitude", "longitude")
_METRES = ("easting", "northing")
_PLACE = (*_DEGREES, *_METRES)
# Metres: wider than a zone, since one zone holds a whole city, but no latitude passes as one.
EASTING_RANGE = (-500_000.0, 1_500_000.0)
NORTHING_RANGE = (0.0, 10_000_000.0)
# Metres: where easting and northing are both nearer to zero, they are local coordinates. In UTM that is the equator
# 400 km and more from the zone's middle, where the next zone would be used.
_LOCAL_WITHIN = 100_000.0
# Northings of the latitude band S, 32° to 40° N; southern ones with the false northing lie between 50° and 58° S.
_BAND_S = (3_540_000.0, 4_440_000.0)
_ZONE = re.compile(r"(\d{1,2})\s*([A-Z])")
_NORTHERN_BANDS = "NPQRSTUVWX"
_SOUTHERN_BANDS = "CDEFGHJKLM"
# Degrees: ten turns of a logger that never wraps around; what is more is no angle.
_GREATEST_HEADING = 3600.0
# Days since 1900 of the years 1970 to 2100, as spreadsheets store dates.
_SPREADSHEET_DAYS = (25_569.0, 73_051.0)
ZONE_LETTERS = ("band", "hemisphere")


def read_positions(path: Path, zone_letters: str = "") -> pl.DataFrame:
    """Read the CSV.

    Args:
        path: The file.
        zone_letters: What the S of a zone such as 10S means, "band" or "hemisphere"; "" where the rows must show it.

    Returns:
        One row a line of the file, in its order; an image that is listed again comes once. Columns: `row` (from 1),
        `source` ("" where the cell is empty), `drive`, `role`, `city` where the file has it, `time` (int64 microseconds
        since 1970), `latitude` and `longitude` (degrees, null where there is no usable position), `easting`,
        `northing`, `zone`, `heading` where the file has them, with `unread_heading`, the texts that are no angle, and
        `reason` and `message` where the row cannot be used.

    Raises:
        InputError: If the file cannot be read or has no row.
        ContractError: If a column is missing, or a role, zone or time is none.
    """
    table = _read_table(path)
    if not {"latitude", "longitude"} <= set(table.columns):
        parse_columns(table, path, _UTM)
        table = table.drop("latitude", "longitude", strict=False)
    else:
        table = table.drop("easting", "northing", "zone", strict=False)
    rows = table.select(
        "row",
        _image(table).alias("source"),
        _text(table, "drive").replace("", NO_DRIVE).alias("drive"),
        _role(table, path),
        _time(table, path),
        *([_text(table, "city").replace("", NO_CITY).alias("city")] if "city" in table.columns else []),
    )
    rows = rows.with_columns(_read_place(table, path, zone_letters).iter_columns())
    if "heading" in table.columns:
        text = table["heading"].fill_null("").str.strip_chars()
        heading = _heading(text)
        is_unread = heading.is_null() & (text != "") & (text.str.to_lowercase() != "nan")
        rows = rows.with_columns(heading, text.set(~is_unread, None).alias("unread_heading"))
    return _without_repeats(rows, path)


def heading_notes(rows: pl.DataFrame, name: str) -> tuple[str, ...]:
    """Say which headings of a positions file called `name` were passed over, for the user; `rows` as they were read."""
    unread = rows.filter(pl.col("unread_heading").is_not_null()) if "unread_heading" in rows.columns else rows.head(0)
    if not unread.height:
        return ()
    row, text = unread["row"][0], unread["unread_heading"][0]
    return (
        f"{name} row {row}: column 'heading' has '{shorten(text)}', which is no angle; the direction of driving is "
        f"taken in {unread.height:,} of {rows.height:,} rows",
    )


def read_order(path: Path) -> pl.DataFrame:
    """Read which images a CSV lists in which order; it needs no positions.

    Args:
        path: A CSV with a column `image`, and `drive` and `time` if it has them (see `read_positions`).

    Returns:
        One row a line of the file: `row` (from 1), `source`, `drive`, `time` (int64 microseconds since 1970, or null).

    Raises:
        InputError: If the file cannot be read or has no row.
        ContractError: If the column `image` is missing, or a time is none.
    """
    table = _read_table(path)
    drive = _text(table, "drive").replace("", NO_DRIVE).alias("drive")
    return table.select("row", _image(table).alias("source"), drive, _time(table, path))


def _read_table(path: Path) -> pl.DataFrame:
    """The lines of the file that are not empty, as text, with their number `row`. Raises: InputError, ContractError."""
    table = read_text_csv(path)
    parse_columns(table, path, {"image": pl.String()})
    # A column of the user's own that is called row would hide the numbers by which rows are named.
    table = table.drop("row", strict=False).with_row_index("row", offset=1)
    table = table.filter(~pl.all_horizontal(pl.exclude("row").is_null()))
    # A comment between the rows fills the first cell alone; an image called #1.jpg has its numbers beside it.
    first, *others = (name for name in table.columns if name != "row")
    if others:
        table = table.filter(~(pl.col(first).str.starts_with("#") & pl.all_horizontal(pl.col(others).is_null())))
    if not table.height:
        raise InputError(f"{path}: no row below the header")
    return table


def _text(rows: pl.DataFrame, name: str) -> pl.Expr:
    """The text column `name`, stripped; empty text where a cell or the column is absent."""
    return pl.col(name).fill_null("").str.strip_chars() if name in rows.columns else pl.lit("")


def _image(rows: pl.DataFrame) -> pl.Expr:
    """The path of the image: backslashes are slashes, and `./` and doubled slashes say nothing."""
    path = _text(rows, "image").str.replace_all("\\", "/", literal=True).str.replace_all(r"/(?:\.?/)+", "/")
    return path.str.replace(r"^(\./)+", "")


def _role(rows: pl.DataFrame, path: Path) -> pl.Expr:
    """The role column, null when absent. Raises: ContractError for another word."""
    role = _text(rows, "role")
    unknown = set(rows.select(role.alias("role"))["role"]) - {"database", "query", ""}
    if unknown:
        raise ContractError(f"{path}: column 'role' has '{shorten(min(unknown))}'; it takes database, query or nothing")
    return role.replace("", None).alias("role")


def _time(rows: pl.DataFrame, path: Path) -> pl.Series:
    """Microseconds since 1970, null where the cell is empty. Raises: ContractError for text that is no time."""
    texts = rows.select(_text(rows, "time").alias("time"))["time"].to_list() if "time" in rows.columns else []
    for text in texts:
        if is_rounded(text):
            raise ContractError(
                f"{path}: column 'time' has '{shorten(text)}', which a spreadsheet has rounded; format the column as a "
                "number, and export it again"
            )
    times = [parse_moment(text) if text else None for text in texts]
    for text, time in zip(texts, times, strict=True):
        if text and time is None:
            raise ContractError(
                f"{path}: column 'time' has '{shorten(text)}'; it takes ISO 8601, as in 2024-01-31T10:00:05.5+02:00, "
                "or seconds since 1970"
            )
    seconds = [float(text.replace(",", ".")) for text in texts if re.fullmatch(r"\d+[.,]\d+", text)]
    low, high = _SPREADSHEET_DAYS
    if seconds and len(seconds) == sum(map(bool, texts)) and low <= min(seconds) and max(seconds) < high:
        raise ContractError(
            f"{path}: column 'time' has '{shorten(next(filter(None, texts)))}', which looks like a spreadsheet's date "
            "in days; format the column as yyyy-mm-dd hh:mm:ss, and export it again"
        )
    return pl.Series("time", times or [None] * rows.height, dtype=pl.Int64)


def _read_place(table: pl.DataFrame, path: Path, zone_letters: str) -> pl.DataFrame:
    """Latitude and longitude (and metres with their zone), null where unusable, with `reason` and `message`."""
    places = _from_degrees(table, path) if "latitude" in table.columns else _from_utm(table, path, zone_letters)
    unusable = pl.col("latitude").is_null() | pl.col("longitude").is_null()
    message = pl.coalesce("message", pl.lit(f"no usable position in {path.name}"))
    return places.with_columns(
        pl.when(unusable).then(pl.lit("no_position")).alias("reason"), pl.when(unusable).then(message).alias("message")
    )


def _from_degrees(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Latitude, longitude, and a message for rows that have no number or no fix."""
    columns = [_parse_column(table, name, _degrees_of(name)) for name in _DEGREES]
    faults = [_unread(table, column, path) for column in columns]
    places = pl.DataFrame([*columns, *(fault.alias(f"fault{n}") for n, fault in enumerate(faults))])
    fix = has_fix(*_DEGREES)
    return places.select(
        *(pl.when(fix).then(pl.col(name)).alias(name) for name in _DEGREES),
        pl.coalesce(
            "fault0",
            "fault1",
            pl.when(~fix & pl.all_horizontal(pl.col(*_DEGREES).is_not_null())).then(
                pl.format(
                    f"{path.name} has the position {{}}, {{}}, which is no GPS fix (0, 0, or off the globe)",
                    *(pl.col(name).round(6) for name in _DEGREES),
                )
            ),
        ).alias("message"),
    )


def _degrees_of(axis: str) -> Callable[[str], float | None]:
    return lambda text: parse_degrees(text, axis)


def _parse_column(table: pl.DataFrame, name: str, parse: Callable[[str], float | None] | None = None) -> pl.Series:
    """A column as finite float64, null where the cell is none; `parse` reads what is no plain number."""
    text = table[name].str.strip_chars()
    column = text.cast(pl.Float64, strict=False) if parse else numbers(text)
    # Almost all tables are plain numbers: Python is called only where one cell is not.
    if parse and (column.is_null() & (text.fill_null("") != "")).any():
        column = column.fill_null(text.map_elements(parse, return_dtype=pl.Float64))
    return column.set(~column.is_finite().fill_null(value=False), None).alias(name)


def _unread(table: pl.DataFrame, column: pl.Series, path: Path) -> pl.Series:
    """A message for each cell of the column that has a text which is no number; null elsewhere."""
    text = table[column.name].fill_null("").str.strip_chars()
    unread = column.is_null() & (text != "") & (text.str.to_lowercase() != "nan")
    messages = [
        f"{path.name} row {row}: column '{column.name}' has '{shorten(cell)}', which is no number" if bad else None
        for row, cell, bad in zip(table["row"], text, unread, strict=True)
    ]
    return pl.Series("message", messages, dtype=pl.String)


def _from_utm(table: pl.DataFrame, path: Path, zone_letters: str) -> pl.DataFrame:
    """Latitude, longitude, easting, northing, zone, and a message for rows out of range or without a zone.

    Raises: ContractError for a zone that is none, or whose letter has two meanings here.
    """
    easting, northing = (_parse_column(table, name) for name in _METRES)
    zone = _hemispheres(_text_column(table, "zone"), northing, path, zone_letters)
    places = pl.DataFrame([easting, northing, zone]).with_columns(
        pl.coalesce(_unread(table, easting, path), _unread(table, northing, path)).alias("message")
    )
    local = pl.all_horizontal(pl.col(*_METRES).abs() < _LOCAL_WITHIN)
    in_range = pl.col("easting").is_between(*EASTING_RANGE) & pl.col("northing").is_between(*NORTHING_RANGE) & ~local
    metres = pl.format(f"{path.name} has easting {{}}, northing {{}}", *(pl.col(name).round(3) for name in _METRES))
    places = places.with_columns(
        (in_range & (pl.col("zone") != "")).fill_null(value=False).alias("usable"),
        pl.coalesce(
            "message",
            pl.when(pl.col("zone") == "").then(pl.lit(f"{path.name} has no zone for it")),
            pl.when(local).then(metres + pl.lit(": local coordinates, or swapped degrees, are no UTM metres")),
            pl.when(pl.col("northing") < 0).then(
                metres + pl.lit(": southern northings need the false northing, so add 10,000,000")
            ),
            pl.when(~in_range).then(metres + pl.lit(": out of the range of UTM metres")),
        ).alias("message"),
    )
    usable, zones = places["usable"].to_numpy(), places["zone"].to_numpy()
    east, north = easting.fill_null(np.nan).to_numpy(), northing.fill_null(np.nan).to_numpy()
    latitude, longitude = np.full(len(zones), np.nan), np.full(len(zones), np.nan)
    # One call a zone: utm converts arrays, of one zone each.
    for name in np.unique(zones[usable]):
        rows = usable & (zones == name)
        latitude[rows], longitude[rows] = geometry.to_latlon(east[rows], north[rows], str(name))
    places = places.with_columns(
        pl.Series("latitude", latitude).fill_nan(None), pl.Series("longitude", longitude).fill_nan(None)
    )
    fix = has_fix(*_DEGREES)
    return places.select(*(pl.when(fix).then(pl.col(name)).alias(name) for name in _PLACE), "zone", "message")


def _text_column(table: pl.DataFrame, name: str) -> pl.Series:
    return table.select(_text(table, name).str.to_uppercase().alias(name)).to_series()


def _hemispheres(zone: pl.Series, northing: pl.Series, path: Path, zone_letters: str) -> pl.Series:
    """Zones with the letter of their hemisphere, N or S, "" where the cell is empty.

    Convention: letters are latitude bands (C to X) or hemispheres. All but S mean the same hemisphere either way. S is
    the northern band S where another row of the file has a band letter, the hemisphere where a northing lies outside
    the band; else `zone_letters` decides. Raises: ContractError for a zone that is none, or that needs `zone_letters`.
    """
    letters: dict[str, str] = {}
    for text in zone.unique().sort():
        match = _ZONE.fullmatch(text)
        if text and (
            match is None or not 1 <= int(match[1]) <= 60 or match[2] not in _NORTHERN_BANDS + _SOUTHERN_BANDS
        ):
            raise ContractError(
                f"{path}: column 'zone': UTM zone '{shorten(text)}': expected a number 1 to 60 and N or S for the "
                "hemisphere, or the letter of a latitude band, as in 32N or 32U"
            )
        letters[text] = match[2] if match else ""
    has_bands = bool(set(letters.values()) - {"N", "S", ""})
    of_s = northing.filter(pl.Series([letters[text] == "S" for text in zone], dtype=pl.Boolean)).drop_nulls()
    is_band = zone_letters == "band" or (not zone_letters and has_bands)
    if not zone_letters and not has_bands and of_s.len() and of_s.is_between(*_BAND_S).all():
        raise ContractError(
            f"{path}: column 'zone': is the S of '{next(text for text in letters if letters[text] == 'S')}' the "
            "latitude band (32° to 40° N), or the southern hemisphere? Give --option zone_letters=band or "
            "zone_letters=hemisphere"
        )
    northern = set(_NORTHERN_BANDS) - (set() if is_band else {"S"})
    names = {
        text: f"{int(match[1])}{'N' if match[2] in northern else 'S'}" if (match := _ZONE.fullmatch(text)) else ""
        for text in letters
    }
    return zone.replace_strict(names, return_dtype=pl.String).alias("zone")


def _heading(text: pl.Series) -> pl.Series:
    """Headings in 0…360 degrees, null where a cell is no angle: the direction then comes from the track."""
    degrees = numbers(text.str.strip_chars())
    degrees = degrees.set(~(degrees.abs() <= _GREATEST_HEADING).fill_null(value=False), None)
    wrapped = (degrees % 360.0).cast(pl.Float32)
    # 359.999999 in 32 bits is 360
    return wrapped.set((wrapped >= 360.0).fill_null(value=False), 0.0).alias("heading")


def _without_repeats(rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Mark rows whose image a row above lists already; they take no position in the drive, so windows stay whole."""
    repeated = (pl.col("source") != "") & ~pl.col("source").is_first_distinct()
    first = pl.col("row").first().over("source")
    moved = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(name).first().over("source")) for name in ("latitude", "longitude")
    )
    place = pl.when(moved).then(pl.lit(", at another place")).otherwise(pl.lit(""))
    return rows.with_columns(
        pl.when(repeated).then(pl.lit("duplicate_key")).otherwise("reason").alias("reason"),
        pl.when(repeated)
        .then(pl.format(f"{path.name} row {{}} lists the image of row {{}} again{{}}", "row", first, place))
        .otherwise("message")
        .alias("message"),
    )

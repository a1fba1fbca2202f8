"""Drives as rows: their cities and zones, the order of their frames, and the names of their trajectories.

Convention: distances are metric within a city, which has one UTM zone, that of its median position. Drives are one
city, `own`, as long as each lies within about 150 km of another (median positions, along the earth); where there are
several such groups, each belongs to the city `own-<zone>` of its zone. A positions file that has a column `city` says
itself which drives belong together.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from seqdata import geometry
from seqdata.errors import ContractError, EmptyCutError, UsageError
from seqdata.geometry import Float64Array, IntArray
from seqdata.sources.csv_tables import shorten
from seqdata.sources.folder.roles import BUFFER, TEST, TRAIN, Cut, Parts, cut_along_route

# Name of the drive of rows and images that name none.
NO_DRIVE = "drive"
NO_CITY = "own"
FAR_KM = 150.0
_EARTH_KM = 6371.0
# Metres: beyond 500 km from the zone's middle meridian a metre of the map is 2.7 ‰ and more off.
_WIDE_EASTINGS = (0.0, 1_000_000.0)


def with_places(rows: pl.DataFrame) -> pl.DataFrame:
    """Bring each city's positions into one UTM zone.

    Args:
        rows: One row a frame: `row`, `drive`, `latitude`, `longitude`; a `city` that they have holds. UTM metres that a
            city's rows have already stay as they are where they are all of one zone.

    Returns:
        The rows in order of `row`, with `city`, `zone`, `easting` and `northing` (metres, null without a position).

    Raises:
        ContractError: If a drive lies in two cities.
    """
    rows = rows if "city" in rows.columns else _with_cities(rows)
    # Distances are taken within one zone, and a trajectory within one city.
    torn = rows.filter((pl.col("city").n_unique() > 1).over("drive"))
    if torn.height:
        raise ContractError(
            f"column 'city': drive '{torn['drive'][0]}' lies in several cities; name a drive for each city"
        )
    parts = [_in_one_zone(part) for part in rows.partition_by("city", maintain_order=True)]
    return pl.concat(parts, how="diagonal").sort("row", maintain_order=True)


def wide_notes(rows: pl.DataFrame) -> tuple[str, ...]:
    """Say of each city that reaches so far from its zone's middle that its distances are no longer metres."""
    wide = (
        rows.filter(~pl.col("easting").is_between(*_WIDE_EASTINGS))
        .group_by("city")
        .agg(pl.col("zone").first(), (pl.col("easting") - 500_000.0).abs().max().alias("off"), pl.col("drive").first())
    )
    # Scale of the transverse Mercator projection at `off` metres from the meridian, on a sphere: 0.9996·(1 + off²/2R²).
    return tuple(
        f"city '{shorten(city)}': drive '{shorten(drive)}' reaches {off / 1e3:,.0f} km from the middle of UTM "
        f"zone {zone}, where distances are {0.9996 * (1 + (off / 6.371e6) ** 2 / 2) - 1:.1%} too long; split "
        "such drives, and name a city for each part"
        for city, zone, off, drive in wide.sort("city").iter_rows()
    )


def _with_cities(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `city`: `own`, or where groups of drives lie far apart, `own-<zone>`."""
    placed = rows.filter(pl.col("latitude").is_not_null())
    middles = placed.group_by("drive", maintain_order=True).agg(pl.col("latitude", "longitude").median())
    group = _groups(middles["latitude"].to_numpy(), middles["longitude"].to_numpy())
    if group.max(initial=0) == 0:
        return rows.with_columns(pl.lit(NO_CITY).alias("city"))
    grouped = middles.select("drive").with_columns(pl.Series("group", group))
    named = placed.join(grouped, on="drive").group_by("group").agg(pl.col("latitude", "longitude"))
    zones = [geometry.choose_zone(*places) for places in named.select("latitude", "longitude").iter_rows()]
    cities = named.select("group", pl.Series("city", [f"{NO_CITY}-{zone}" for zone in zones]))
    of_drive = grouped.join(cities, on="group").select("drive", "city")
    return rows.join(of_drive, on="drive", how="left", maintain_order="left").with_columns(
        pl.col("city").fill_null(NO_CITY)
    )


def _groups(latitude: Float64Array, longitude: Float64Array) -> IntArray:
    """A number for each place, equal for places that steps of at most `FAR_KM` connect: (n,), (n,) degrees -> (n,)."""
    if not len(latitude):
        return np.zeros(0, np.int64)
    lat, lon = np.radians(latitude), np.radians(longitude)
    globe = _EARTH_KM * np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    # Drives of one street share a cell of a kilometre: thousands of them make no millions of pairs.
    cells, of_place = np.unique(np.round(globe), axis=0, return_inverse=True)
    neighbours = cKDTree(cells).sparse_distance_matrix(cKDTree(cells), FAR_KM)
    labels: IntArray = connected_components(neighbours, directed=False)[1][of_place.reshape(-1)]
    return labels


def _in_one_zone(rows: pl.DataFrame) -> pl.DataFrame:
    """Zone, easting and northing of the rows of one city."""
    if "easting" in rows.columns and rows.filter(pl.col("easting").is_not_null())["zone"].n_unique() == 1:
        return rows
    latitude, longitude = rows["latitude"].to_numpy(), rows["longitude"].to_numpy()
    zone, easting, northing = None, np.full(rows.height, np.nan), np.full(rows.height, np.nan)
    if np.isfinite(latitude).any():
        zone = geometry.choose_zone(latitude, longitude)
        easting, northing = geometry.to_utm(latitude, longitude, zone)
    return rows.drop("zone", "easting", "northing", strict=False).with_columns(
        pl.lit(zone, pl.String).alias("zone"),
        pl.Series("easting", easting).fill_nan(None),
        pl.Series("northing", northing).fill_nan(None),
    )


def in_driving_order(rows: pl.DataFrame, usable: pl.Expr) -> pl.DataFrame:
    """Put each drive's rows together, in driving order, and number them.

    Convention: a drive is ordered by time where all of its usable rows have one, else by `row`. A row that cannot be
    used still takes a position, so that windows break where a frame is missing; without a time it follows its
    predecessor by `row`.

    Args:
        rows: One row a frame: `drive`, `row`, `time`.
        usable: Which rows can become frames.

    Returns:
        The rows with `position` (int32, from 0 in each drive).
    """
    timed = (pl.col("time").is_not_null() | ~usable).all().over("drive") & pl.col("time").is_not_null().any().over(
        "drive"
    )
    # A row without a time borrows its predecessor's, so that a stable sort leaves it where it is listed.
    ordered = rows.sort("drive", "row", maintain_order=True).with_columns(
        pl.col("time").forward_fill().backward_fill().over("drive").alias("moment"), timed.alias("timed")
    )
    ordered = ordered.sort("drive", pl.when("timed").then("moment"), "row", maintain_order=True)
    positions = pl.int_range(pl.len(), dtype=pl.Int32).over("drive").alias("position")
    return ordered.drop("moment", "timed").with_columns(positions)


def with_roles(rows: pl.DataFrame, roles: Mapping[str, str]) -> pl.DataFrame:
    """Set the role of every row of the drives in `roles` (drive → role); others keep theirs.

    Raises:
        ContractError: If there is no such drive.
    """
    drives = rows["drive"].unique().sort()
    for drive in roles:
        if drive not in drives:
            names = ", ".join(drives.head(5)) + (", …" if len(drives) > 5 else "")
            raise UsageError(f"option roles: no drive '{drive}'; there are {names}")
    named = pl.col("drive").replace_strict(roles, default=None, return_dtype=pl.String)
    return rows.with_columns(pl.coalesce(named, "role").alias("role"))


def with_parts(rows: pl.DataFrame, usable: pl.Expr, cut: Cut | None, buffer: float) -> pl.DataFrame:
    """Add `part`, the side of a cut along the route that a frame lies on.

    Args:
        rows: One row a frame, those of a drive together in driving order: `city`, `drive`, `easting`, `northing`.
        usable: Which rows can become frames.
        cut: The test stretch of each drive; None cuts nothing.
        buffer: Metres around the test stretch that are not trained on.

    Returns:
        The rows with `part`: "train", "test" or "buffer", null where there is no cut or the row is not usable.

    Raises:
        ContractError: If not one frame is left on a side.
    """
    if cut is None or not rows.filter(usable).height:
        return rows.with_columns(pl.lit(None, pl.String).alias("part"))
    numbered = rows.with_row_index("nth")
    parts = [
        of_city.select("nth", pl.Series("part", _cut_city(of_city, cut, buffer), pl.String))
        for of_city in numbered.filter(usable).partition_by("city")
    ]
    sides = pl.concat(parts)
    for side in (TRAIN, TEST):
        if side not in sides["part"]:
            raise EmptyCutError(
                f"option cut leaves no frame to {side} (a frame within {buffer:g} m of the test stretch is not trained "
                "on); cut elsewhere, or give a smaller buffer"
            )
    return numbered.join(sides, on="nth", how="left", maintain_order="left").drop("nth")


def _cut_city(rows: pl.DataFrame, cut: Cut, buffer: float) -> Parts:
    return cut_along_route(rows["easting"], rows["northing"], rows["drive"], cut=cut, buffer=buffer)


def with_trajectories(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `trajectory`: the drive, of a drive with several roles a part for each, and of a cut drive its `part`.

    Positions are the drive's, so what lies between two frames of a trajectory breaks its windows. Frames of the part
    `buffer` lose their role.

    Raises:
        ContractError: If a part would have the name of another drive.
    """
    # Frames without a role are a part of their own: the protocol decides about them.
    several = (pl.col("role").fill_null("").n_unique() > 1).over("drive")
    playing = pl.when(pl.col("part").ne_missing(BUFFER)).then("role")
    name = pl.concat_str("drive", pl.when(several).then(playing), "part", separator="/", ignore_nulls=True)
    named = rows.with_columns(name.alias("trajectory"), playing.alias("role"))
    shared = named.filter((pl.col("drive").n_unique() > 1).over("trajectory"))
    if shared.height:
        raise ContractError(f"drive '{shared['trajectory'][0]}' has the name of a part of another drive; rename it")
    return named

"""Drives as rows: their cities and zones, the order of their frames, and the names of their trajectories.

Convention: distances are metric within a city, which has one UTM zone, that of its median position. Drives are one
city, `own`, as long as each lies within about 150 km of another (median positions, along the earth); where there are
several such groups, each belongs to the city `own-<zone>` of its zone. A positions file that has a column `city` says
itself which drives belong together.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from seqdata import geometry
from seqdata.errors import ContractError
from seqdata.sources.folder.roles import BUFFER, TEST, TRAIN, Cut, Parts, cut_along_route

NO_DRIVE = "drive"
"""Name of the drive of rows and images that name none."""
NO_CITY = "own"
FAR_KM = 150.0
_EARTH_KM = 6371.0


def with_places(rows: pl.DataFrame) -> pl.DataFrame:
    """Add city, zone, easting and northing to `rows` (needs drive, latitude, longitude; a city they have holds).

    UTM metres that a city's rows have already stay as they are where they are all of one zone. Raises: ContractError
    when a drive lies in two cities.
    """
    rows = rows if "city" in rows.columns else _with_cities(rows)
    torn = rows.filter((pl.col("city").n_unique() > 1).over("drive"))
    if torn.height:
        raise ContractError(
            f"column 'city': drive '{torn['drive'][0]}' lies in several cities; name a drive for each city"
        )
    parts = [_in_one_zone(part) for part in rows.partition_by("city", maintain_order=True)]
    return pl.concat(parts, how="diagonal").sort("row", maintain_order=True)


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


def _groups(latitude: npt.NDArray[np.float64], longitude: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """A number for each place, equal for places that steps of at most `FAR_KM` connect: (n,), (n,) degrees -> (n,)."""
    if not len(latitude):
        return np.zeros(0, np.int64)
    lat, lon = np.radians(latitude), np.radians(longitude)
    globe = _EARTH_KM * np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    # Drives of one street share a cell of a kilometre: thousands of them make no millions of pairs.
    cells, of_place = np.unique(np.round(globe), axis=0, return_inverse=True)
    near = cKDTree(cells).sparse_distance_matrix(cKDTree(cells), FAR_KM)
    found: npt.NDArray[np.int64] = connected_components(near, directed=False)[1][of_place.reshape(-1)]
    return found


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


def in_driving_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Each drive's rows together, by time where all of that drive's have one, else by `row`, with `position`."""
    timed = pl.col("time").is_not_null().all().over("drive")
    ordered = rows.sort("drive", pl.when(timed).then("time"), "row", maintain_order=True)
    return ordered.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("drive").alias("position"))


def with_roles(rows: pl.DataFrame, roles: Mapping[str, str]) -> pl.DataFrame:
    """Set the role of every row of the drives in `roles` (drive → role); others keep theirs.

    Raises: ContractError when there is no such drive.
    """
    drives = rows["drive"].unique().sort()
    for drive in roles:
        if drive not in drives:
            there = ", ".join(drives.head(5)) + (", …" if len(drives) > 5 else "")
            raise ContractError(f"option roles: no drive '{drive}'; there are {there}")
    named = pl.col("drive").replace_strict(roles, default=None, return_dtype=pl.String)
    return rows.with_columns(pl.coalesce(named, "role").alias("role"))


def with_parts(rows: pl.DataFrame, usable: pl.Expr, cut: Cut | None, buffer: float) -> pl.DataFrame:
    """Add `part`: "train", "test" or "buffer" by the cut, empty where there is none or the row is not usable.

    Raises: ContractError when not one frame is left on a side.
    """
    if cut is None or not rows.filter(usable).height:
        return rows.with_columns(pl.lit(None, pl.String).alias("part"))
    numbered = rows.with_row_index("nth")
    parts = [
        of_city.select("nth", pl.Series("part", _cut_city(of_city, cut, buffer), pl.String))
        for of_city in numbered.filter(usable).partition_by("city")
    ]
    found = pl.concat(parts)
    for side in (TRAIN, TEST):
        if side not in found["part"]:
            raise ContractError(
                f"option cut leaves no frame to {side} (a frame within {buffer:g} m of the test stretch is not trained "
                "on); cut elsewhere, or give a smaller buffer"
            )
    return numbered.join(found, on="nth", how="left", maintain_order="left").drop("nth")


def _cut_city(rows: pl.DataFrame, cut: Cut, buffer: float) -> Parts:
    return cut_along_route(rows["easting"], rows["northing"], rows["drive"], cut=cut, buffer=buffer)


def with_trajectories(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `trajectory`: the drive, of a drive with several roles a part for each, and of a cut drive its `part`.

    Positions are the drive's, so what lies between two frames of a trajectory breaks its windows. Frames of the part
    `buffer` lose their role. Raises: ContractError when a part would have the name of another drive.
    """
    several = (pl.col("role").fill_null("").n_unique() > 1).over("drive")
    playing = pl.when(pl.col("part").ne_missing(BUFFER)).then("role")
    name = pl.concat_str("drive", pl.when(several).then(playing), "part", separator="/", ignore_nulls=True)
    named = rows.with_columns(name.alias("trajectory"), playing.alias("role"))
    shared = named.filter((pl.col("drive").n_unique() > 1).over("trajectory"))
    if shared.height:
        raise ContractError(f"drive '{shared['trajectory'][0]}' has the name of a part of another drive; rename it")
    return named

"""A team's own drives: images in a folder, and a CSV, a GPX track or their EXIF that says where each was taken.

Convention: the option `positions` names the CSV or the .gpx, or is `exif`; without it positions.csv in the folder
holds, else the one .gpx there, else EXIF. The CSV names `image` (path below the folder, a backslash counts as /) and
either `latitude, longitude` (WGS84 degrees) or `easting, northing, zone` (UTM metres; `zone` such as 32N or 56S,
southern northings with the false northing; rows of several zones are brought into that of their city's median
position). Optional: `time` (ISO 8601, UTC where it names no offset, or seconds since 1970), `heading` (degrees
clockwise from north), `drive`, `role` (database or query), `city`. Columns are separated by comma, semicolon or tab.
Without a CSV, see `seqdata.sources.folder.photos`; for cities, order and names of drives, `folder_drives`. Frames of a
drive are ordered by time where all of it have one, else in the CSV's order or by name; a drive with both roles becomes
the trajectories `<drive>/database` and `<drive>/query`, and one that `cut` divides `<drive>/train`, `<drive>/test` and
(no role, no part of either) `<drive>/buffer`.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import seqdata.protocols
from seqdata.contracts.tables import table_contract
from seqdata.errors import ContractError, InputError
from seqdata.sources.base import Listing, quarantine_rows, refuse_unknown, split_duplicates, take_option
from seqdata.sources.detect import looks_like_another
from seqdata.sources.files import find_images, inside, is_text, reading
from seqdata.sources.folder.drives import in_driving_order, with_parts, with_places, with_roles, with_trajectories
from seqdata.sources.folder.photos import photo_rows, track_rows
from seqdata.sources.folder.positions_csv import read_positions
from seqdata.sources.folder.roles import DEFAULT_BUFFER, Cut, parse_roles
from seqdata.storage.hashing import xxh3_hex

DEFAULT_PROTOCOL = "own"
EXIF = "exif"
POSE_GAP = 10.0
"""Seconds: loggers that save points only where the direction changes leave about so many between them."""
_OPTIONS = "positions, time_offset, pose_gap, roles, cut, buffer"
_ON_TRACK = ("time_offset", "pose_gap")


def open(raw: Path, options: dict[str, str]) -> "FolderSource":
    """The drives at `raw`, by options that are all text and may all be absent.

    `positions`: a CSV, a .gpx, or `exif`. With a GPX track `time_offset` (seconds added to each image's time, default
    0) and `pose_gap` (greatest gap between two track points, seconds, default 10). `roles`: as in
    `database:DRIVE,query:DRIVE`. `cut`: the test stretch of each drive, as in `0.6`, `0.5-0.8`, `1200m-1800m`, with
    `buffer` (metres around it that are not trained on, default 50). Raises: ContractError for any other.
    """
    given = set(options)
    source = FolderSource(
        raw,
        take_option(options, "positions"),
        time_offset=_number(options, "time_offset", 0.0, -math.inf),
        pose_gap=_number(options, "pose_gap", POSE_GAP, 0.0),
        roles=take_option(options, "roles"),
        cut=take_option(options, "cut"),
        buffer=_number(options, "buffer", DEFAULT_BUFFER, 0.0),
    )
    refuse_unknown(options, "folder", _OPTIONS)
    if "buffer" in given and not source.cut:
        raise ContractError("option buffer belongs to a cut along the route; name one, as in cut=0.6")
    if given & set(_ON_TRACK) and source.where().suffix.lower() != ".gpx":
        raise ContractError(f"option {min(given & set(_ON_TRACK))} belongs to a GPX track, and positions is none")
    return source


def _number(options: dict[str, str], name: str, default: float, least: float) -> float:
    """A finite number of at least `least`. Raises: ContractError for another text."""
    text = take_option(options, name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= least):
        raise ContractError(f"option {name} has '{text}'; it takes a number" + (" of 0 or more" if least == 0 else ""))
    return number


@dataclass(frozen=True)
class FolderSource:
    """A folder of images; the fields are the options of `open`."""

    raw: Path
    positions: str = ""
    time_offset: float = 0.0
    pose_gap: float = POSE_GAP
    roles: str = ""
    cut: str = ""
    buffer: float = DEFAULT_BUFFER
    attribution: str = "the user's own drives"

    def where(self) -> Path:
        """The CSV or GPX that says where images were taken, or the path `exif`.

        Raises: InputError when nothing is named and several GPX tracks lie in the folder.
        """
        if self.positions:
            return Path(self.positions)
        if (self.raw / "positions.csv").is_file():
            return self.raw / "positions.csv"
        tracks = sorted(path for path in self.raw.glob("*") if path.suffix.lower() == ".gpx")
        if len(tracks) > 1:
            names = ", ".join(path.name for path in tracks)
            raise InputError(
                f"{self.raw}: holds {len(tracks)} GPX tracks ({names}); name one with the option positions"
            )
        return tracks[0] if tracks else Path(EXIF)

    def listing(self) -> Listing:
        """Every frame.

        Raises: InputError without images or a usable CSV or track, ContractError for a missing column, a value that is
        none, a role for a drive that is not there, or a cut that leaves one side empty.
        """
        found = find_images(self.raw, "**/*")
        nameless = [name for name, _ in found if not is_text(name)]
        images = pl.DataFrame(
            [image for image in found if is_text(image[0])],
            schema={"source": pl.String, "bytes": pl.Int64},
            orient="row",
        )
        if not images.height:
            raise InputError(f"{self.raw}: no .jpg or .png image below it{looks_like_another(self.raw, 'folder')}")
        where = self.where()
        rows = in_driving_order(with_places(with_roles(self._rows(where, images), parse_roles(self.roles))))
        joined = rows.join(images, on="source", how="left", maintain_order="left")
        usable = pl.col("bytes").is_not_null() & pl.col("easting").is_not_null()
        cut = Cut.parse(self.cut) if self.cut else None
        named = with_trajectories(with_parts(joined, usable, cut, self.buffer))
        kept = split_duplicates(_finish(named.filter(usable)))
        left_out = [*_left_out(named, where.name), _unlisted(images, rows, where.name), _unnamed(nameless)]
        return Listing(kept.records, pl.concat([*left_out, kept.quarantine]))

    def _rows(self, where: Path, images: pl.DataFrame) -> pl.DataFrame:
        """A row for each image that is listed, in the order of its table or by name."""
        if where.suffix.lower() == ".gpx":
            return track_rows(self.raw, images, where, self.time_offset, self.pose_gap)
        if where != Path(EXIF):
            return read_positions(where)
        rows = photo_rows(self.raw, images)
        if not self.positions and rows["latitude"].null_count() == rows.height:
            other = looks_like_another(self.raw, "folder")
            raise InputError(
                f"{self.raw}: has no positions.csv and no .gpx, and none of its {rows.height:,} images has a GPS "
                f"position in its EXIF; name a CSV or GPX track with --positions{other}"
            )
        return rows

    def read(self, source: str) -> bytes:
        """The bytes of one image."""
        with reading(source):
            return inside(self.raw, source).read_bytes()

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Nothing: the dump has no clean list to miss."""

    def pinned_options(self, protocol: seqdata.protocols.Protocol) -> dict[str, tuple[str, str]]:
        """None: no protocol pins how such a dump is read."""
        return {}


def _left_out(rows: pl.DataFrame, where: str) -> list[pl.DataFrame]:
    """Quarantine rows for the rows that name no image, an absent one, or one without a place."""
    named, present = pl.col("source") != "", pl.col("bytes").is_not_null()
    nameless = rows.filter(~named).with_columns(pl.format("{} row {}", pl.lit(where), "row").alias("source"))
    absent = rows.filter(named & ~present)
    placeless = rows.filter(present & pl.col("easting").is_null())
    return [
        quarantine_rows(nameless, "missing_image", "the row names no image (row 1 follows the header)"),
        quarantine_rows(absent, "missing_image", f"listed in {where}, but no such image file"),
        table_contract("quarantine").conform(placeless)
        if "reason" in rows.columns
        else quarantine_rows(placeless, "no_position", f"no usable position in {where}"),
    ]


def _unlisted(images: pl.DataFrame, rows: pl.DataFrame, where: str) -> pl.DataFrame:
    return quarantine_rows(images.join(rows, on="source", how="anti"), "no_row", f"an image without a row in {where}")


def _unnamed(names: list[str]) -> pl.DataFrame:
    """Quarantine rows for files whose names no table can hold: bytes that are no UTF-8 are shown in hexadecimal."""
    shown = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    rows = pl.DataFrame({"source": pl.Series(shown, dtype=pl.String)})
    return quarantine_rows(rows, "unreadable_image", "the file's name is not UTF-8; rename the file")


def _finish(rows: pl.DataFrame) -> pl.DataFrame:
    """The remaining fields of the record; keys come from the path, with what a shard's key may not hold replaced."""
    stem = pl.col("source").str.replace(r"\.[A-Za-z]+$", "").str.replace_all(r"[^A-Za-z0-9_-]+", "_")
    clash = stem.is_duplicated() | (stem.str.len_bytes() > 80)
    digest = pl.col("source").map_elements(_short_digest, return_dtype=pl.String)
    return rows.with_columns(
        pl.when(clash).then(stem.str.slice(0, 60) + "-" + digest).otherwise(stem).alias("key"),
        pl.lit(value=False).alias("night"),
        pl.lit(value=False).alias("panorama"),
        pl.lit(None, pl.String).alias("view_direction"),
        pl.lit("").alias("subtasks"),
    ).sort("city", "role", "trajectory", "position", nulls_last=True, maintain_order=True)


def _short_digest(source: str) -> str:
    return xxh3_hex(source.encode())[:12]

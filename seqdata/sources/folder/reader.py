"""A team's own drives: images in a folder, and a CSV, a GPX track or their EXIF that says where each was taken.

Convention: the option `positions` names the CSV or the .gpx, or is `exif`; without it positions.csv in the folder
holds, else the one .gpx there, else EXIF. The CSV names `image` (path below the folder, a backslash counts as /) and
either `latitude, longitude` (WGS84 degrees) or `easting, northing, zone` (UTM metres; `zone` such as 32N or 56S with
the hemisphere, or 32U with the latitude band; southern northings with the false northing; rows of several zones are
brought into that of their city's median position). Optional: `time` (ISO 8601, UTC where it names no offset, or
seconds since 1970), `heading` (degrees clockwise from north), `drive`, `role` (database or query), `city`. Columns are
separated by comma, semicolon or tab. Without a CSV, see `seqdata.sources.folder.photos`; for cities, order and names
of drives, `seqdata.sources.folder.drives`. Frames of a drive are ordered by time where all of it have one, else in the
CSV's order or by name; a drive with both roles becomes the trajectories `<drive>/database` and `<drive>/query`, and one
that `cut` divides `<drive>/train`, `<drive>/test` and (no role, no part of either) `<drive>/buffer`.
"""

import math
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError, UsageError
from seqdata.sources.base import Listing, Source, quarantine_rows, split_duplicates
from seqdata.sources.detect import looks_like_another
from seqdata.sources.files import (
    NOT_READ,
    DumpFile,
    file_names,
    first_images,
    has_table,
    inside,
    is_hidden,
    is_image,
    is_other_image,
    is_text,
    read_image_file,
    walk,
)
from seqdata.sources.folder.drives import (
    in_driving_order,
    wide_notes,
    with_parts,
    with_places,
    with_roles,
    with_trajectories,
)
from seqdata.sources.folder.exif import has_gps_block
from seqdata.sources.folder.photos import clock_notes, photo_rows, track_rows
from seqdata.sources.folder.positions_csv import ZONE_LETTERS, heading_notes, read_positions
from seqdata.sources.folder.roles import DEFAULT_BUFFER, Cut, parse_roles
from seqdata.storage.faults import raise_passing
from seqdata.storage.hashing import xxh3_hex

EXIF = "exif"
# Seconds: loggers that save points only where the direction changes leave about so many between them.
POSE_GAP = 10.0
_ON_TRACK = ("time_offset", "pose_gap")
_SAMPLE = 16


def recognise(raw: Path) -> bool:
    """Whether a folder holds images with a CSV or GPX on top, or with a GPS block in the EXIF of the first ones."""
    images = first_images(raw, _SAMPLE)
    return bool(images) and (has_table(raw) or any(map(has_gps_block, images)))


def open(raw: Path, options: Mapping[str, str]) -> "FolderSource":
    """Open the drives at `raw`; for the options see `seqdata.sources.registry`.

    Raises:
        UsageError: If an option has a bad value, or belongs to another way of placing images.
    """
    # The object is made first: it knows where positions come from, which some options depend on.
    source = FolderSource(
        raw,
        options.get("positions", ""),
        time_offset=_number(options, "time_offset", 0.0, -math.inf),
        pose_gap=_number(options, "pose_gap", POSE_GAP, 0.0),
        roles=options.get("roles", ""),
        cut=options.get("cut", ""),
        buffer=_number(options, "buffer", DEFAULT_BUFFER, 0.0),
        zone_letters=options.get("zone_letters", ""),
    )
    if "buffer" in options and not source.cut:
        raise UsageError("option buffer belongs to a cut along the route; name one, as in cut=0.6")
    on_track = options.keys() & set(_ON_TRACK)
    if on_track and source.where().suffix.lower() != ".gpx":
        raise UsageError(f"option {min(on_track)} belongs to a GPX track, and positions is none")
    if source.zone_letters not in ("", *ZONE_LETTERS):
        raise UsageError(f"option zone_letters has '{source.zone_letters}'; it takes {' or '.join(ZONE_LETTERS)}")
    return source


def _number(options: Mapping[str, str], name: str, default: float, least: float) -> float:
    """A finite number of at least `least`. Raises: ContractError for another text."""
    text = options.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= least):
        raise UsageError(f"option {name} has '{text}'; it takes a number" + (" of 0 or more" if least == 0 else ""))
    return number


@dataclass(frozen=True)
class FolderSource(Source):
    """A folder of images; the fields are the options of `open`."""

    raw: Path
    positions: str = ""
    time_offset: float = 0.0
    pose_gap: float = POSE_GAP
    roles: str = ""
    cut: str = ""
    buffer: float = DEFAULT_BUFFER
    zone_letters: str = ""
    attribution: str = "the user's own drives"

    def where(self) -> Path:
        """Find the CSV or GPX that says where images were taken, or the path `exif`.

        Raises:
            InputError: If nothing is named and several GPX tracks lie in the folder.
        """
        if self.positions:
            return Path(self.positions)
        if (self.raw / "positions.csv").is_file():
            return self.raw / "positions.csv"
        tracks = [self.raw / name for name in file_names(self.raw) if Path(name).suffix.lower() == ".gpx"]
        if len(tracks) > 1:
            names = ", ".join(path.name for path in tracks)
            raise InputError(
                f"{self.raw}: holds {len(tracks)} GPX tracks ({names}); name one with the option positions"
            )
        return tracks[0] if tracks else Path(EXIF)

    def listing(self) -> Listing:
        """List every frame.

        Raises:
            InputError: If there is no image, or no usable CSV or track.
            ContractError: If a column is missing, a value is none, a role is for a drive that is not there, or a cut
                leaves one side empty.
        """
        files = [file for file in walk(self.raw) if is_image(file.name) or is_other_image(file.name)]
        images = _table(
            [file for file in files if is_image(file.name) and is_text(file.name) and file.bytes is not None]
        )
        if not images.height:
            raise InputError(f"{self.raw}: no .jpg or .png image below it{self._instead(files)}")
        where = self.where()
        # A link to a folder of the same dump shows its images again: they are read where a table names them so.
        own = images.filter(~pl.col("is_alias"))
        rows, track_notes = self._rows(where, own)
        # Rows that list an image again leave before positions are counted: a counted one would break every window.
        repeated = pl.col("reason").eq_missing("duplicate_key")
        usable = pl.col("bytes").is_not_null() & pl.col("latitude").is_not_null()
        joined = rows.filter(~repeated).join(images, on="source", how="left", maintain_order="left")
        placed = with_places(with_roles(joined, parse_roles(self.roles)))
        ordered = in_driving_order(placed, usable)
        cut = Cut.parse(self.cut) if self.cut else None
        named = with_trajectories(with_parts(ordered, usable, cut, self.buffer))
        listing = split_duplicates(_with_record_fields(named.filter(usable)))
        left_out = [
            *_left_out(named, where.name, self.raw),
            table_contract("quarantine").conform(rows.filter(repeated)),
            quarantine_rows(
                own.join(rows, on="source", how="anti"), "no_row", f"an image without a row in {where.name}"
            ),
            *_not_read(files, rows),
            listing.quarantine,
        ]
        notes = (*track_notes, *clock_notes(rows), *wide_notes(named.filter(usable)))
        return Listing(listing.records, pl.concat(left_out), notes)

    def _instead(self, files: list[DumpFile]) -> str:
        """What lies there instead of images that are read, for the end of a message."""
        kinds = Counter(Path(file.name).suffix.lower() for file in files if is_other_image(file.name))
        if kinds:
            suffix, count = kinds.most_common(1)[0]
            return f", but {count:,} of {suffix}: {NOT_READ}"
        return looks_like_another(self.raw, "folder")

    def _rows(self, where: Path, images: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """A row for each image that is listed, in the order of its table or by name, and notes about the track."""
        if where.suffix.lower() == ".gpx":
            return track_rows(self.raw, images, where, self.time_offset, self.pose_gap)
        if where != Path(EXIF):
            rows = read_positions(where, self.zone_letters)
            notes = heading_notes(rows, where.name)
            rows = _named_as_on_disk(rows.drop("unread_heading", strict=False), images)
            return rows.with_columns(pl.lit(None, pl.Int64).alias("clock_error")), notes
        rows = photo_rows(self.raw, images)
        if not self.positions and rows["latitude"].null_count() == rows.height:
            other = looks_like_another(self.raw, "folder")
            raise InputError(
                f"{self.raw}: has no positions.csv and no .gpx, and none of its {rows.height:,} images has a GPS "
                f"position in its EXIF; name a CSV or GPX track with --positions{other}"
            )
        return rows, ()

    def read(self, source: str) -> bytes:
        """Read the bytes of one image."""
        return read_image_file(inside(self.raw, source))


def _named_as_on_disk(rows: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Rows whose images are named in the file system's own form of accented letters.

    macOS writes é in a file name as e and an accent, a table as one letter: no eye tells them apart.
    """
    listed, on_disk = set(rows["source"]), set(images["source"])
    forms = {unicodedata.normalize("NFC", name): name for name in sorted(on_disk - listed)}
    names = {name: forms.get(unicodedata.normalize("NFC", name), name) for name in listed - on_disk}
    return rows.with_columns(pl.col("source").replace(names))


def _table(files: list[DumpFile]) -> pl.DataFrame:
    """Images as a table: source, bytes, is_alias; sorted by source."""
    rows = [(file.name, file.bytes, file.is_alias) for file in files]
    schema = {"source": pl.String, "bytes": pl.Int64, "is_alias": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("source")


def _left_out(rows: pl.DataFrame, where: str, raw: Path) -> list[pl.DataFrame]:
    """Quarantine rows for the rows that name no image, an absent one, or one without a place."""
    named, present = pl.col("source") != "", pl.col("bytes").is_not_null()
    nameless = rows.filter(~named).with_columns(pl.format("{} row {}", pl.lit(where), "row").alias("source"))
    absent = rows.filter(named & ~present)
    reasons = [_why_absent(raw, name, where) for name in absent["source"]]
    absent = absent.with_columns(
        pl.Series("reason", [reason for reason, _ in reasons], dtype=pl.String),
        pl.Series("message", [message for _, message in reasons], dtype=pl.String),
    )
    placeless = rows.filter(present & pl.col("latitude").is_null())
    return [
        quarantine_rows(nameless, "missing_image", "the row names no image (row 1 follows the header)"),
        table_contract("quarantine").conform(absent),
        table_contract("quarantine").conform(placeless),
    ]


def _why_absent(raw: Path, name: str, where: str) -> tuple[str, str]:
    """Reason and message for an image that a table lists and that is not read; what is there is never called absent."""
    try:
        is_there = inside(raw, name).exists()
    except (KeyError, ValueError, OSError) as error:  # out of the folder, or a name that no file can have
        raise_passing(error)
        is_there = False
    if is_there and is_hidden(name):
        return "unreadable_image", f"listed in {where}, but hidden files and folders of thumbnails are not read"
    if is_there:
        return "unreadable_image", f"listed in {where}, but {NOT_READ}"
    return "missing_image", f"listed in {where}, but no such image file"


def _not_read(files: list[DumpFile], rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Quarantine rows for files that no table lists: other kinds, links that lead nowhere, names that are no text."""
    listed = set(rows["source"])
    others = [
        file.name for file in files if is_other_image(file.name) and file.name not in listed and not file.is_alias
    ]
    dangling = [file.name for file in files if is_image(file.name) and file.bytes is None and file.name not in listed]
    nameless = [name for name in (file.name for file in files if is_image(file.name)) if not is_text(name)]
    return [
        quarantine_rows(_sources(others), "unreadable_image", NOT_READ),
        quarantine_rows(_sources(dangling), "missing_image", "a link to a file that is not there"),
        quarantine_rows(_sources(nameless), "unreadable_image", "the file's name is not UTF-8; rename the file"),
    ]


def _sources(names: list[str]) -> pl.DataFrame:
    """Names as a table's column `source`; bytes that are no UTF-8 are shown in hexadecimal."""
    # The file system's bytes come as surrogates, which no UTF-8 table can hold.
    texts = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    return pl.DataFrame({"source": pl.Series(texts, dtype=pl.String)})


def _with_record_fields(rows: pl.DataFrame) -> pl.DataFrame:
    """The remaining fields of the record; keys come from the path, with what a shard's key may not hold replaced."""
    # A key is a file name in a tar, and a webdataset sample: no dot, no slash, at most 90 bytes.
    stem = pl.col("source").str.replace(r"\.[A-Za-z]+$", "").str.replace_all(r"[^A-Za-z0-9_-]+", "_")
    # a.b/1.jpg and a_b/1.jpg would share a key: both get a digest of their path.
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

"""Nordland: seasons of `images-NNNNN.png` in folders, zips or sections, their GPS logs and the clean list.

Convention: frame N is the same place in every season, so all seasons take their position from the summer log, at second
N − 163 after its first row (nearest available second). `position` is the rank of N among all numbers that any season
holds, `clean_position` its rank among those of them that the clean list names: windows cross removed tunnels. Without
a clean list `clean_position` is empty everywhere. The four videos are not read: cut them into one frame a second first.
Source: the dataset's files and the practice of its published loaders.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import seqdata.protocols
from seqdata import geometry
from seqdata.errors import InputError
from seqdata.sources.archives import open_archive
from seqdata.sources.base import Listing, Source, quarantine_rows, split_duplicates
from seqdata.sources.detect import looks_like_another
from seqdata.sources.files import inside, read_image_file
from seqdata.sources.nordland.files import SEASONS, season_files
from seqdata.sources.nordland.files import recognise as recognise
from seqdata.sources.nordland.gps import read_log
from seqdata.storage.faults import read_again

FIRST_LOGGED_FRAME = 163
CLEAN_LIST = "clean_frames.txt"
_LISTED_NUMBER = re.compile(r"(?:.*[^\d.])?(\d{1,9})(?:\.(?:png|jpg|jpeg))?", re.IGNORECASE)


def open(raw: Path, options: Mapping[str, str]) -> "NordlandSource":
    """Open the Nordland dump at `raw`; for the options see `seqdata.sources.registry`.

    A line of the clean list is a frame's name with or without its suffix, or a bare number; `#` starts a comment.
    """
    return NordlandSource(raw, options.get("clean_list", ""))


@dataclass(frozen=True)
class NordlandSource(Source):
    """A folder with `<season>/`, `<season>.zip` or sections for at least one season, and `summer.csv`.

    Attributes:
        raw: The folder.
        clean_list: File of clean frame names; "" is `clean_frames.txt` in the folder, where it is there.
        attribution: Credits the dump's makers.
    """

    raw: Path
    clean_list: str = ""
    attribution: str = "Nordlandsbanen: minute by minute, NRK (CC BY-NC-SA)"

    def listing(self) -> Listing:
        """List every frame of every season.

        Raises:
            InputError: If no season or no summer log is there, or the clean list is another dump's.
        """
        files, refused = (
            pl.concat(tables) for tables in zip(*(season_files(self.raw, s) for s in SEASONS), strict=True)
        )
        if not files.height:
            raise InputError(
                f"{self.raw}: no summer.zip, winter/ or other season below it; this is not a Nordland dump"
                f"{looks_like_another(self.raw, 'nordland')}"
            )
        numbered = files.filter(pl.col("number").is_not_null())
        if not numbered.height:
            raise InputError(f"{self.raw}: no image name ends in a frame number, as images-00001.png does")
        records = _place(self.raw, _rank(numbered, self._clean_numbers(numbered)))
        listing = split_duplicates(records.sort("role", "trajectory", "position", maintain_order=True))
        unnumbered = quarantine_rows(
            files.filter(pl.col("number").is_null()), "no_position", "no frame number in the file name"
        )
        return Listing(listing.records, pl.concat([listing.quarantine, unnumbered, refused]))

    def read(self, source: str) -> bytes:
        """Read one image, from its folder or straight from the season's zip (`<season>.zip!<member>`)."""
        archive, mark, member = source.partition(".zip!")
        if not mark:
            return read_image_file(inside(self.raw, source))
        return open_archive(inside(self.raw, f"{archive}.zip")).read(member)

    def check_protocol(self, protocol: seqdata.protocols.Protocol) -> None:
        """Check that there is a clean list where `protocol` takes clean frames only.

        Raises:
            InputError: When it is absent or cannot be read.
        """
        if protocol.clean and self._clean_path() is None:
            raise InputError(
                f"{self.raw}: protocol {protocol.name} needs a clean list, and there is no {CLEAN_LIST} in {self.raw}: "
                "name one with --clean-list FILE"
            )

    def _clean_path(self) -> Path | None:
        """The clean list's file, None when there is none. Raises: InputError when a named one is absent."""
        path = Path(self.clean_list) if self.clean_list else self.raw / CLEAN_LIST
        if path.is_file():
            return path
        if self.clean_list:
            raise InputError(f"{path}: no such clean list")
        return None

    def _clean_numbers(self, numbered: pl.DataFrame) -> set[int] | None:
        """Frame numbers of the clean list, None without a list. Raises: InputError when none of them is in the dump."""
        path = self._clean_path()
        if path is None:
            return None
        numbers = _read_clean_list(path)
        if numbers.isdisjoint(numbered["number"].to_list()):
            raise InputError(f"{path}: names no frame that is in {self.raw}; this clean list is another dump's")
        return numbers


def _read_clean_list(path: Path) -> set[int]:
    """The frame numbers that a clean list names. Raises: InputError naming a line that holds none."""
    try:
        lines = read_again(path.read_bytes).decode("utf-8-sig", "replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: the clean list cannot be read ({error.strerror})") from error
    numbers = set()
    for place, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        match = _LISTED_NUMBER.fullmatch(name)
        if match:
            numbers.add(int(match.group(1)))
        elif name:
            raise InputError(f"{path}: line {place} ('{name[:60]}') ends in no frame number, as images-00001.png does")
    return numbers


def _rank(files: pl.DataFrame, clean: set[int] | None) -> pl.DataFrame:
    """Add position and clean_position: ranks over the numbers that any season holds (the latter empty without list)."""
    # Ranks over all seasons together, so that one place has one position whatever a season lacks.
    numbers = files.select(pl.col("number").unique().sort())
    ranks = numbers.with_row_index("position").with_columns(pl.col("position").cast(pl.Int32))
    listed = numbers.filter(pl.col("number").is_in(sorted(clean or ())))
    clean_ranks = listed.with_row_index("clean_position").with_columns(pl.col("clean_position").cast(pl.Int32))
    return files.join(ranks, on="number", how="left").join(clean_ranks, on="number", how="left")


def _place(raw: Path, files: pl.DataFrame) -> pl.DataFrame:
    """Add coordinates from the summer log and the remaining fields of the record."""
    log = read_log(raw / "summer.csv")
    # Frames before the log begins get its first row.
    number = files["number"].to_numpy()
    row = log.nearest(log.second[0] + np.maximum(number - FIRST_LOGGED_FRAME, 0))
    latitude, longitude = log.latitude[row], log.longitude[row]
    zone = geometry.choose_zone(latitude, longitude)
    easting, northing = geometry.to_utm(latitude, longitude, zone)
    return files.with_columns(
        (pl.col("trajectory") + "-" + pl.col("number").cast(pl.String).str.zfill(5)).alias("key"),
        pl.lit("nordland").alias("city"),
        pl.lit(None, pl.String).alias("role"),
        pl.Series("latitude", latitude),
        pl.Series("longitude", longitude),
        pl.lit(zone).alias("zone"),
        pl.Series("easting", easting),
        pl.Series("northing", northing),
        pl.lit(value=False).alias("night"),
        pl.lit(value=False).alias("panorama"),
        pl.lit("Forward").alias("view_direction"),
        pl.lit("").alias("subtasks"),
    )

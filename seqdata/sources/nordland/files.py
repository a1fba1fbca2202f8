"""Where a Nordland season's images lie: its folder, its zip, or the sections of the split.

Convention: the sections are `<season>_images_{train,test}`, folders or zips, at the top or below `train/` and `test/`.
Their numbers are taken for frame numbers of the whole journey, so that every layout gives the same records. The split
is also published with images counted from 0 in train and from 0 in test, tunnels and stops left out before: such a
number is no place, and is refused.
"""

import re
from pathlib import Path

import polars as pl

from seqdata.errors import InputError
from seqdata.sources.archives import Folder, open_archive
from seqdata.sources.base import quarantine_skipped
from seqdata.sources.files import file_names, image_names

SEASONS = ("spring", "summer", "fall", "winter")
_NUMBER = r"(?i)(?:^|\D)(\d{1,9})\.(?:png|jpe?g)$"
_FILES = {"source": pl.String, "bytes": pl.Int64}
_SKIPPED = {"name": pl.String, "message": pl.String}
_SEASON = re.compile(rf"(?:{'|'.join(SEASONS)})(?:_images_(?:train|test))?(?:\.zip)?")
_SECTION = re.compile(rf"(?:{'|'.join(SEASONS)})_images_(?:train|test)(?:\.zip)?")
_SEASON_LOG = re.compile(rf"(?:{'|'.join(SEASONS)})\.csv")


def recognise(raw: Path) -> bool:
    """Whether a folder holds Nordland: a season beside a season's log, or a section of the published split.

    Seasons alone may be anyone's own drives.
    """
    names = file_names(raw)
    below = [name for part in ("train", "test") for name in file_names(raw / part)]
    has_log = any(map(_SEASON.fullmatch, names)) and any(map(_SEASON_LOG.fullmatch, names))
    return has_log or any(map(_SECTION.fullmatch, (*names, *below)))


def season_files(raw: Path, season: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """List the images of one season.

    A folder with images goes before the zip of the same name, the whole season before its sections.

    Args:
        raw: Folder of the dump.
        season: One of `SEASONS`.

    Returns:
        Images, sorted by number (source, bytes, number: null when the name has none, trajectory), and quarantine rows
        of what the season's zips hold and is never read.

    Raises:
        InputError: If a zip is damaged, or the sections' numbers are not those of the journey.
    """
    files, refused = _place(raw, season)
    if not files.height:
        sections = [_place(raw, name) for name in _section_names(season)]
        files = pl.concat([part for part, _ in sections])
        refused = pl.concat([refused, *(part for _, part in sections)])
        _check_numbers(raw, season, files["number"].drop_nulls())
    return files.with_columns(pl.lit(season).alias("trajectory")).sort("number", "source"), refused


def _section_names(season: str) -> list[str]:
    return [f"{below}{season}_images_{part}" for part in ("train", "test") for below in ("", f"{part}/")]


def _place(raw: Path, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Images of the folder or else the zip `name` with their numbers, and what of the zip is never read."""
    files, skipped = pl.DataFrame(schema=_FILES), pl.DataFrame(schema=_SKIPPED)
    if (raw / name).is_dir():
        files = _images(Folder(raw).members(name), "")
    if not files.height and (raw / f"{name}.zip").is_file():
        archive = open_archive(raw / f"{name}.zip")
        files, skipped = _images(archive.members(), f"{name}.zip!"), archive.skipped()
    # Names differ between copies of the dump (images-00001.png, 1.jpg, frame_1.png); the number is what they share.
    number = pl.col("source").str.extract(_NUMBER).cast(pl.Int64)
    return files.with_columns(number.alias("number")), quarantine_skipped(f"{name}.zip", skipped)


def _images(members: pl.DataFrame, label: str) -> pl.DataFrame:
    return members.filter(image_names("name")).select((pl.lit(label) + pl.col("name")).alias("source"), "bytes")


def _check_numbers(raw: Path, season: str, number: pl.Series) -> None:
    """Raise InputError when sections count their images anew instead of naming frames of the journey."""
    # Frames of the journey are numbered from 1, and no number stands in both sections.
    if number.min() == 0 or number.is_duplicated().any():
        raise InputError(
            f"{raw}: the {season}_images_train and _test sections count their images from 0 or anew in each; such a "
            "number is no frame of the journey, so no position is known: build from the season folders or zips"
        )

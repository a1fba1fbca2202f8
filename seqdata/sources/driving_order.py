"""In which order the images of a folder were taken, and where one drive ends: frames to search for, without positions.

A window over images that do not follow each other on the road is no sequence, so a folder's images are never put in
order by guess. What says their order, first to last: MSLS's seq_info.csv beside the folder; positions.csv in it or
above it; the times in EXIF where every image has one; moments or numbers in the names. Names that count nothing (keys,
hashes, Mapillary's image numbers) are no order.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from seqdata.errors import ContractError, InputError
from seqdata.sources.csv_tables import parse_columns, read_text_csv
from seqdata.sources.files import file_names, is_image, is_text
from seqdata.sources.folder.name_times import shared_times, stamped_times
from seqdata.sources.folder.photos import in_order_of_names, photo_rows
from seqdata.sources.folder.positions_csv import read_order

Order = Literal["auto", "name", "time"]
ORDERS: tuple[Order, ...] = ("auto", "name", "time")
SEQ_INFO = "seq_info.csv"
POSITIONS = "positions.csv"
# A dump's table lies in the folder of a drive, or one or two folders above it (raw/drives/monday).
_LEVELS_ABOVE = 3
# Counters stay below this; longer runs of digits are times or random numbers.
_GREATEST_COUNTER = 10**12
# Microseconds since 1970 of the years 1995 to 2040: times of digital pictures.
_TIMES = (788_918_400 * 10**6, 2_208_988_800 * 10**6)


@dataclass(frozen=True)
class Drive:
    """Images in the order in which one camera took them.

    Attributes:
        name: What it is called, for messages: the folder, and the drive where a table names several.
        images: Paths of the images, first to last.
        order: What the order comes from, for messages.
    """

    name: str
    images: tuple[Path, ...]
    order: str


def image_drives(folder: Path, order: Order = "auto", table: Path | None = None, least: int = 1) -> list[Drive]:
    """Put the images of a folder into drives.

    Args:
        folder: Holds the images, or folders of them.
        order: "name": by name, numbers as numbers; "time": by the times in EXIF or in names; "auto": what the folder
            itself says (see the module).
        table: A CSV that lists the images in order (see `seqdata.sources.folder.positions_csv.read_order`).
        least: Frames that a drive must have for its names to count as an order.

    Returns:
        The drives. A gap in MSLS's frame numbers ends one, as it does in a build.

    Raises:
        InputError: If there is no image, or nothing says their order; the message names what to give.
        ContractError: If a table is bad, or lists none of the images.
    """
    names = [name for name in file_names(folder) if is_image(name) and is_text(name)]
    if not names:
        below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_images(path)]
        if not below:
            raise InputError(f"{folder}: no .jpg or .png image there")
        return [drive for path in below for drive in image_drives(path, order, table, least)]
    if table is not None:
        return _by_table(folder, names, table)
    if order == "name":
        return [_by_name(folder, names, "names")]
    if order == "time":
        return [_by_time(folder, names)]
    return _by_what_is_there(folder, names, least)


def _holds_images(folder: Path) -> bool:
    # Hidden folders and thumbnails are no drives, as in a build.
    return is_image(f"{folder.name}/1.jpg") and any(
        is_image(path.name) if path.is_file() else path.is_dir() and _holds_images(path) for path in folder.iterdir()
    )


def _by_what_is_there(folder: Path, names: list[str], least: int) -> list[Drive]:
    """The first of the module's orders that the folder has. Raises: InputError when it has none."""
    sequences = folder.parent / SEQ_INFO
    if folder.name == "images" and sequences.is_file():
        return _by_seq_info(folder, names, sequences)
    for parent in list(folder.resolve().parents)[:_LEVELS_ABOVE] if not (folder / POSITIONS).is_file() else [folder]:
        if (parent / POSITIONS).is_file():
            return _by_table(folder, names, parent / POSITIONS)
    times = _times(folder, names)
    if times is not None:
        return [Drive(str(folder), tuple(folder / name for name in times), "times in EXIF")]
    counted = _by_counters(folder, names, least)
    if counted:
        return counted
    raise InputError(
        f"{folder}: nothing says in which order its {len(names)} images were taken (no {SEQ_INFO} beside it, no "
        f"{POSITIONS}, not all have a time in EXIF, names such as {names[0]} do not count); give --order name, or a "
        "table with a column image (and drive, time) as --csv FILE"
    )


def _by_name(folder: Path, names: Iterable[str], order: str) -> Drive:
    rows = in_order_of_names(pl.DataFrame({"source": pl.Series(list(names), dtype=pl.String)}))
    return Drive(str(folder), tuple(folder / name for name in rows["source"]), order)


def _by_counters(folder: Path, names: list[str], least: int) -> list[Drive]:
    """One drive for each form of name that counts (map-000.jpg, query-000.jpg); none where a name counts nothing."""
    stems = pl.Series([Path(name).stem for name in names], dtype=pl.String)
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    if not all(numbers):
        return []
    if any(int(number) >= _GREATEST_COUNTER for parts in numbers for number in parts):
        times = stamped_times(stems)["time"]
        if not times.is_between(*_TIMES).fill_null(value=False).all():
            return []
    forms: dict[str, list[str]] = {}
    for name, stem in zip(names, stems, strict=True):
        forms.setdefault(re.sub(r"\d+", "#", stem), []).append(name)
    # Keys and hashes hold digits too, but hardly two of them have one form.
    if len(forms) > 1 and any(len(members) < least or len(members) < 2 for members in forms.values()):
        return []
    drives = [_by_stamps(folder, part) or _by_name(folder, part, "numbers in names") for part in forms.values()]
    if len(forms) == 1:
        return drives
    return [
        Drive(f"{folder}/{form.replace('#', '*')}", drive.images, drive.order)
        for form, drive in zip(forms, drives, strict=True)
    ]


def _by_stamps(folder: Path, names: list[str]) -> Drive | None:
    """The images by the moments that are their names, None where one is none, or is another's too."""
    stamps = stamped_times(pl.Series([Path(name).stem for name in names], dtype=pl.String))
    if stamps["time"].null_count() or stamps["numbered"].any() or stamps["time"].is_duplicated().any():
        return None
    # A fraction without its last zeros is no smaller number: 5.5 comes after 5.25.
    in_order = stamps.with_columns(pl.Series("name", names)).sort("time")["name"]
    return Drive(str(folder), tuple(folder / name for name in in_order), "times in names")


def _times(folder: Path, names: list[str]) -> list[str] | None:
    """Names by the times in their EXIF, None unless every image has one of its own drive's moments."""
    rows = photo_rows(folder, pl.DataFrame({"source": pl.Series(names, dtype=pl.String)}))
    if rows["time"].null_count():
        return None
    clip = shared_times(rows["time"], rows["drive"], pl.Series([False] * rows.height))
    if clip.is_not_null().any():
        return None
    # Photos of one second stay in the order of their names.
    return rows.sort("time", maintain_order=True)["source"].to_list()


def _by_time(folder: Path, names: list[str]) -> Drive:
    """The folder as one drive, by EXIF, else the stamp in the name. Raises: InputError when an image has neither."""
    rows = photo_rows(folder, pl.DataFrame({"source": pl.Series(names, dtype=pl.String)}))
    stamps = stamped_times(pl.Series([Path(name).stem for name in rows["source"]], dtype=pl.String))
    rows = rows.with_columns(pl.col("time").fill_null(stamps["time"]))
    timeless = rows.filter(pl.col("time").is_null())["source"]
    if len(timeless):
        raise InputError(
            f"{folder / timeless[0]}: neither its EXIF nor its name says when it was taken; give --order name"
        )
    # Photos of one second stay in the order of their names.
    in_order = rows.sort("time", maintain_order=True)["source"]
    return Drive(str(folder), tuple(folder / name for name in in_order), "times in EXIF or names")


def _by_seq_info(folder: Path, names: list[str], path: Path) -> list[Drive]:
    """The drives of an MSLS city: seq_info.csv has a row (key, sequence_key, frame_number) an image."""
    needed = {"key": pl.String(), "sequence_key": pl.String(), "frame_number": pl.Int64()}
    table = parse_columns(read_text_csv(path), path, needed)
    images = pl.DataFrame({"name": names, "key": [Path(name).stem for name in names]})
    rows = images.join(table, on="key").drop_nulls("frame_number").unique("key", keep="first")
    rows = rows.sort("sequence_key", "frame_number")
    if not rows.height:
        raise ContractError(f"{path}: lists none of the images in {folder}")
    # An absent frame number is an image that was removed: a window must not reach across it.
    start = (pl.col("frame_number").diff() != 1) | (pl.col("sequence_key") != pl.col("sequence_key").shift())
    runs = rows.with_columns(start.fill_null(value=True).cum_sum().alias("run"))
    return _drives(folder, runs.rename({"sequence_key": "drive"}), SEQ_INFO)


def _by_table(folder: Path, names: list[str], path: Path) -> list[Drive]:
    """The drives that a CSV lists, each by time where all of it have one, else in the table's order."""
    rows = read_order(path).unique("source", keep="first", maintain_order=True)
    here = {str((folder / name).resolve()): name for name in names}
    # The table's paths are relative to it, as in a build; a list of bare names means this folder.
    resolved = [
        here.get(str((path.parent / source).resolve())) or here.get(str((folder / source).resolve()))
        for source in rows["source"]
    ]
    listed = rows.with_columns(pl.Series("name", resolved, dtype=pl.String)).drop_nulls("name")
    if not listed.height:
        raise ContractError(f"{path}: lists none of the images in {folder}")
    timed = pl.col("time").is_not_null().all().over("drive")
    in_order = listed.sort("drive", pl.when(timed).then("time"), "row", maintain_order=True)
    return _drives(folder, in_order.with_columns(pl.col("drive").alias("run")), path.name)


def _drives(folder: Path, rows: pl.DataFrame, order: str) -> list[Drive]:
    """One drive for each `run` of rows (columns name, drive, run), in their order."""
    groups = rows.group_by("run", maintain_order=True).agg("name", pl.col("drive").first())
    several = groups.height > 1
    parts = groups.with_columns(
        pl.int_range(1, pl.len() + 1).over("drive").alias("part"), pl.len().over("drive").alias("parts")
    )
    names = [
        f"{folder}, drive {drive}{f', part {part}' if parts > 1 else ''}" if several else str(folder)
        for drive, part, parts in parts.select("drive", "part", "parts").iter_rows()
    ]
    return [
        Drive(name, tuple(folder / image for image in images), order)
        for name, images in zip(names, groups["name"], strict=True)
    ]

"""Which kind of raw dump lies in a folder, told by the names in it; nothing is unpacked and no table is read whole."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from seqdata.errors import InputError
from seqdata.sources.files import is_image

_LAP = re.compile(r"\d{4}(?:-\d{2}){5}")
_LAP_TAR = re.compile(r"\d{4}(?:-\d{2}){5}_\w+\.tar")
_MSLS_ZIP = re.compile(r"msls_(?:images_vol_\d+|metadata|patch\w*(?:\.\d+)?)\.zip")
_SEASON = re.compile(r"(?:spring|summer|fall|winter)(?:_images_(?:train|test))?(?:\.zip)?")
_SECTIONED = re.compile(r"(?:spring|summer|fall|winter)_images_(?:train|test)(?:\.zip)?")
_SEASON_LOG = re.compile(r"(?:spring|summer|fall|winter)\.csv")
_TRACKS = (".csv", ".tsv", ".gpx")
_GPS_TAG = 0x8825
_LOOKED_AT = 20_000
_SAMPLE = 16
LOOKED_FOR = (
    "MSLS (train_val/<city>/database/seq_info.csv or msls_*.zip), RobotCar (a lap yyyy-mm-dd-hh-mm-ss or its .tar "
    "chunks), Nordland (summer/, summer.zip or summer_images_train/ with summer.csv), and a folder of images with a "
    "CSV, a GPX or EXIF positions"
)


def recognise(raw: Path) -> str:
    """The kind of the raw dump at `raw`: "msls", "robotcar", "nordland" or "folder".

    Convention: a folder of one's own is what none of the others is; of it the first images alone are opened, and only
    where no CSV or GPX lies on top. Raises: InputError when nothing is found, or two kinds are, saying what was looked
    for.
    """
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder")
    kinds = _published(raw)
    if len(kinds) > 1:
        raise InputError(f"{raw}: holds {' and '.join(kinds)} dumps; name the kind, as seqdata build {kinds[0]}")
    if kinds:
        return kinds[0]
    images = list(islice(_images(raw), _SAMPLE))
    if images and (any(name.lower().endswith(_TRACKS) for name in _names(raw)) or any(map(_has_gps, images))):
        return "folder"
    found = "images, but no position of them" if images else "no dump that is known"
    raise InputError(f"{raw}: {found}; looked for {LOOKED_FOR}")


def looks_like_another(raw: Path, kind: str) -> str:
    """For the end of a message that `raw` is no dump of `kind`: which other one it looks like, "" when unknown."""
    try:
        other = recognise(raw)
    except InputError:
        return ""
    return "" if other == kind else f"; this looks like a {other} dump: use seqdata build {other}"


def _published(raw: Path) -> list[str]:
    """The published datasets whose names lie in `raw`."""
    names = _names(raw)
    found = {
        "msls": any(map(_MSLS_ZIP.fullmatch, names)) or any(_cities(raw)),
        "nordland": _is_nordland(raw, names),
        "robotcar": any(map(_LAP_TAR.fullmatch, names)) or any(_LAP.fullmatch(n) and (raw / n).is_dir() for n in names),
    }
    return [kind for kind, is_there in found.items() if is_there]


def _cities(raw: Path) -> Iterator[Path]:
    for part in ("train_val", "test"):
        for role in ("database", "query"):
            yield from (raw / part).glob(f"*/{role}/seq_info.csv")


def _is_nordland(raw: Path, names: list[str]) -> bool:
    """A season beside a season's log (seasons alone may be anyone's own drives), or the sectioned split."""
    below = [name for part in ("train", "test") for name in _names(raw / part)]
    logged = any(map(_SEASON.fullmatch, names)) and any(map(_SEASON_LOG.fullmatch, names))
    return logged or any(map(_SECTIONED.fullmatch, (*names, *below)))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _images(raw: Path) -> Iterator[Path]:
    """Images among the first files below `raw`."""
    files = (Path(folder) / name for folder, _, names in os.walk(raw) for name in sorted(names))
    return (path for path in islice(files, _LOOKED_AT) if is_image(path.relative_to(raw).as_posix()))


def _has_gps(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(image.getexif().get_ifd(_GPS_TAG))
    except Exception:  # Pillow raises many kinds for broken files; all mean "not known"
        return False

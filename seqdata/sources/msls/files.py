"""Where an MSLS dump's files lie: unpacked folders, the downloaded zips beside them, or some of each.

Convention: the volumes and the metadata zip come first, what is unpacked covers them, and the patch zip covers all: it
replaces images that the volumes hold corrupt. A member of a zip is named `<zip>!<member>`, a file by its path.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata.errors import InputError
from seqdata.frames.images import BadImageError
from seqdata.sources.archives import Archive, FileTree, Folder, Overlay, open_archive
from seqdata.sources.base import quarantine_skipped
from seqdata.sources.csv_tables import shorten
from seqdata.sources.files import file_names, image_names, inside, read_image_file

PARTS = ("train_val", "test")
ROLES = ("database", "query")
LOWER_ZIPS = ("msls_images_vol_*.zip", "msls_metadata*.zip")
PATCH_ZIPS = ("msls_patch*.zip",)
_CITY = re.compile(r"(?:train_val|test)/[^/]+")
_PUBLISHED_ZIP = re.compile(r"msls_(?:images_vol_\d+|metadata|patch\w*(?:\.\d+)?)\.zip")


def recognise(raw: Path) -> bool:
    """Whether a folder holds MSLS: a city's seq_info.csv, or one of the downloaded zips."""
    return any(map(_PUBLISHED_ZIP.fullmatch, file_names(raw))) or any(_city_tables(raw))


def _city_tables(raw: Path) -> Iterator[Path]:
    for part in PARTS:
        for role in ROLES:
            yield from (raw / part).glob(f"*/{role}/seq_info.csv")


@dataclass(frozen=True)
class MslsFiles:
    """The files of a dump.

    Attributes:
        raw: The folder.
        lower: Names of the zips that the unpacked folder covers.
        upper: Names of the zips that cover it.
    """

    raw: Path
    lower: tuple[str, ...]
    upper: tuple[str, ...]

    def cities(self) -> list[str]:
        """`train_val/<city>` and `test/<city>` of every city that has a seq_info.csv, in this order."""
        # A city counts by its table, not by its folder: of a city that is being unpacked the images come first.
        unpacked = {
            f"{part}/{city.name}"
            for part in PARTS
            for city in (self.raw / part).glob("*")
            if any((city / role / "seq_info.csv").is_file() for role in ROLES)
        }
        tables = (archive.index["name"] for archive in self._archives())
        packed = {
            name.rsplit("/", 2)[0] for names in tables for name in names.filter(names.str.ends_with("/seq_info.csv"))
        }
        cities = (name for name in unpacked | packed if _CITY.fullmatch(name))
        return sorted(cities, key=lambda name: (PARTS.index(name.split("/")[0]), name))

    def table(self, name: str) -> bytes | None:
        """Read one CSV, None where there is none.

        Raises:
            InputError: When it is there and cannot be read.
        """
        try:
            return Overlay(tuple(store for _, store in self._layers())).read(name)
        except KeyError:
            return None
        except (BadImageError, OSError) as error:
            raise InputError(f"{self.raw / name}: the table cannot be read ({error}); download it again") from error

    def images(self, folder: str) -> pl.DataFrame:
        """List images below `folder`: name, bytes and source, sorted by name; of equal names the uppermost layer's."""
        parts = [
            store.members(folder)
            .filter(image_names("name"))
            .with_columns((pl.lit(label) + pl.col("name")).alias("source"))
            for label, store in self._layers()
        ]
        return pl.concat(parts).unique("name", keep="last", maintain_order=True).sort("name")

    def read(self, source: str) -> bytes:
        """Read the image `source`. Raises: KeyError or FileNotFoundError when it is gone, BadImageError."""
        archive, mark, member = source.partition("!")
        if mark and archive in (*self.lower, *self.upper):
            return open_archive(self.raw / archive).read(member)
        return read_image_file(inside(self.raw, source))

    def refused(self) -> list[pl.DataFrame]:
        """Quarantine rows of each zip's members that are never read: links, names that lead outside."""
        return [quarantine_skipped(archive.path.name, archive.skipped()) for archive in self._archives()]

    def other_zips(self) -> str:
        """Names of zips beside the dump that are none of the published ones, for a message; "" where there are none."""
        names = [name for name in file_names(self.raw) if name.lower().endswith(".zip")]
        others = [shorten(name) for name in names if name not in (*self.lower, *self.upper)]
        return ", ".join(others[:3]) + (", …" if len(others) > 3 else "")

    def _archives(self) -> list[Archive]:
        return [open_archive(self.raw / name) for name in (*self.lower, *self.upper)]

    def _layers(self) -> list[tuple[str, FileTree]]:
        """What stands before a member's name in `source`, and the store; lowest first."""
        lower, upper = (
            [(f"{name}!", open_archive(self.raw / name)) for name in names] for names in (self.lower, self.upper)
        )
        # The order in which one would unpack: volumes first, then what lies there, and the patch over all.
        return [*lower, ("", Folder(self.raw)), *upper]


def find_files(raw: Path) -> MslsFiles:
    """Find the zips of the dump at `raw` by their published names; of several patches the last by name wins."""
    lower, upper = (
        tuple(sorted(path.name for pattern in patterns for path in raw.glob(pattern) if path.is_file()))
        for patterns in (LOWER_ZIPS, PATCH_ZIPS)
    )
    return MslsFiles(raw, lower, upper)

"""Where a RobotCar dump's files lie: lap folders, the downloaded tars and zips, or both beside one another.

Convention: names are as unpacked, `<lap>/stereo/left/<timestamp>.png`, whether the file lies in a folder or in
`<lap>_stereo_left_01.tar` (beside the lap folders, or inside them). An unpacked file wins over an archive's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError
from seqdata.frames.images import BadImageError
from seqdata.geometry import IntArray
from seqdata.sources.archives import Folder, Overlay, open_archive
from seqdata.sources.base import quarantine_skipped
from seqdata.sources.csv_tables import shorten
from seqdata.sources.files import file_names, image_names
from seqdata.sources.robotcar.pose import Log, PoseSource, read_log

CAMERAS = ("stereo_left", "stereo_centre", "stereo_right", "mono_left", "mono_right", "mono_rear")
_LAP = re.compile(r"\d{4}(?:-\d\d){5}")
_LAP_TAR = re.compile(rf"{_LAP.pattern}_\w+\.tar")
_ARCHIVE = re.compile(rf"({_LAP.pattern})_(\w+?)(?:_\d+)?\.(?:tar|zip)")
_RTK_ARCHIVE = re.compile(r"rtk.*\.(?:tar|zip)")
# Up to 18 digits: nanoseconds and longer numbers would not fit into 64 bits.
_LINE = r"^[ \t]*([0-9]{1,18})(?:[ \t]+[0-9]+)?[ \t]*$"
# Ground truth comes as one archive of rtk/<lap>/rtk.csv, and people put the file into the lap's folder.
_LOGS = {
    "rtk": ("{lap}/rtk.csv", "{lap}/gps/rtk.csv", "rtk/{lap}/rtk.csv"),
    "ins": ("{lap}/gps/ins.csv",),
    "gps": ("{lap}/gps/gps.csv",),
}


def recognise(raw: Path) -> bool:
    """Whether a folder holds RobotCar: a folder of a lap, or a tar of one."""
    return any(_LAP_TAR.fullmatch(name) or (_LAP.fullmatch(name) and (raw / name).is_dir()) for name in file_names(raw))


@dataclass(frozen=True)
class Layout:
    """Where the files of one camera lie; archives are opened once.

    Attributes:
        raw: Root of the dump.
        camera: The camera, one of `CAMERAS`.
    """

    raw: Path
    camera: str
    _stores: dict[str, Overlay] = field(default_factory=dict, init=False, repr=False, compare=False)

    def laps(self) -> list[str]:
        """List all laps that have a folder or an archive of this camera, sorted."""
        folders = {path.name for path in self.raw.glob("*") if _LAP.fullmatch(path.name) and path.is_dir()}
        return sorted(folders | {match.group(1) for _, match in self._archives if match.group(2) == self.camera})

    def folder(self, lap: str) -> str:
        """Name the folder of a lap's pictures, below the root."""
        return f"{lap}/{self.camera.replace('stereo_', 'stereo/')}"

    def images(self, lap: str) -> Overlay:
        """Open a lap's pictures and timestamps.

        Raises:
            InputError: For a damaged archive.
        """
        # Kept by lap: an index of a lap's tars is made once, not for each of its pictures.
        if lap not in self._stores:
            self._stores[lap] = self._overlay(self._archives_of(lap, self.camera))
        return self._stores[lap]

    def files(self, lap: str) -> pl.DataFrame:
        """List a lap's pictures: name, bytes, stem (the file's name without suffix); a PNG wins over its JPEG."""
        folder = self.folder(lap)
        files = self.images(lap).members(folder).filter(image_names("name"))
        own = pl.col("name").str.strip_prefix(f"{folder}/")
        files = files.with_columns(own.str.replace(r"\.[^.]*$", "").alias("stem"))
        # Frames that were converted to JPEG lie beside their PNG: the raw picture wins.
        png = pl.col("name").str.to_lowercase().str.ends_with(".png")
        return files.sort(~png, "name").unique("stem", keep="first", maintain_order=True)

    def timestamps(self, lap: str) -> IntArray | None:
        """Read when each frame was taken, downloaded or not.

        Returns:
            (n,) int64 microseconds in the file's order; None without the file.

        Raises:
            InputError: If a line is no "<timestamp> <chunk>"; it is named.
        """
        name = self.timestamps_file(lap)
        data = self._read(self.images(lap), name)
        return None if data is None else _parse_timestamps(data, f"{self.raw}/{name}")

    def timestamps_file(self, lap: str) -> str:
        """Name the file that lists a lap's frames: one for the three stereo cameras, one for each mono camera."""
        return f"{lap}/{'stereo' if self.camera.startswith('stereo') else self.camera}.timestamps"

    def log(self, lap: str, source: PoseSource) -> Log:
        """Read a lap's positions.

        Raises:
            InputError: Naming the lap that has none of this source.
            ContractError: If a column of the log is missing.
        """
        store = self._overlay(
            [*(self._rtk_archives() if source == "rtk" else ()), *self._archives_of(lap, "gps", source)]
        )
        for name in (pattern.format(lap=lap, source=source) for pattern in _LOGS[source]):
            data = self._read(store, name)
            if data is not None:
                return read_log(data, f"{self.raw}/{name}", source)
        raise InputError(
            f"{self.raw}: lap {lap} has no {source}.csv; download it, or choose other --laps or another --pose for all"
        )

    def skipped(self, lap: str) -> pl.DataFrame:
        """Make quarantine rows of what the lap's archives hold and is never read."""
        parts = [
            quarantine_skipped(path.relative_to(self.raw).as_posix(), open_archive(path).skipped())
            for path in self._archives_of(lap, self.camera)
        ]
        return pl.concat([table_contract("quarantine").conform(pl.DataFrame(schema={"source": pl.String})), *parts])

    def _overlay(self, archives: Iterable[Path]) -> Overlay:
        return Overlay((*(open_archive(path) for path in archives), Folder(self.raw)))

    def _archives_of(self, lap: str, *kinds: str) -> list[Path]:
        return [path for path, match in self._archives if match.group(1) == lap and match.group(2) in kinds]

    @cached_property
    def _archives(self) -> list[tuple[Path, re.Match[str]]]:
        """Downloaded archives by the pattern of their names, sorted: beside the lap folders, or one folder down."""
        paths = sorted([*self.raw.glob("*.[tz]*"), *self.raw.glob("*/*.[tz]*")], key=lambda path: path.name)
        matches = ((path, _ARCHIVE.fullmatch(path.name)) for path in paths)
        return [(path, match) for path, match in matches if match is not None and path.is_file()]

    def _rtk_archives(self) -> list[Path]:
        return [path for path in sorted(self.raw.glob("*.[tz]*")) if _RTK_ARCHIVE.fullmatch(path.name)]

    def _read(self, store: Overlay, name: str) -> bytes | None:
        try:
            return store.read(name)
        except KeyError:
            return None
        except (BadImageError, OSError) as error:
            raise InputError(f"{self.raw}: {name} cannot be read ({error}); download it again") from error


def _parse_timestamps(data: bytes, file: str) -> IntArray:
    """The first number of every line. Raises: InputError naming the first line that has none."""
    lines = pl.Series("line", data.decode(errors="replace").rstrip().splitlines(), dtype=pl.String)
    times = lines.str.extract(_LINE, 1).cast(pl.Int64)
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise InputError(f"{file}: line {row + 1} ('{shorten(lines[row])}') is no '<timestamp> <chunk>'")
    return times.to_numpy()

"""The kinds of raw dump: one entry each, with its module, default protocol, layout and options.

A new kind is a module and an entry here. The module has two functions: `open(raw, options)`, which returns a `Source`
(see `seqdata.sources.base`), and `recognise(raw)`, which says whether a folder holds such a dump. Modules are imported
when they are first used, so that this table stays light enough for `--help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from seqdata.errors import InputError, UsageError

if TYPE_CHECKING:
    from seqdata.sources.base import Source


@dataclass(frozen=True)
class SourceOption:
    """One setting of a source, given as text.

    Attributes:
        name: Name of the option; its flag is the same with dashes.
        help: What it means, in one line.
        is_path: Whether the value is a path. A manifest keeps the name of such a file, not its folder.
        default: What holds where it is not given.
        values: The words that it takes, where they are a fixed few.
    """

    name: str
    help: str
    is_path: bool = False
    default: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceKind:
    """One kind of raw dump.

    Attributes:
        name: What the user calls it, as in `seqdata build NAME RAW`.
        module: Module with `open` and `recognise`.
        default_protocol: Protocol whose windows a build stores when the user names none.
        layout: The files by which it is recognised, for messages.
        options: The settings that its `open` takes.
    """

    name: str
    module: str
    default_protocol: str
    layout: str
    options: tuple[SourceOption, ...] = ()

    def load(self) -> ModuleType:
        """Import the module that reads this kind."""
        return import_module(self.module)

    def recognises(self, raw: Path) -> bool:
        """Whether the folder `raw` holds a dump of this kind, by names of files alone."""
        is_this_kind: bool = self.load().recognise(raw)
        return is_this_kind


# The kind that is tried last: images of one's own, which no published layout describes.
OWN_DRIVES = "folder"

_KINDS = (
    SourceKind(
        name="msls",
        module="seqdata.sources.msls.reader",
        default_protocol="msls-seqvlad",
        layout="MSLS (train_val/<city>/database/seq_info.csv or msls_*.zip)",
        options=(SourceOption("cities", "exact city names, comma-separated", default="all"),),
    ),
    SourceKind(
        name="robotcar",
        module="seqdata.sources.robotcar.reader",
        default_protocol="robotcar-seqvlad",
        layout="RobotCar (a lap yyyy-mm-dd-hh-mm-ss or its .tar chunks)",
        options=(
            SourceOption("laps", "laps, comma-separated", default="all that have pictures of the camera"),
            SourceOption(
                "camera",
                "camera whose pictures are taken",
                default="stereo_left",
                values=("stereo_left", "stereo_centre", "stereo_right", "mono_left", "mono_right", "mono_rear"),
            ),
            SourceOption("pose", "log of the positions", default="rtk", values=("rtk", "ins", "gps")),
            SourceOption(
                "pose_mode",
                "how a frame's position is looked up",
                default="interpolate",
                values=("interpolate", "nearest"),
            ),
            SourceOption("pose_gap", "longest gap between the two log rows around a frame", default="0.5"),
            SourceOption("undistort", "the SDK's models folder, or a lookup table, to undistort with", is_path=True),
            SourceOption("crop", "none, or the upper part of each picture, as in top1280x800", default="none"),
        ),
    ),
    SourceKind(
        name="nordland",
        module="seqdata.sources.nordland.reader",
        default_protocol="nordland-sta",
        layout="Nordland (summer/, summer.zip or summer_images_train/ with summer.csv)",
        options=(
            SourceOption(
                "clean_list", "file of clean frame names", is_path=True, default="clean_frames.txt in the dump"
            ),
        ),
    ),
    SourceKind(
        name="folder",
        module="seqdata.sources.folder.reader",
        default_protocol="own",
        layout="a folder of images with a CSV, a GPX or EXIF positions",
        options=(
            SourceOption(
                "positions",
                "a CSV, a .gpx track, or 'exif'",
                is_path=True,
                default="positions.csv, else the one .gpx, else EXIF",
            ),
            SourceOption("time_offset", "with a GPX track: seconds added to each image's time", default="0"),
            SourceOption(
                "pose_gap",
                "with a GPX track: longest gap between the two points around an image",
                default="10",
            ),
            SourceOption("roles", "which drives are the database and which the queries, as database:DRIVE,query:DRIVE"),
            SourceOption("cut", "test stretch of each drive: 0.6, 0.5-0.8, 1200m, 1200m-1800m"),
            SourceOption("buffer", "with cut: ground around it that is not trained on", default="50"),
            SourceOption(
                "zone_letters",
                "what the S of a UTM zone such as 10S means: the band (32° to 40° N), or south",
                values=("band", "hemisphere"),
            ),
        ),
    ),
)
SOURCES: Mapping[str, SourceKind] = {kind.name: kind for kind in _KINDS}


def source_names() -> list[str]:
    """List the kinds of raw dump that can be built, sorted.

    Example:
        >>> source_names()
        ['folder', 'msls', 'nordland', 'robotcar']
    """
    return sorted(SOURCES)


def source_kind(name: str) -> SourceKind:
    """Look up a kind of dump.

    Raises:
        UsageError: If there is no such kind.

    Example:
        >>> source_kind("nordland").default_protocol
        'nordland-sta'
    """
    if name not in SOURCES:
        raise UsageError(f"no source '{name}'; there are {', '.join(source_names())}")
    return SOURCES[name]


def default_protocol(name: str) -> str:
    """Name the protocol whose tables a build of this kind writes when the user names none.

    Raises:
        UsageError: If there is no such kind.
    """
    return source_kind(name).default_protocol


def path_options(name: str) -> frozenset[str]:
    """Name the options of a kind whose values are paths.

    Raises:
        UsageError: If there is no such kind.
    """
    return frozenset(option.name for option in source_kind(name).options if option.is_path)


def option_help(name: str) -> str:
    """Describe an option of every kind that has it, for a flag's help.

    Example:
        >>> option_help("cities")
        'msls: exact city names, comma-separated.'
    """
    # One flag may serve several kinds, as pose_gap does.
    return "; ".join(f"{kind}: {option.help}" for kind, option in _options(name)) + "."


def option_default(name: str) -> str:
    """Say what holds where an option is not given, for a flag's help; "" where that is nothing.

    Example:
        >>> option_default("camera"), option_default("pose_gap")
        ('stereo_left', '0.5; folder: 10')
    """
    defaults = [(kind, option.default) for kind, option in _options(name) if option.default]
    return "; ".join(text if place == 0 else f"{kind}: {text}" for place, (kind, text) in enumerate(defaults))


def option_values(name: str) -> tuple[str, ...]:
    """List the words that an option takes; none where they are not a fixed few.

    Example:
        >>> option_values("pose")
        ('rtk', 'ins', 'gps')
    """
    return next((option.values for _, option in _options(name) if option.values), ())


def _options(name: str) -> list[tuple[str, SourceOption]]:
    """The options of a name, each with its kind of dump."""
    return [(kind.name, option) for kind in _KINDS for option in kind.options if option.name == name]


def open_source(kind: str, raw: str | Path, options: Mapping[str, str]) -> "Source":
    """Open a raw dump.

    Args:
        kind: Kind of dump, one of `source_names()`.
        raw: Folder of the dump, as it was downloaded.
        options: Settings of this kind as text, by name (see `source_kind(kind).options`); all may be left out.

    Returns:
        The source: its listing of frames, and a way to read each image.

    Raises:
        ContractError: If the kind or an option is unknown, or an option has a bad value.
        InputError: If the folder is missing, or a file that an option names.

    Example:
        >>> import tempfile
        >>> source = open_source("folder", tempfile.mkdtemp(), {"positions": "exif"})
        >>> source.attribution
        "the user's own drives"
    """
    entry = source_kind(kind)
    # Unknown options are refused here, once for all kinds: a misspelled one must not be ignored.
    names = [option.name for option in entry.options]
    unknown = next((name for name in options if name not in names), None)
    if unknown is not None:
        raise UsageError(f"source {kind} has no option '{unknown}'; it has {', '.join(names)}")
    if not Path(raw).is_dir():
        problem = "a file; name the folder that it lies in" if Path(raw).exists() else "no such folder"
        raise InputError(f"{raw}: {problem}, as --raw FOLDER")
    source: Source = entry.load().open(Path(raw), options)
    return source

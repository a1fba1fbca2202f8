"""What a user says about a raw dump: its kind, where it lies, and the source's own options."""

from pathlib import Path
from typing import Annotated

import typer

from cli.config import Config
from cli.flags import parse_pairs
from cli.output import note
from seqdata.errors import ContractError
from seqdata.sources.detect import recognise

KindArgument = Annotated[
    str, typer.Argument(help="Kind of raw dump: msls, robotcar, nordland, folder, or auto.", metavar="KIND")
]
RawArgument = Annotated[Path | None, typer.Argument(help="The raw dump, as it was downloaded.", show_default=False)]
RawFlag = Annotated[Path | None, typer.Option("--raw", help="The same, as a flag.", show_default=False)]
CitiesFlag = Annotated[str | None, typer.Option(help="msls: exact city names, comma-separated.", show_default=False)]
CleanListFlag = Annotated[Path | None, typer.Option(help="nordland: file of clean frame names.", show_default=False)]
PositionsFlag = Annotated[
    str | None,
    typer.Option(
        help="folder: a CSV, a .gpx track, or 'exif' (default: positions.csv, else the one .gpx, else EXIF).",
        show_default=False,
    ),
]
RolesFlag = Annotated[str | None, typer.Option(help="folder: database:DRIVE,query:DRIVE.", show_default=False)]
CutFlag = Annotated[
    str | None,
    typer.Option(help="folder: test stretch of each drive: 0.6, 0.5-0.8, 1200m, 1200m-1800m.", show_default=False),
]
BufferFlag = Annotated[
    str | None,
    typer.Option(help="folder with --cut: metres around it that are not trained on (default 50).", show_default=False),
]
LapsFlag = Annotated[
    str | None, typer.Option(help="robotcar: laps, comma-separated (default all).", show_default=False)
]
CameraFlag = Annotated[
    str | None, typer.Option(help="robotcar: stereo_left (default), stereo_centre, mono_rear, …", show_default=False)
]
PoseFlag = Annotated[str | None, typer.Option(help="robotcar: rtk (default), ins or gps.", show_default=False)]
PoseModeFlag = Annotated[
    str | None,
    typer.Option(help="robotcar: interpolate (default) or nearest: how poses are looked up.", show_default=False),
]
PoseGapFlag = Annotated[
    str | None,
    typer.Option(
        help="robotcar, folder with a GPX track: longest gap between two poses around a frame, in seconds.",
        show_default=False,
    ),
]
CropFlag = Annotated[
    str | None, typer.Option(help="robotcar: none (default) or the upper part, as in top1280x800.", show_default=False)
]
UndistortFlag = Annotated[
    Path | None,
    typer.Option(help="robotcar: the SDK's models folder, or a lookup table, to undistort with.", show_default=False),
]
SourceOptionFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Any other option of the source, as name=value: time_offset, …",
        show_default=False,
    ),
]


def source_options(named: dict[str, Path | str | None], more: list[str] | None) -> dict[str, str]:
    """The options that were given, as text. Raises: ContractError for one that is no name=value or is given twice."""
    texts = [f"{name}={value}" for name, value in named.items() if value is not None]
    return parse_pairs([*texts, *(more or [])], "--option")


def find_raw(settings: Config, argument: Path | None, flag: Path | None) -> Path:
    """The dump that argument, flag or seqdata.toml names. Raises: ContractError when two are named, InputError."""
    if argument is not None and flag is not None:
        raise ContractError(f"two raw dumps are named, {argument} and --raw {flag}; name one")
    return settings.raw(argument or flag)


def find_kind(kind: str, raw: Path) -> str:
    """The kind, found from what lies at `raw` where it is `auto`. Raises: InputError when that is not clear."""
    if kind != "auto":
        return kind
    detected = recognise(raw)
    note(f"{raw}: a {detected} dump")
    return detected

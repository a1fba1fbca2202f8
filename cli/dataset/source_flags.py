"""What a user says about a raw dump: its kind, where it lies, and the source's own options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import text_pairs
from cli.output import note

if TYPE_CHECKING:
    from cli.config import Config

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
SourceOptionFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Any other option of the source, as name=value: pose_mode, pose_gap, crop, undistort, time_offset.",
        show_default=False,
    ),
]


def source_options(named: dict[str, Path | str | None], more: list[str] | None) -> dict[str, str]:
    """The options that were given, as text. Raises: ContractError for one that is no name=value or is given twice."""
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    return text_pairs([*given, *(more or [])], "--option")


def find_raw(settings: "Config", argument: Path | None, flag: Path | None) -> Path:
    """The dump that argument, flag or seqdata.toml names. Raises: ContractError when two are named, InputError."""
    from seqdata.errors import ContractError

    if argument is not None and flag is not None:
        raise ContractError(f"two raw dumps are named, {argument} and --raw {flag}; name one")
    return settings.raw(argument or flag)


def find_kind(kind: str, raw: Path) -> str:
    """The kind, found from what lies at `raw` where it is `auto`. Raises: InputError when that is not clear."""
    from seqdata.sources.detect import recognise

    if kind != "auto":
        return kind
    found = recognise(raw)
    note(f"{raw}: a {found} dump")
    return found

"""Arguments and flags of a raw dump: its kind, its folder, and the source's own options."""

from pathlib import Path
from typing import Annotated

import typer

from cli.config import Config
from cli.flags import parse_pairs
from cli.output import note
from seqdata.errors import UsageError
from seqdata.sources.detect import recognise
from seqdata.sources.registry import option_help, source_names

# Names and help of options come from the registry of sources: a new source or option changes no line here but its flag.
KindArgument = Annotated[
    str, typer.Argument(help=f"Kind of raw dump: {', '.join(source_names())}, or auto.", metavar="KIND")
]
RawArgument = Annotated[Path | None, typer.Argument(help="The raw dump, as it was downloaded.", show_default=False)]
RawFlag = Annotated[Path | None, typer.Option("--raw", help="The same, as a flag.", show_default=False)]
CitiesFlag = Annotated[str | None, typer.Option(help=option_help("cities"), show_default=False)]
CleanListFlag = Annotated[Path | None, typer.Option(help=option_help("clean_list"), show_default=False)]
PositionsFlag = Annotated[str | None, typer.Option(help=option_help("positions"), show_default=False)]
RolesFlag = Annotated[str | None, typer.Option(help=option_help("roles"), show_default=False)]
CutFlag = Annotated[str | None, typer.Option(help=option_help("cut"), show_default=False)]
BufferFlag = Annotated[str | None, typer.Option(help=option_help("buffer"), show_default=False)]
LapsFlag = Annotated[str | None, typer.Option(help=option_help("laps"), show_default=False)]
CameraFlag = Annotated[str | None, typer.Option(help=option_help("camera"), show_default=False)]
PoseFlag = Annotated[str | None, typer.Option(help=option_help("pose"), show_default=False)]
PoseModeFlag = Annotated[str | None, typer.Option(help=option_help("pose_mode"), show_default=False)]
PoseGapFlag = Annotated[str | None, typer.Option(help=option_help("pose_gap"), show_default=False)]
CropFlag = Annotated[str | None, typer.Option(help=option_help("crop"), show_default=False)]
UndistortFlag = Annotated[Path | None, typer.Option(help=option_help("undistort"), show_default=False)]
SourceOptionFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="Any other option of the source, as name=value: time_offset, …",
        show_default=False,
    ),
]


def source_options(named: dict[str, Path | str | None], more: list[str] | None) -> dict[str, str]:
    """Join flags and --option texts.

    Raises:
        UsageError: For one that is no name=value or is given twice.
    """
    texts = [f"{name}={value}" for name, value in named.items() if value is not None]
    return parse_pairs([*texts, *(more or [])], "--option")


def find_raw(settings: Config, argument: Path | None, flag: Path | None) -> Path:
    """Find the dump that argument, flag or seqdata.toml names.

    Raises:
        UsageError: When two are.
        InputError: When it is absent or cannot be read.
    """
    if argument is not None and flag is not None:
        raise UsageError(f"two raw dumps are named, {argument} and --raw {flag}; name one")
    return settings.raw(argument or flag)


def find_kind(kind: str, raw: Path) -> str:
    """Resolve the kind `auto` by the files at `raw`.

    Raises:
        InputError: When they are of no kind, or of several.
    """
    if kind != "auto":
        return kind
    detected = recognise(raw)
    note(f"{raw}: a {detected} dump")
    return detected

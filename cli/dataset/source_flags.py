"""Arguments and flags of a raw dump: its kind, its folder, and the source's own options."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import Config
from cli.flags import parse_pairs
from cli.output import note
from seqdata.errors import UsageError
from seqdata.sources.detect import recognise
from seqdata.sources.registry import option_default, option_help, option_values, source_names


def _kinds() -> list[str]:
    return [*source_names(), "auto"]


def _flag(name: str) -> Any:
    """A flag of the source's option of a name: help, default and values come from the registry of sources."""
    values = option_values(name)
    return typer.Option(
        help=option_help(name),
        metavar=f"[{'|'.join(values)}]" if values else None,
        show_default=option_default(name) or False,
    )


KindArgument = Annotated[
    str, typer.Argument(help=f"Kind of raw dump: {', '.join(_kinds())}.", metavar="KIND", autocompletion=_kinds)
]
RawArgument = Annotated[
    Path | None, typer.Argument(help="The raw dump, as it was downloaded.", show_default="raw of seqdata.toml")
]
RawFlag = Annotated[Path | None, typer.Option("--raw", help="The same, as a flag.", show_default=False)]
CitiesFlag = Annotated[str | None, _flag("cities")]
CleanListFlag = Annotated[Path | None, _flag("clean_list")]
PositionsFlag = Annotated[str | None, _flag("positions")]
RolesFlag = Annotated[str | None, _flag("roles")]
CutFlag = Annotated[str | None, _flag("cut")]
BufferFlag = Annotated[str | None, _flag("buffer")]
LapsFlag = Annotated[str | None, _flag("laps")]
CameraFlag = Annotated[str | None, _flag("camera")]
PoseFlag = Annotated[str | None, _flag("pose")]
PoseModeFlag = Annotated[str | None, _flag("pose_mode")]
PoseGapFlag = Annotated[str | None, _flag("pose_gap")]
CropFlag = Annotated[str | None, _flag("crop")]
UndistortFlag = Annotated[Path | None, _flag("undistort")]
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

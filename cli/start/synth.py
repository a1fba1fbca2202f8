"""`seqdata synth`: raw dumps to test with, in their real layouts."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.flags import refuse_idle
from cli.output import JsonFlag, emit, next_step, progress_bar
from seqdata.errors import UsageError
from seqdata.parallel import Progress
from seqdata.synth import (
    DEMO_CITIES,
    CitySettings,
    NordlandSettings,
    RobotcarSettings,
    Track,
    city_along,
    read_track,
    write_msls,
    write_nordland,
    write_robotcar,
)

LAYOUTS = {"nordland": ("folder", "zip", "sections"), "robotcar": ("folder", "tar"), "msls": ("folder",)}


def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the dump.")],
    kind: Annotated[str, typer.Option(help="Whose layout.", metavar="[msls|robotcar|nordland]")] = "msls",
    seed: Annotated[int, typer.Option(help="Seed of everything random; another seed makes another place.")] = 0,
    track: Annotated[
        Path | None, typer.Option(help="GNSS track to drive along: .gpx or .csv.", show_default=False)
    ] = None,
    track_zone: Annotated[
        str | None,
        typer.Option(help="UTM zone of a track in eastings and northings.", show_default=False),
    ] = None,
    seconds: Annotated[
        int | None, typer.Option(help="robotcar, nordland: length of the drive.", min=1, show_default=False)
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width of a frame.", min=16, show_default=False)] = None,
    height: Annotated[int | None, typer.Option(help="Height of a frame.", min=16, show_default=False)] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="nordland: folder, zip or sections; robotcar: folder or tar.",
            metavar="[folder|zip|sections|tar]",
            show_default="folder",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a small synthetic dump in a real dataset's layout.

    The layout is that of MSLS, Oxford RobotCar or Nordland.
    """
    if kind not in LAYOUTS:
        raise UsageError(f"--kind {kind}: expected {', '.join(sorted(LAYOUTS))}")
    refuse_idle("--track", track is not None, "track_zone")
    if layout is not None and layout not in LAYOUTS[kind]:
        raise UsageError(f"--layout {layout}: {kind} has {', '.join(LAYOUTS[kind])}")
    flags = {"seconds": seconds, "width": width, "height": height, "layout": layout}
    sizes = {name: value for name, value in flags.items() if value is not None}
    drive = None if track is None else read_track(track, zone=track_zone)
    with progress_bar("frame") as bar:
        result = _write(kind, out, sizes, drive, seed, bar.stage("render"))
    emit(result, f"{out}: {result['frames']} frames of {kind}, protocol {result['protocol']}", as_json=as_json)
    next_step(f"seqdata build {kind} {shlex.quote(str(out))} --protocol {shlex.quote(result['protocol'])}")


def _write(
    kind: str,
    out: Path,
    sizes: dict[str, Any],
    track: Track | None,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the dump and return its counts as JSON values. Raises: UsageError for a size that does not fit."""
    try:
        if kind == "nordland":
            settings = NordlandSettings(**sizes)
            written: Any = write_nordland(out, settings=settings, track=track, seed=seed, progress=progress)
        elif kind == "robotcar":
            lap = RobotcarSettings(**sizes)
            written = write_robotcar(out, settings=lap, track=track, seed=seed, progress=progress)
        else:
            if "seconds" in sizes:
                raise UsageError("--seconds: a synthetic city has streets, not one drive; leave it out")
            # msls has one layout; naming it is allowed, and the city's settings have no such field.
            sizes.pop("layout", None)
            cities = DEMO_CITIES if track is None else (city_along("track", "test", track),)
            city = CitySettings(**sizes, cities=cities)
            written = write_msls(out, settings=city, seed=seed, progress=progress)
    except ValueError as error:
        raise UsageError(f"synth {kind}: {error}") from error
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(written).items()}

"""`seqdata experiment`: the papers' tables and figures over a dataset, cell by cell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.flags import DeviceFlag
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar

if TYPE_CHECKING:
    from cli.config import Config
    from train.experiments.run import Request, Result

SCALES = ("full", "smoke")


def experiment(
    name: Annotated[
        str | None, typer.Argument(help="Experiment; without one they are listed.", show_default=False)
    ] = None,
    datasets: Annotated[
        list[Path] | None, typer.Argument(help="Dataset folders; default: the newest.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs, cells and tables; default: experiments.", show_default=False)
    ] = None,
    scale: Annotated[str, typer.Option(help="full: the papers' models; smoke: small ones, few steps.")] = "full",
    only: Annotated[str | None, typer.Option(help="Rows to run: name,name,…", show_default=False)] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol name or .toml; default: the dataset's.", show_default=False)
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="default, pretrained, random, or a folder with a file for each encoder (resnet18.pth, …)."),
    ] = "default",
    device: DeviceFlag = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Run one of the papers' experiments and print its table.

    Finished cells are stored, so that the same command continues after an interruption.
    """
    if name is None:
        _list(as_json=as_json)
        return
    from cli.config import load
    from seqdata.errors import ContractError
    from train.experiments.run import Request

    if scale not in SCALES:
        raise ContractError(f"--scale {scale}: expected {' or '.join(SCALES)}")
    place = load(config)
    request = Request(
        name=name,
        out=out or place.out / "experiments",
        datasets=_datasets(place, name, datasets),
        scale="full" if scale == "full" else "smoke",
        only=tuple(row.strip() for row in only.split(",")) if only else (),
        protocol=place.protocol(protocol),
        weights=weights,
        device=device,
        seed=seed,
    )
    _finish(request, _run(request), as_json=as_json)


def _datasets(place: "Config", name: str, named: list[Path] | None) -> list[Any]:
    """The datasets that are named, else the newest; none for an experiment that reads no frame."""
    import seqdata
    from train.experiments import grid

    if grid.load(name).kind != "recall":
        return []
    folders = named or [place.newest("datasets", "manifest.json", None, "build")]
    return [seqdata.open(folder) for folder in folders]


def _run(request: "Request") -> "Result":
    """Run with a bar within each cell and one line a finished cell, both on stderr."""
    from train.experiments.run import run

    with progress_bar("step") as bar:
        return run(request, bar.note, bar.to)


def _finish(request: "Request", result: "Result", *, as_json: bool) -> None:
    """Write the table in all its forms and print it."""
    import shutil

    from train.experiments.table.formats import to_text
    from train.experiments.table.results import to_json, write
    from train.experiments.table.table import make_table

    table = make_table(result)
    written = write(result, table)
    cells = [cell for row in result.cells.values() for cell in row]
    empty = sum(cell.reason is not None for cell in cells)
    note(f"{len(cells)} cells, {result.computed} measured now, {empty} empty; {written[0].with_suffix('.*')}")
    width = shutil.get_terminal_size((160, 40)).columns
    emit({**to_json(result), "files": [str(path) for path in written]}, to_text(table, width), as_json=as_json)


def _list(*, as_json: bool) -> None:
    from train.experiments import grid

    found = {name: grid.load(name) for name in grid.names()}
    result = {name: {"title": each.title, "paper": each.paper, "rows": list(each.rows)} for name, each in found.items()}
    lines = [f"{name:14} {each.paper:22} {each.title} ({len(each.rows)} rows)" for name, each in found.items()]
    emit(result, "\n".join(lines), as_json=as_json)

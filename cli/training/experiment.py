"""`seqdata experiment`: the tables and figures of the papers, measured on a dataset cell by cell."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import Config, load, open_dataset
from cli.flags import DeviceFlag, ProtocolFlag, parse_choice, parse_list, refuse_idle
from cli.output import ConfigFlag, JsonFlag, columns, emit, entry, note, progress_bar
from indexer.text import plural
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_folder
from seqdata.errors import UsageError

if TYPE_CHECKING:
    from train.experiments.measure.scale import Scale
    from train.experiments.run import Result

SCALES: "tuple[Scale, ...]" = ("full", "smoke")


def experiment(
    name: Annotated[
        str | None, typer.Argument(help="Experiment; all are listed when none is named.", show_default=False)
    ] = None,
    datasets: Annotated[list[Path] | None, typer.Argument(help="Dataset folders.", show_default="the newest")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for runs, cells and tables.", show_default="experiments")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="The papers' models, or small ones and few steps.", metavar="[full|smoke]")
    ] = "full",
    only: Annotated[str | None, typer.Option(help="Rows to run: name,name,…", show_default=False)] = None,
    protocol: ProtocolFlag = None,
    weights: Annotated[
        str,
        typer.Option(help="default, pretrained, random, or a folder with a file for each encoder (resnet18.pth, …)."),
    ] = "default",
    device: DeviceFlag = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    dataset: Annotated[
        list[Path] | None, typer.Option(help="Another dataset folder; may repeat.", show_default=False)
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder of runs, DIR/ROW, that cells take in place of training.", show_default=False),
    ] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Also write each cell beside the paper's value: a page and a CSV.")
    ] = False,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Run one of the papers' experiments and print its table.

    Finished cells are stored, so that the same command continues after an interruption.
    """
    if name is None:
        options = ("out", "scale", "only", "protocol", "weights", "device", "seed", "dataset", "runs", "ledger")
        refuse_idle("the name of an experiment", False, *options)
        _list(as_json=as_json)
        return
    from train.experiments.run import Request, run  # heavy

    work = load(config)
    request = Request(
        name=name,
        out=out or work.out / "experiments",
        # Flags are checked before a dataset is looked for.
        scale=parse_choice(scale, "--scale", SCALES),
        runs=_runs(name, runs),
        datasets=_datasets(work, name, [*(datasets or ()), *(dataset or ())]),
        only=parse_list(only),
        protocol=work.protocol(protocol),
        weights=weights,
        device=device,
        seed=seed,
    )
    with progress_bar("step") as bar:
        result = run(request, bar.note, bar.update)
    _write_tables(result, ledger=ledger, as_json=as_json)


def _runs(name: str, folder: Path | None) -> Path | None:
    """The folder of runs. Raises: UsageError where the experiment takes none, or there is no such folder."""
    from train.experiments import grid  # heavy

    if folder is not None and grid.load(name).kind != "recall":
        raise UsageError(f"--runs: experiment {name} measures no recalls of runs; leave it out")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--runs {folder}: no such folder; seqdata import KIND FILE --out {folder / 'ROW'} makes one")
    return folder


def _datasets(config: Config, name: str, folders: list[Path]) -> list[Dataset]:
    """The named datasets, else the newest; none for an experiment that reads no frame."""
    from train.experiments import grid  # heavy

    # Tables of time and memory run on random input.
    if grid.load(name).kind not in ("recall", "counts"):
        return []
    return [open_folder(folder) for folder in folders] if folders else [open_dataset(config, None)]


def _write_tables(result: "Result", *, ledger: bool, as_json: bool) -> None:
    """Write the table in all its forms, and the ledger if it is due, and print the table."""
    from train.experiments.ledger.files import write_ledger  # heavy
    from train.experiments.table.formats import to_text  # heavy
    from train.experiments.table.results import to_json, write  # heavy
    from train.experiments.table.table import make_table  # heavy

    table = make_table(result)
    files = [*write(result, table), *(write_ledger(result) if ledger else ())]
    cells = [cell for row in result.cells.values() for cell in row]
    empty = sum(cell.reason is not None for cell in cells)
    note(f"{len(cells)} cells, {result.computed} measured now, {empty} empty; {files[0].with_suffix('.*')}")
    # 160 columns where output is no terminal: tables in logs keep their rows whole.
    width = columns(sys.stdout) or 160
    emit({**to_json(result), "files": [str(path) for path in files]}, to_text(table, width), as_json=as_json)


def _list(*, as_json: bool) -> None:
    """Print the experiments with their papers and titles."""
    from train.experiments import grid  # heavy

    grids = {name: grid.load(name) for name in grid.names()}
    result = {name: {"title": one.title, "paper": one.paper, "rows": list(one.rows)} for name, one in grids.items()}
    lines = [entry(name, f"{one.title} ({plural(len(one.rows), 'row')}): {one.paper}") for name, one in grids.items()]
    emit(result, "\n".join(lines), as_json=as_json)

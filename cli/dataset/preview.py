"""`seqdata preview`: one offline page about a dataset."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.config import load, open_dataset
from cli.flags import DatasetArgument
from cli.output import ConfigFlag, JsonFlag, emit
from indexer.report.preview.page import write_preview
from seqdata.errors import ContractError, InputError


def preview(
    dataset: DatasetArgument = None,
    raw: Annotated[
        Path | None,
        typer.Option(help="Raw dump, from which pictures that were left out are shown.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file to write.", show_default=False)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Write a self-contained HTML page about a dataset.

    It shows pictures by split and role, maps, histograms, counts beside those expected, and what was left out.

    Ends with exit code 4 when a part of the dataset cannot be read; the page then shows the rest and says so.
    """
    work = load(config)
    opened = open_dataset(work, dataset)
    if raw is not None and not raw.is_dir():
        raise InputError(f"{raw}: no such folder; --raw takes the folder of the raw dump")
    path = out or work.out / "reports" / f"{Path(opened.location).name}-{opened.id[:12]}.html"
    faults = write_preview(path, opened, raw=raw, command=f"seqdata preview {shlex.quote(opened.location)}")
    emit({"path": str(path), "faults": faults}, str(path), as_json=as_json)
    if faults:
        raise ContractError(f"{opened.location}: {len(faults)} parts are not on the page: {'; '.join(faults[:3])}")

"""`seqdata export`: windows of a dataset in the forms that other code bases read."""

from pathlib import Path
from typing import Annotated

import typer

from cli.config import load, open_dataset
from cli.flags import DatasetArgument, parse_choice, refuse_idle
from cli.output import ConfigFlag, JsonFlag, emit, progress_bar
from seqdata.dataset.export.export import export as run_export
from seqdata.dataset.export.export import windows_of
from seqdata.errors import UsageError


def export(
    dataset: DatasetArgument = None,
    format: Annotated[
        str,
        typer.Option(
            help="Tars with one sample a window, or image folders with @-names.", metavar="[sequences|folders]"
        ),
    ] = "sequences",
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol that cuts the windows.", show_default="the dataset's own, 'none' for none"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="One split of the protocol.", show_default="all")] = None,
    role: Annotated[str | None, typer.Option(help="One role.", metavar="[database|query]", show_default="both")] = None,
    length: Annotated[int | None, typer.Option(help="Frames a window, without a protocol.", min=1)] = None,
    stride: Annotated[int | None, typer.Option(help="Frames from window to window, without a protocol.", min=1)] = None,
    shard_megabytes: Annotated[int, typer.Option(help="Images a tar.", min=1)] = 256,
    out: Annotated[Path | None, typer.Option(help="New folder to write.", show_default=False)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Write windows as tars or image folders for other programs.

    Tars hold one sample a window; folders are those that the reference codes read.

    Image bytes are the stored ones. An interrupted export, started again, continues. --length or --stride choose
    windows without a protocol.
    """
    refuse_idle("--format sequences", format == "sequences", "shard_megabytes")
    if role is not None:
        parse_choice(role, "--role", ("database", "query"))
    own_windows = length is not None or stride is not None
    if own_windows and protocol not in (None, "none"):
        raise UsageError(f"--length and --stride are set by the protocol {protocol}; leave them out, or the protocol")
    settings = load(config)
    opened = open_dataset(settings, dataset)
    named = settings.protocol(protocol)
    # The dataset's own protocol, so that an export without flags holds the windows that training and evaluation use.
    source_protocol = None if own_windows or named == "none" else named or opened.manifest.protocol
    table = windows_of(opened, source_protocol, split, role, length or 5, stride or 1)
    target = out or settings.out / "exports" / format
    with progress_bar("window") as bar:
        report = run_export(
            opened,
            table,
            target,
            format,  # type: ignore[arg-type]  # checked there
            shard_bytes=shard_megabytes << 20,
            progress=bar.stage("export"),
        )
    parts = ", ".join(
        f"{part['windows']} {part['split'] or 'all'} {part['role'] or ''}".strip() for part in report["parts"]
    )
    emit({"path": str(target), **report}, f"{target}: {report['windows']} windows ({parts})", as_json=as_json)

"""`seqdata build`: a raw dump to a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar, size

if TYPE_CHECKING:
    from seqdata.manifest import BuildSettings
    from seqdata.protocols import Protocol

KindArgument = Annotated[str, typer.Argument(help="Kind of raw dump: msls, nordland or folder.", metavar="KIND")]


def build(
    kind: KindArgument,
    raw: Annotated[Path | None, typer.Option(help="The raw dump's folder.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Dataset folder to write.", show_default=False)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Protocol whose windows and positives are stored; 'none' for no tables.", show_default=False),
    ] = None,
    cities: Annotated[str | None, typer.Option(help="msls: exact city names, comma-separated.")] = None,
    clean_list: Annotated[Path | None, typer.Option(help="nordland: file of clean frame names.")] = None,
    positions: Annotated[Path | None, typer.Option(help="folder: CSV of positions (default positions.csv).")] = None,
    keep_png: Annotated[bool | None, typer.Option("--keep-png", help="Store PNG as it is.", show_default=False)] = None,
    check: Annotated[str | None, typer.Option(help="header (default) or decode: decode every frame.")] = None,
    shard_megabytes: Annotated[int | None, typer.Option(help="Size of a shard in MB (default 256).", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (default: one a core).", min=1)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Build a dataset from a raw dump; killed and started again, it goes on and ends in the same bytes.

    Exit code 6 means: built, but some inputs were left out (see seqdata quarantine).
    """
    import os

    from cli.config import load
    from seqdata.build import BuildRequest
    from seqdata.build import build as run_build

    settings = load(config)
    options = {"cities": cities, "clean_list": clean_list, "positions": positions}
    request = BuildRequest(
        kind=kind,
        raw=settings.raw(raw),
        out=out or settings.out / "datasets" / kind,
        options={name: str(value) for name, value in options.items() if value is not None},
        settings=_build_settings(
            keep_png=settings.pick(keep_png, "build", "keep_png", False),
            check=settings.pick(check, "build", "check", "header"),
            shard_bytes=settings.pick(shard_megabytes, "build", "shard_megabytes", 256) << 20,
        ),
        protocol=_protocol(settings.protocol(protocol), kind),
        workers=settings.pick(workers, "build", "workers", os.cpu_count() or 1),
    )
    with progress_bar("frame") as bar:
        run_build(request, lambda done, total: bar.to("build", done, total))
    _finish(request.out, as_json=as_json)


def _build_settings(**values: object) -> "BuildSettings":
    """Checked settings. Raises: ContractError for a value that does not fit."""
    from pydantic import ValidationError

    from seqdata.errors import ContractError
    from seqdata.manifest import BuildSettings
    from seqdata.protocols import describe_first

    try:
        return BuildSettings.model_validate(values)
    except ValidationError as error:
        raise ContractError(f"build settings: {describe_first(error)}") from error


def _protocol(name: str | None, kind: str) -> "Protocol | None":
    """The named protocol, the kind's own when none is named, None for 'none'."""
    from seqdata import protocols
    from seqdata.sources.base import default_protocol

    if name == "none":
        return None
    return protocols.load(name or default_protocol(kind))


def _finish(out: Path, *, as_json: bool) -> None:
    """Print what was built; leave with exit code 6 when something is in quarantine."""
    import seqdata
    from seqdata.errors import QuarantineNotice
    from seqdata.info import describe

    dataset = seqdata.open(out)
    described = describe(dataset)
    text = (
        f"{out}: {described['frames']} frames of {described['trajectories']} trajectories in {described['shards']} "
        f"shards, {size(described['shard_bytes'] + described['table_bytes'])}, id {dataset.id[:12]}"
    )
    emit(described, text, as_json=as_json)
    if described["protocol"]:
        _note_splits(described["protocol"])
    left_out = described["quarantined"]
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise QuarantineNotice(f"{sum(left_out.values())} inputs left out ({reasons}); see: seqdata quarantine {out}")


def _note_splits(protocol: dict[str, Any]) -> None:
    """Windows of each split, and where they differ from what the protocol's papers counted."""
    if not any(counts["query"] and counts["database"] for counts in protocol["splits"].values()):
        note(
            f"  no split of {protocol['name']} has both database and query windows: give frames a role, or name "
            "another --protocol"
        )
    for split, counts in protocol["splits"].items():
        note(
            f"  {protocol['name']}@{protocol['hash']} {split}: {counts['database']} database and {counts['query']} "
            f"query windows, {counts['without_positive']} queries without a positive"
        )
        for name in counts["differs_from_expected"]:
            note(f"    {name}: {counts[name]}, but the protocol's published count is {counts['expected'][name]}")

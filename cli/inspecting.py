"""`seqdata info`, `verify`, `quarantine` and `protocols`: look at what is there."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar, size

DatasetArgument = Annotated[
    Path | None, typer.Argument(help="Dataset folder; default: the newest.", show_default=False)
]


def info(dataset: DatasetArgument = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """Counts, spacing, sizes and protocol splits of a dataset."""
    import seqdata
    from cli.config import load
    from seqdata.info import describe

    described = describe(seqdata.open(load(config).newest("datasets", "manifest.json", dataset, "build")))
    emit(described, _info_text(described), as_json=as_json)


def _info_text(described: dict[str, Any]) -> str:
    lines = [
        f"{described['path']}: {described['source']}, id {described['id'][:12]}, schema {described['schema_version']}",
        f"{described['frames']} frames, {described['trajectories']} trajectories, {described['shards']} shards",
        f"images {size(described['image_bytes'])}, shards {size(described['shard_bytes'])}, "
        f"tables {size(described['table_bytes'])}",
        f"resampling flag: {described['resampling']}; credit: {described['attribution']}",
        "",
        f"{'city':<16}{'role':<10}{'frames':>9}{'drives':>8}{'km':>10}{'step m':>9}{'kept':>7}{'gaps':>7}{'jumps':>7}",
    ]
    lines += [
        f"{group['city']:<16}{group['role'] or '-':<10}{group['frames']:>9}{group['trajectories']:>8}"
        f"{group['kilometres']:>10.2f}{group['median_step_m'] or 0:>9.2f}{group['resampled_share']:>7.0%}"
        f"{group['gaps']:>7}{group['jumps']:>7}"
        for group in described["groups"]
    ]
    protocol = described["protocol"]
    if protocol:
        lines += ["", f"protocol {protocol['name']}@{protocol['hash']}, windows of {protocol['length']}:"]
        lines += [
            f"  {name:<8}{counts['database']:>9} database {counts['query']:>9} query "
            f"{counts['without_positive']:>7} without a positive"
            for name, counts in protocol["splits"].items()
        ]
    left_out = described["quarantined"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return "\n".join([*lines, "", f"in quarantine: {reasons or 'nothing'}"])


def verify(dataset: DatasetArgument = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """Check every byte of a dataset against its hashes; exit code 4 when something has changed."""
    from cli.config import load
    from seqdata.errors import ContractError
    from seqdata.verify import verify as run_verify

    folder = load(config).newest("datasets", "manifest.json", dataset, "build")
    hashed = 0
    with progress_bar("B") as bar:

        def count(done: int) -> None:
            nonlocal hashed
            hashed += done
            bar.to("verify", hashed, hashed)

        faults = [fault.as_dict() for fault in run_verify(folder, count)]
    text = "\n".join(
        f"{fault['file']}: {fault['fault']}" + (f" ({fault['key']}, from {fault['source']})" if fault["key"] else "")
        for fault in faults
    )
    emit(
        {"path": str(folder), "bytes": hashed, "faults": faults},
        text or f"{folder}: {size(hashed)} as they were",
        as_json=as_json,
    )
    if faults:
        raise ContractError(f"{folder}: {len(faults)} damaged; build the dataset again from the raw dump")


def quarantine(dataset: DatasetArgument = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """Every input that a build left out, with its reason."""
    import seqdata
    from cli.config import load

    opened = seqdata.open(load(config).newest("datasets", "manifest.json", dataset, "build"))
    rows = opened.quarantine.to_dicts()
    lines = [f"{row['reason']:<16}{row['source']}  {row['message']}" for row in rows]
    emit({"path": str(opened.path), "rows": rows}, "\n".join(lines) or "nothing was left out", as_json=as_json)


def protocols(
    name: Annotated[str | None, typer.Argument(help="A protocol to show whole.", show_default=False)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """List the shipped protocols with their hashes, or show one."""
    from cli.config import load
    from seqdata import protocols as registry

    load(config)
    if name is not None:
        shown = registry.load(name)
        fields = {"hash": shown.hash, **shown.model_dump(mode="json", exclude_none=True)}
        emit(fields, "\n".join(f"{key} = {value}" for key, value in fields.items()), as_json=as_json)
        return
    loaded = [registry.load(each) for each in registry.names()]
    lines = [f"{each.label:<40}{each.title}" for each in loaded]
    emit({each.name: {"hash": each.hash, "title": each.title} for each in loaded}, "\n".join(lines), as_json=as_json)
    note("seqdata protocols NAME shows one; a .toml file of your own is named by its path")

"""`seqdata info`, `verify` and `quarantine`: the content of a dataset, its damage, and what its build left out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config import load, open_dataset
from cli.flags import DatasetArgument, parse_pairs, refuse_idle
from cli.output import ConfigFlag, JsonFlag, emit, note, progress_bar, size
from indexer.text import elide, plural
from seqdata.dataset.info import describe
from seqdata.dataset.repair import repair as run_repair
from seqdata.dataset.verify import verify as run_verify
from seqdata.errors import ContractError


def info(dataset: DatasetArgument = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """Print counts, spacing, sizes and protocol splits of a dataset."""
    described = describe(open_dataset(load(config), dataset))
    emit(described, _info_text(described), as_json=as_json)
    if described["faults"]:
        raise ContractError(
            f"{described['path']}: {len(described['faults'])} parts cannot be read, see above; run seqdata verify "
            f"{described['path']}"
        )


def _info_text(described: dict[str, Any]) -> str:
    lines = [
        f"{described['path']}: {described['source']}, id {described['id'][:12]}, schema {described['schema_version']}",
        f"{plural(described['frames'], 'frame')}, {plural(described['trajectories'], 'trajectory', 'trajectories')}, "
        f"{plural(described['shards'], 'shard')}",
        f"images {size(described['image_bytes'])}, shards {size(described['shard_bytes'])}, "
        f"tables {size(described['table_bytes'])}; credit: {described['attribution']}",
        *_resampling_lines(described["resampling"]),
        *([] if described["groups"] is None else ["", *_group_lines(described["groups"])]),
        "",
        *(_table_text(table) for table in described["tables"]),
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
    return "\n".join([*lines, "", f"in quarantine: {reasons or 'nothing'}", *described["faults"]])


def _resampling_lines(resampling: dict[str, Any] | None) -> list[str]:
    if resampling is None:
        return []
    note = f"; {resampling['note']}" if resampling["note"] else ""
    return [
        f"resampling {resampling['rule']} {resampling['metres']:g} m keeps {resampling['kept']} of "
        f"{resampling['frames']} frames{note}"
    ]


def _group_lines(groups: list[dict[str, Any]]) -> list[str]:
    """Counts of each city and role, then how the camera moved there."""
    lines = [f"{'city':<16}{'role':<10}{'frames':>9}{'drives':>8}{'km':>10}{'kept':>9}{'gaps':>7}{'jumps':>7}"]
    lines += [
        f"{group['city']:<16}{group['role'] or '-':<10}{group['frames']:>9}{group['trajectories']:>8}"
        f"{group['kilometres']:>10.2f}{group['resampled']:>9}{group['gaps']:>7}{group['jumps']:>7}"
        for group in groups
    ]
    lines += ["", f"{'city':<16}{'role':<10}{'step m (p5 p50 p95 max)':<28}speed m/s (p5 p50 p95 max)"]
    for group in groups:
        name = f"{group['city']:<16}{group['role'] or '-':<10}"
        lines.append(f"{name}{_spread(group['spacing_m']):<28}{_spread(group['speed_m_s'])}")
        halts = group["standing"]
        if halts["frames"]:
            seconds = "" if halts["seconds"] is None else f", {halts['seconds']:.0f} s"
            lines.append(
                f"{'':<26}standing still: {plural(halts['frames'], 'frame')} ({halts['share'] or 0:.0%}) in "
                f"{plural(halts['stretches'], 'stretch', 'stretches')}{seconds}"
            )
    return lines


def _spread(quantiles: dict[str, float] | None) -> str:
    return " ".join(f"{value:.4g}" for value in quantiles.values()) if quantiles else "-"


def _table_text(table: dict[str, Any]) -> str:
    return (
        f"{elide(table['name'], 38):<38}{table['rows']:>11,} rows {size(table['bytes']):>8}  {table['contract']} "
        f"{table['contract_version'] or '-'}"
    )


def verify(
    dataset: DatasetArgument = None,
    repair: Annotated[
        Path | None,
        typer.Option(
            help="Make damaged shards and tables again from this raw dump.", metavar="RAW", show_default=False
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE: an option of the source that is a path, for --repair.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that hash.", min=1)] = 1,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Check every byte of a dataset against its hashes.

    Ends with exit code 4 when something has changed and was not repaired.
    """
    refuse_idle("--repair", repair is not None, "option")
    options = parse_pairs(option, "--option")
    folder = load(config).newest("datasets", "manifest.json", dataset, "build")
    hashed = 0
    with progress_bar("B") as bar:

        def add(block_bytes: int) -> None:
            nonlocal hashed
            hashed += block_bytes
            # The total is not known before the manifest is read; the bar shows bytes and their rate alone.
            bar.update("verify", hashed, hashed)

        faults = list(run_verify(folder, add, workers))
    # Before the repair begins: it takes long, and what it is for stands on the screen meanwhile.
    for fault in faults if repair is not None else []:
        note(_fault_text(fault.as_dict()))
    repaired = run_repair(folder, repair, options, faults) if repair is not None else []
    left = [fault.as_dict() for fault in faults if fault.file not in repaired]
    result = {
        "path": str(folder),
        "bytes": hashed,
        "found": [fault.as_dict() for fault in faults],
        "repaired": repaired,
        "faults": left,
    }
    lines = [f"{name}: repaired" for name in repaired] + [_fault_text(fault) for fault in left]
    emit(result, "\n".join(lines) or f"{folder}: {size(hashed)} as they were", as_json=as_json)
    if left:
        advice = "see above" if repair is not None else "repair it with --repair RAW, the folder of the raw dump"
        raise ContractError(f"{folder}: {len(left)} damaged; {advice}")


def _fault_text(fault: dict[str, Any]) -> str:
    return f"{fault['file']}: {fault['fault']}" + (f" ({fault['key']}, from {fault['source']})" if fault["key"] else "")


def quarantine(dataset: DatasetArgument = None, as_json: JsonFlag = False, config: ConfigFlag = None) -> None:
    """List every input that a build left out, with its reason."""
    opened = open_dataset(load(config), dataset)
    rows = opened.quarantine.to_dicts()
    lines = [f"{row['reason']:<18}{row['source']}  {row['message']}" for row in rows]
    emit({"path": opened.location, "rows": rows}, "\n".join(lines) or "nothing was left out", as_json=as_json)

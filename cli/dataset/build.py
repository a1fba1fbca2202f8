"""`seqdata build`: make a dataset from a raw dump."""

import os
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import seqdata
from cli.config import load
from cli.dataset.build_flags import (
    CheckFlag,
    DropFlag,
    DryRunFlag,
    EngineFlag,
    KeepPngFlag,
    MaxRadiusFlag,
    OutFlag,
    PlanFlag,
    ProtocolFlag,
    QualityFlag,
    ResampleFlag,
    RuleFlag,
    ShardMegabytesFlag,
    ShardRangeFlag,
    ShortSideFlag,
    WorkersFlag,
)
from cli.dataset.source_flags import (
    BufferFlag,
    CameraFlag,
    CitiesFlag,
    CleanListFlag,
    CropFlag,
    CutFlag,
    KindArgument,
    LapsFlag,
    PoseFlag,
    PoseGapFlag,
    PoseModeFlag,
    PositionsFlag,
    RawArgument,
    RawFlag,
    RolesFlag,
    SourceOptionFlag,
    UndistortFlag,
    find_kind,
    find_raw,
    source_options,
)
from cli.flags import parse_choice
from cli.output import ConfigFlag, JsonFlag, console, emit, next_step, note, progress_bar, size
from indexer.text import plural
from seqdata import protocols
from seqdata.build.advice import Counts, advise, advised_out, counts_text, has_both_roles, lacking, split_counts
from seqdata.build.builder import ShardRange, build_range, write_plan
from seqdata.build.builder import build as run_build
from seqdata.build.dry_run import plan_build
from seqdata.build.request import BuildRequest, choose_protocol, follow_protocol
from seqdata.contracts.manifest import BuildSettings
from seqdata.contracts.protocol import Protocol
from seqdata.dataset.info import describe
from seqdata.errors import EmptyCutError, QuarantineNotice, UsageError
from seqdata.parallel import ENGINES
from seqdata.sources.registry import OWN_DRIVES, default_protocol


def build(
    kind: KindArgument,
    raw: RawArgument = None,
    raw_flag: RawFlag = None,
    out: OutFlag = None,
    protocol: ProtocolFlag = None,
    cities: CitiesFlag = None,
    laps: LapsFlag = None,
    camera: CameraFlag = None,
    pose: PoseFlag = None,
    pose_mode: PoseModeFlag = None,
    pose_gap: PoseGapFlag = None,
    crop: CropFlag = None,
    undistort: UndistortFlag = None,
    clean_list: CleanListFlag = None,
    positions: PositionsFlag = None,
    roles: RolesFlag = None,
    cut: CutFlag = None,
    buffer: BufferFlag = None,
    option: SourceOptionFlag = None,
    keep_png: KeepPngFlag = None,
    check: CheckFlag = None,
    short_side: ShortSideFlag = None,
    quality: QualityFlag = None,
    resample: ResampleFlag = None,
    rule: RuleFlag = None,
    drop: DropFlag = False,
    max_radius: MaxRadiusFlag = None,
    shard_megabytes: ShardMegabytesFlag = None,
    workers: WorkersFlag = None,
    engine: EngineFlag = "pool",
    plan: PlanFlag = False,
    shard_range: ShardRangeFlag = None,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Build a dataset from a raw dump.

    An interrupted build, started again, continues and ends in the same bytes.

    Exit code 6 means: built, but some inputs were left out (see seqdata quarantine).
    """
    if plan and (dry_run or shard_range is not None):
        raise UsageError("--plan writes what all jobs read: leave --dry-run and --shard-range out")
    settings = load(config)
    dump = find_raw(settings, raw, raw_flag)
    kind = find_kind(kind, dump)
    named = {"cities": cities, "laps": laps, "camera": camera, "pose": pose, "pose_mode": pose_mode,
             "pose_gap": pose_gap, "crop": crop, "undistort": undistort, "clean_list": clean_list,
             "positions": positions, "roles": roles, "cut": cut, "buffer": buffer}  # fmt: skip
    protocol_name = settings.protocol(protocol)
    request = BuildRequest(
        kind=kind,
        raw=dump,
        out=out or settings.out / "datasets" / _default_name(kind, dump),
        options=source_options(named, option),
        settings=_build_settings(
            keep_png=settings.pick(keep_png, "build", "keep_png", False),
            check=settings.pick(check, "build", "check", "header"),
            shard_bytes=settings.pick(shard_megabytes, "build", "shard_megabytes", 256) << 20,
            short_side=short_side,
            quality=quality,
            resample_metres=resample,
            resample_rule=rule,
            drop=drop,
            max_radius=max_radius,
        ),
        protocol=_protocol(protocol_name, kind, cut=cut is not None),
        workers=settings.pick(workers, "build", "workers", os.cpu_count() or 1),
        engine=parse_choice(engine, "--engine", ENGINES),
    )
    request = _settle(request, is_named=protocol_name is not None)
    try:
        if dry_run or plan:
            (_dry_run if dry_run else _plan)(request, as_json=as_json)
        else:
            _write(request, shard_range, as_json=as_json)
    except EmptyCutError as error:
        raise _with_advice(error, request) from error.__cause__


def _write(request: BuildRequest, shard_range: str | None, *, as_json: bool) -> None:
    """Build the whole dataset, or the part of an array job."""
    if shard_range is None:
        _whole(request, as_json=as_json)
    else:
        _part(request, shard_range, as_json=as_json)


def _with_advice(error: EmptyCutError, request: BuildRequest) -> EmptyCutError:
    """The error, with the command that would give windows on this dump where there is one."""
    advice = advise(request)
    if advice is None or not advice.is_complete:
        return error
    command = advice.command(str(request.out))
    return EmptyCutError(f"{error}; this command gives {counts_text(advice.counts)}: {command}")


def _default_name(kind: str, raw: Path) -> str:
    """The folder of a dataset: the kind of a published dump, the name of the folder of one's own drives."""
    # Every own folder is of one kind: named by it, the second one would meet the first.
    return raw.resolve().name or kind if kind == OWN_DRIVES else kind


def _settle(request: BuildRequest, *, is_named: bool) -> BuildRequest:
    """Complete a request by its protocol's pins, and print them; a default protocol yields to contradicting flags."""
    replaced = ""
    if not is_named:
        request, replaced = choose_protocol(request)
    if replaced:
        note(replaced)
    request, taken = follow_protocol(request)
    if taken and request.protocol is not None:
        flags = " ".join(f"--{flag} {value}" for flag, value in taken.items())
        note(f"{flags}: taken from protocol {request.protocol.label}")
    return request


def _whole(request: BuildRequest, *, as_json: bool) -> None:
    """Build and seal the dataset, then print what it holds."""
    with progress_bar("frame") as bar:
        run_build(request, bar.stage("build"))
    _note_drop(request)
    finish(request.out, as_json=as_json, request=request)


def _note_drop(request: BuildRequest) -> None:
    """Say that frames left out break windows that are not cut by spacing."""
    if request.settings.drop and request.protocol is not None and request.protocol.spacing is None:
        note(
            f"note: with --drop windows of {request.protocol.name}, which names no spacing, break at every frame that "
            f"is left out; a protocol with spacing = {request.settings.resample_metres:g} reads those that are kept"
        )


def _plan(request: BuildRequest, *, as_json: bool) -> None:
    """Write the plan of array jobs."""
    plan = write_plan(request)
    shards, frames = len(plan.shards), sum(shard.stop - shard.start for shard in plan.shards)
    text = f"{request.out}: planned {frames:,} frames in {shards} shards; each job takes --shard-range i/N"
    next_step(None)
    emit({"path": str(request.out), "shards": shards, "frames": frames}, text, as_json=as_json)


def _part(request: BuildRequest, shard_range: str, *, as_json: bool) -> None:
    """Write the shards of one array job."""
    share = ShardRange.parse(shard_range)
    with progress_bar("frame") as bar:
        shards = build_range(request, share, bar.stage(f"shards {shard_range}"))
    result = {"path": str(request.out), "shard_range": shard_range, "shards": shards}
    text = f"{request.out}: {plural(shards, 'shard')} of part {shard_range}; seqdata merge seals all parts"
    emit(result, text, as_json=as_json)
    next_step(f"seqdata merge {shlex.quote(str(request.out))}")


def _dry_run(request: BuildRequest, *, as_json: bool) -> None:
    """Print the plan."""
    plan = plan_build(request)
    _note_drop(request)
    result = {"path": str(request.out), **plan.as_dict()}
    lines = [
        f"{request.out}: would hold {plural(plan.frames, 'frame')} of "
        f"{plural(plan.trajectories, 'trajectory', 'trajectories')} in {plural(plan.shards, 'shard')}",
        f"  images {size(plan.raw_bytes)} raw, about {size(plan.stored_bytes)} in shards and {size(plan.table_bytes)} "
        f"in tables, about {plan.seconds:.0f} s",
        f"  resampling flag: {plan.resampled} frames ({plan.resampled / max(plan.frames, 1):.0%})",
    ]
    lines += [
        f"  {group['city']} {group['role'] or '-'}: {plural(group['frames'], 'frame')} of "
        f"{plural(group['trajectories'], 'trajectory', 'trajectories')}, "
        f"{size(group['bytes'])}"
        for group in plan.groups
    ]
    lines += [
        f"  {split}: {counts['database']} database and {counts['query']} query windows"
        for split, counts in plan.windows.items()
    ]
    lines += [f"  left out: {count} {reason}" for reason, count in plan.left_out.items()]
    lines += (
        [f"  of {plan.sample} frames read as a sample, {plan.sample_bad} cannot be stored"] if plan.sample_bad else []
    )
    emit(result, "\n".join(lines), as_json=as_json)
    next_step(None)
    if plan.windows:
        _note_advice(request, plan.frames, plan.windows)


# The flags of settings that are called otherwise.
_FLAGS = {"resample_metres": "--resample", "resample_rule": "--rule", "shard_bytes": "--shard-megabytes"}


def _build_settings(**values: object) -> BuildSettings:
    """Check settings; None keeps a default. Raises: UsageError that names the flag of a value that does not fit."""
    # Only what was typed is set: a protocol may fill in the rest (see `follow_protocol`).
    try:
        return BuildSettings.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        if fault["type"] == "literal_error":
            expected = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            raise UsageError(f"{flag} {fault['input']}: expected {expected}") from error
        problem = fault["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise UsageError(f"{flag} {values.get(name, '')}: {problem}" if name else problem) from error


def _protocol(name: str | None, kind: str, *, cut: bool) -> Protocol | None:
    """Load the named protocol, the kind's own when none is named (`own-cut` for cut drives), None for 'none'."""
    if name == "none":
        return None
    return protocols.load(name or ("own-cut" if cut else default_protocol(kind)))


def finish(out: str | Path, *, as_json: bool, request: BuildRequest | None = None) -> None:
    """Print what the dataset at `out` holds; leave with exit code 6 when something is in quarantine.

    With the `request` that built it, a dataset that can measure nothing ends in the command that mends it.
    """
    dataset = seqdata.open(out)
    described = describe(dataset)
    text = (
        f"{out}: {plural(described['frames'], 'frame')} of "
        f"{plural(described['trajectories'], 'trajectory', 'trajectories')} in {plural(described['shards'], 'shard')}, "
        f"{size(described['shard_bytes'] + described['table_bytes'])}, id {dataset.id[:12]}"
    )
    emit(described, text, as_json=as_json)
    if described["protocol"]:
        _note_splits(described["protocol"])
        if request is not None:
            _note_advice(request, described["frames"], split_counts(described["protocol"]["splits"]))
    if console.next == "":
        next_step(_following(out, described["protocol"]))
    left_out = described["quarantined"]
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise QuarantineNotice(
            f"{plural(sum(left_out.values()), 'input')} left out ({reasons}); see: seqdata quarantine {out}"
        )


def _following(out: str | Path, protocol: dict[str, Any] | None) -> str:
    """What to type after a dataset is sealed: training where it has windows for it, else what measures or shows it."""
    # Below datasets/ the newest is found without being named.
    place = "" if Path(str(out)).parent.name == "datasets" else f" {shlex.quote(str(out))}"
    counts = split_counts(protocol["splits"]) if protocol else {}
    if "train" in counts and has_both_roles(counts["train"]):
        return f"seqdata train{place}"
    serves = any(map(has_both_roles, counts.values()))
    return f"seqdata index{place} --model seqvlad-mobilenetv2" if serves else f"seqdata preview{place}"


def _note_splits(protocol: dict[str, Any]) -> None:
    """Print the windows of each split, and where they differ from what the protocol's papers counted."""
    for split, counts in protocol["splits"].items():
        note(
            f"  {protocol['name']}@{protocol['hash']} {split}: {counts['database']} database and {counts['query']} "
            f"query windows, {counts['without_positive']} queries without a positive"
        )
        for name in counts["differs_from_expected"]:
            note(f"    {name}: {counts[name]}; the whole published dump has {counts['expected'][name]}")


def _note_advice(request: BuildRequest, frames: int, counts: Counts) -> None:
    """Say what no split has, and which command would give it; nothing where every split has both roles."""
    if request.protocol is None or all(map(has_both_roles, counts.values())):
        return
    # Some split serves: what the others lack may be what the user left out on purpose.
    serves = any(map(has_both_roles, counts.values()))
    advice = advise(request, frames)
    if serves and (advice is None or not all(map(has_both_roles, advice.counts.values()))):
        return
    note(f"{'' if serves else 'no split serves: '}{lacking(counts)}")
    if advice is not None and advice.is_complete:
        note(f"this command gives {counts_text(advice.counts)}:")
        note(f"  {advice.command(advised_out(request.out, advice))}")
        return
    if request.kind != OWN_DRIVES:
        note(f"add the drives that the protocol names: seqdata protocols show {request.protocol.name}")
        return
    note("a place can be found again only where two drives passed: add images of a second drive over the same ground")
    if advice is not None:
        note(f"until then this command gives {counts_text(advice.counts)}, to be indexed and searched:")
        note(f"  {advice.command(advised_out(request.out, advice))}")

"""`seqdata merge`, `append`, `withdraw` and `compact`: seal array jobs, and make new versions of a sealed dataset."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli.config import load
from cli.dataset.build import finish
from cli.dataset.build_flags import WorkersFlag
from cli.dataset.features import is_features, merge_features
from cli.dataset.source_flags import (
    CitiesFlag,
    CleanListFlag,
    KindArgument,
    LapsFlag,
    PositionsFlag,
    RawArgument,
    RawFlag,
    SourceOptionFlag,
    find_kind,
    find_raw,
    source_options,
)
from cli.output import ConfigFlag, JsonFlag, emit, next_step, note, progress_bar
from seqdata.build.builder import merge as run_merge
from seqdata.build.request import BuildRequest
from seqdata.dataset.compact import compact as run_compact
from seqdata.dataset.versions import append as run_append
from seqdata.dataset.versions import withdraw as run_withdraw
from seqdata.errors import InputError

OutArgument = Annotated[str, typer.Argument(help="Dataset folder or URL.", metavar="DATASET")]
MergeArgument = Annotated[str, typer.Argument(help="Dataset folder or URL, or features folder.", metavar="DATASET")]


def merge(out: MergeArgument, as_json: JsonFlag = False) -> None:
    """Seal a dataset, or features, that array jobs wrote in parts.

    The jobs are seqdata build --shard-range i/N, or seqdata describe --shard-range i/N; missing parts are named.
    """
    if is_features(out):
        merge_features(Path(out), as_json=as_json)
        next_step(f"seqdata train --features {shlex.quote(out)}")
        return
    run_merge(out)
    finish(out, as_json=as_json)


def append(
    out: OutArgument,
    kind: KindArgument,
    raw: RawArgument = None,
    raw_flag: RawFlag = None,
    cities: CitiesFlag = None,
    laps: LapsFlag = None,
    clean_list: CleanListFlag = None,
    positions: PositionsFlag = None,
    option: SourceOptionFlag = None,
    workers: WorkersFlag = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Add new cities, laps or drives to a sealed dataset.

    The result is a new version that shares the old shards.

    The dataset's own settings and protocol hold. Frames that it has already are skipped.
    """
    settings = load(config)
    dump = find_raw(settings, raw, raw_flag)
    named = {"cities": cities, "laps": laps, "clean_list": clean_list, "positions": positions}
    request = BuildRequest(
        kind=find_kind(kind, dump),
        raw=dump,
        out=out,
        options=source_options(named, option),
        workers=settings.pick(workers, "build", "workers", os.cpu_count() or 1),
    )
    with progress_bar("frame") as bar:
        appended = run_append(request, bar.stage("append"))
    there = f"{appended.skipped} frames were there already"
    note(f"version {appended.manifest.version}: {there}, {appended.listed} are new" if appended.listed else there)
    next_step("seqdata index append")
    finish(out, as_json=as_json)


def withdraw(
    out: OutArgument,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of the frames.", show_default=False)] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys", help="File of keys, one a line.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; stands in quarantine beside each frame.")] = "withdrawn",
    as_json: JsonFlag = False,
) -> None:
    """Remove frames from a sealed dataset, as a new version.

    No window or stream yields them.

    Their bytes stay in the shards; a key that begins with - goes after --.
    """
    keys = [*(keys or []), *(_lines(keys_file) if keys_file is not None else [])]
    if not keys:
        raise InputError("no frame is named: give keys, or a file of them with --keys FILE")
    manifest = run_withdraw(out, keys, reason)
    # Quarantine is cumulative over versions, so this counts earlier withdrawals too.
    gone = manifest.counts.quarantined.get("withdrawn", 0)
    emit(
        {
            "path": out,
            "version": manifest.version,
            "id": manifest.id,
            "frames": manifest.counts.frames,
            "withdrawn": gone,
        },
        f"{out}: version {manifest.version}, {manifest.counts.frames} frames, {gone} withdrawn, id {manifest.id[:12]}",
        as_json=as_json,
    )


def compact(out: OutArgument, as_json: JsonFlag = False) -> None:
    """Write a dataset's tables whole after appends and withdrawals.

    The result is a new version with the same frames, windows and truth. Shards stay as they are.

    Versions before it stay until seqdata gc.
    """
    manifest = run_compact(out)
    emit(
        {"path": out, "version": manifest.version, "id": manifest.id, "frames": manifest.counts.frames},
        f"{out}: version {manifest.version}, {manifest.counts.frames} frames, id {manifest.id[:12]}",
        as_json=as_json,
    )


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not empty. Raises: InputError when it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of keys ({error})") from error

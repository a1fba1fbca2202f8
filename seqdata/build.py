"""Build: raw dump → sealed shards → tables → manifest. Shards are idempotent, so a killed build resumes.

The plan (listing and settings) has a hash; every shard is sealed under it. Starting again in the same folder keeps the
sealed shards and ends in the same bytes as an unbroken build; a folder that holds anything else is refused.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from seqdata.contracts import table_contract
from seqdata.errors import InputError, OutputError
from seqdata.finish import finish
from seqdata.manifest import MANIFEST_NAME, BuildSettings, DatasetManifest, SourceInfo, read_manifest
from seqdata.protocols import Protocol
from seqdata.shards import ShardPlan, plan_shards, read_seal, read_sealed, write_shard
from seqdata.sources.base import Listing, Source, open_source
from seqdata.storage import explain_write_failure, sha256_json, xxh3_hex

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all) after each shard."""

LOCK_NAME = ".build.lock"
ROWS_A_HASH = 100_000


@dataclass(frozen=True)
class BuildRequest:
    """What to build: the kind of dump, where it is, its options, where the dataset goes, and the settings."""

    kind: str
    raw: Path
    out: Path
    options: Mapping[str, str] = field(default_factory=dict)
    settings: BuildSettings = field(default_factory=BuildSettings)
    protocol: Protocol | None = None
    workers: int = 1


def build(request: BuildRequest, progress: Progress | None = None) -> DatasetManifest:
    """Build a dataset and return its manifest; a finished equal build is returned as it is.

    Raises: InputError (wrong or missing dump), ContractError (a bad table), OutputError (folder occupied or full).
    """
    source = open_source(request.kind, request.raw, request.options)
    listing = source.listing()
    if not listing.records.height:
        reasons = ", ".join(listing.quarantine["reason"].unique().sort())
        raise InputError(f"{request.raw}: no frame can be used ({reasons or 'the dump is empty'})")
    info = _source_info(request, source, listing)
    plan_hash = sha256_json(
        {"source": info.model_dump(mode="json"), "settings": request.settings.model_dump(mode="json")}
    )
    if request.protocol is not None:
        source.check_protocol(request.protocol)
    _refuse_strangers(request.out)
    with _claimed(request.out) as out:
        finished = _finished(out, info, request)
        if finished is not None:
            return finished
        _refuse_other_plan(out, plan_hash)
        plans = plan_shards(listing.records, request.settings)
        _write_shards(request, source, listing.records, plans, plan_hash, progress)
        sealed = [read_sealed(out / "shards", plan, plan_hash) for plan in plans]
        whole = [shard for shard in sealed if shard is not None]
        return finish(out, plans, whole, listing.quarantine, info, request.settings, request.protocol)


def _source_info(request: BuildRequest, source: Source, listing: Listing) -> SourceInfo:
    """The dump's identity: a hash over every record and every input left out, independent of where the dump lies."""
    records = table_contract("records").conform(listing.records)
    parts = [*records.iter_slices(ROWS_A_HASH), *listing.quarantine.iter_slices(ROWS_A_HASH)]
    fingerprint = sha256_json([xxh3_hex(part.write_csv().encode()) for part in parts])
    options = {name: Path(value).name if "/" in value else value for name, value in request.options.items()}
    return SourceInfo(kind=request.kind, options=options, fingerprint=fingerprint, attribution=source.attribution)


@contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Hold the output folder's lock. Raises: OutputError when another build holds it, or it cannot be made."""
    try:
        (out / "shards").mkdir(parents=True, exist_ok=True)
        handle = os.open(out / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{out}: is a file, not a folder; choose another --out") from error
    except OSError as error:
        explain_write_failure(out, error)
    try:
        _lock(handle, out)
        try:
            yield out
        finally:
            (out / LOCK_NAME).unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 64, 0).decode(errors="replace") or "unknown"
        raise OutputError(f"{out}: process {holder} is building here; wait for it or choose another --out") from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)


def _finished(out: Path, info: SourceInfo, request: BuildRequest) -> DatasetManifest | None:
    """The manifest that stands in `out`, when it is of this very build. Raises: OutputError when it is another's."""
    if not (out / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(out)
    same = manifest.source == info and manifest.settings == request.settings and manifest.protocol == request.protocol
    if not same:
        raise OutputError(f"{out}: holds another dataset ({manifest.id[:12]}); choose another --out or remove it")
    return manifest


def _refuse_strangers(out: Path) -> None:
    """Raise OutputError when the folder holds anything that a build does not write."""
    if not out.is_dir():
        return
    ours = ("tracks-", "sequences-", "positives-")
    tables = ("frames.parquet", "trajectories.parquet", "quarantine.parquet")
    for path in sorted(out.iterdir()):
        known = path.name in ("shards", LOCK_NAME, MANIFEST_NAME, *tables) or path.name.startswith((*ours, "."))
        if not known:
            raise OutputError(f"{out}: holds something else ({path.name}); choose an empty folder for --out")


def _refuse_other_plan(out: Path, plan_hash: str) -> None:
    """Raise OutputError when shards of another build are sealed here; tars that nothing sealed are cleared away."""
    for tar in sorted((out / "shards").glob("part-*.tar")):
        seal = read_seal(tar.with_suffix(".parquet"))
        if seal is None:
            tar.unlink()
        elif seal["plan"] != plan_hash:
            raise OutputError(
                f"{out}: holds an unfinished build of another dump or with other settings; remove it, or choose "
                "another --out"
            )


def _write_shards(
    request: BuildRequest,
    source: Source,
    records: pl.DataFrame,
    plans: list[ShardPlan],
    plan_hash: str,
    progress: Progress | None,
) -> None:
    """Write every shard that is not sealed yet, here or in a pool of processes."""
    folder = request.out / "shards"
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    done = 0
    for finished in _run_tasks(request, source, records, plans, plan_hash, folder):
        done += finished.stop - finished.start
        if progress is not None:
            progress(done, records.height)


def _run_tasks(
    request: BuildRequest,
    source: Source,
    records: pl.DataFrame,
    plans: list[ShardPlan],
    plan_hash: str,
    folder: Path,
) -> Iterator[ShardPlan]:
    if request.workers <= 1 or len(plans) == 1:
        for plan in plans:
            write_shard(folder, plan, _rows(records, plan), source, request.settings, plan_hash)
            yield plan
        return
    workers = min(request.workers, len(plans))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts) as pool:
        tasks = {
            pool.submit(_shard_task, request, plan, _rows(records, plan), plan_hash): plan
            for plan in plans
            if read_sealed(folder, plan, plan_hash) is None
        }
        yield from (plan for plan in plans if plan not in tasks.values())
        try:
            for task in as_completed(tasks):
                task.result()
                yield tasks[task]
        except BrokenProcessPool as error:
            raise OutputError("a worker process was killed (out of memory?); run again with fewer --workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's to handle: workers end the shard they write and are not given another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _rows(records: pl.DataFrame, plan: ShardPlan) -> pl.DataFrame:
    """The plan's rows of the listing, halo rows first."""
    return records.slice(plan.start - plan.halo, plan.stop - plan.start + plan.halo)


def _shard_task(request: BuildRequest, plan: ShardPlan, records: pl.DataFrame, plan_hash: str) -> None:
    """One shard in a worker process; the source is opened again there."""
    source = open_source(request.kind, request.raw, request.options)
    write_shard(request.out / "shards", plan, records, source, request.settings, plan_hash)

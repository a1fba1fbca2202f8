"""Build: raw dump → sealed shards → tables → manifest. Shards are idempotent, so a killed build resumes.

The plan (listing and settings) has a hash; every shard is sealed under it. Starting again in the same place keeps the
sealed shards and ends in the same bytes as an unbroken build; a place that holds anything else is refused. Array jobs
write a share of the shards each (`build_range`), from the plan that the first of them or `write_plan` has written; then
`merge` seals. The bytes are again the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import polars as pl

from seqdata.build.finish import UnsealedShardError, finish
from seqdata.build.plan import (
    Plan,
    StoredWork,
    Work,
    begin,
    describe_source,
    dump_path,
    end,
    make_work,
    read_left_out,
    read_listing,
    read_plan,
    refuse_empty,
    stored_work,
)
from seqdata.build.request import BuildRequest as BuildRequest
from seqdata.build.request import follow_protocol
from seqdata.build.shards import ShardPlan, read_seals, write_shard
from seqdata.contracts.manifest import (
    ADDED,
    CHECKSUM_NAME,
    MANIFEST_NAME,
    SHARDS,
    VERSIONS,
    BuildSettings,
    DatasetManifest,
    SourceInfo,
    read_manifest,
)
from seqdata.errors import ContractError, InputError, OutputError
from seqdata.parallel import ENGINES, Progress, run_jobs
from seqdata.parallel import ShardRange as ShardRange
from seqdata.sources.registry import open_source
from seqdata.storage.lock import LOCK_NAME, claimed, refuse_busy
from seqdata.storage.store import Store


def build(request: BuildRequest, progress: Progress | None = None) -> DatasetManifest:
    """Build a dataset; a killed build is continued, a finished equal one is returned as it is.

    Args:
        request: What to build, from where and to where.
        progress: Called with (frames finished, frames in all) after each shard.

    Returns:
        The manifest of the sealed dataset.

    Raises:
        InputError: If the dump is wrong or missing, or the request contradicts its protocol.
        ContractError: If a table of the dump is bad.
        OutputError: If the output holds something else, or the disk refuses.

    Example:
        >>> import tempfile
        >>> from seqdata.errors import InputError
        >>> try:
        ...     build(BuildRequest("msls", Path("no/such/dump"), tempfile.mkdtemp()))
        ... except InputError as error:
        ...     print(error)
        no/such/dump: no such folder, as --raw FOLDER
    """
    store = Store(request.out, is_output=True)
    request = _check_place(store, request, request.title)
    request, work = list_work(request)
    with claimed(store, request.title):
        finished = _finished(store, work.plan.source, request)
        if finished is not None:
            return finished
        begin(store, work)
        return write_and_seal(request, store, work, progress)


def build_range(request: BuildRequest, share: ShardRange, progress: Progress | None = None) -> int:
    """Write one job's share of the shards and seal nothing; `merge` ends the build.

    Args:
        request: As for `build`; every job takes the same one.
        share: Which job this is, of how many.
        progress: As for `build`.

    Returns:
        The number of shards of the share.

    Raises:
        SeqdataError: As `build`.
    """
    store = Store(request.out, is_output=True)
    title, part = f"part {share.number} of {share.jobs} of {request.title}", f"{share.number}-of-{share.jobs}"
    request = _check_place(store, request, title, part)
    work: Work | StoredWork | None = stored_work(store, request)
    if work is None:
        request, work = list_work(request)
    with claimed(store, title, part):
        mine = share.select(work.plan.shards)
        if _finished(store, work.plan.source, request) is None:
            begin(store, work, with_records=True)
            write_shards(request, store, work, mine, progress)
    return len(mine)


def write_plan(request: BuildRequest) -> Plan:
    """List the dump once and write the plan with its records, for the jobs of `build_range`; no shard is written.

    Args:
        request: As for `build`; every job takes the same one.

    Returns:
        The plan.

    Raises:
        SeqdataError: As `build`.
    """
    store = Store(request.out, is_output=True)
    title = f"plan of {request.title}"
    request = _check_place(store, request, title)
    request, work = list_work(request)
    with claimed(store, title):
        if _finished(store, work.plan.source, request) is None:
            begin(store, work, with_records=True)
    return work.plan


def merge(out: str | Path) -> DatasetManifest:
    """Seal a build whose shards array jobs have written; a sealed dataset is returned as it is.

    Raises:
        InputError: If no build was begun at `out`, or shards are missing (it names them).
    """
    store = Store(out, is_output=True)
    # Before the lock is taken, so that a sealed dataset on a read-only disk can be named too.
    if read_plan(store) is None:
        return read_manifest(store)
    with claimed(store, "seqdata merge"):
        plan = read_plan(store)
        if plan is None or plan.version > 1:
            return read_manifest(store)
        seals = read_seals(store, plan.shards, plan.hash)
        missing = [shard.name for shard, seal in zip(plan.shards, seals, strict=True) if seal is None]
        if missing:
            names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            raise InputError(
                f"{store}: {len(missing)} of {len(plan.shards)} shards are missing ({names}); run their jobs again"
            )
        clear_leftovers(store, list(plan.shards))
        return seal(store, plan, read_left_out(store))


def write_and_seal(request: BuildRequest, store: Store, work: Work, progress: Progress | None) -> DatasetManifest:
    """Write the shards that are not sealed yet, then tables and manifest, and remove the plan.

    Args:
        request: The build.
        store: The dataset's store.
        work: Its plan with records and source.
        progress: As for `write_shards`.
    """
    shards = list(work.plan.shards)
    write_shards(request, store, work, shards, progress)
    # A footer says that a shard is sealed. Damage in the rest of a seal shows when it is read whole, which removes it:
    # each turn writes one such shard again.
    for _ in shards:
        try:
            return seal(store, work.plan, work.left_out)
        except UnsealedShardError:
            write_shards(request, store, work, shards, progress)
    return seal(store, work.plan, work.left_out)


def seal(store: Store, plan: Plan, left_out: pl.DataFrame) -> DatasetManifest:
    """Write tables and manifest of a version (see `finish`), then remove its plan.

    Args:
        store: The dataset's store.
        plan: The plan, all of whose shards are sealed.
        left_out: Quarantine rows of the listing.

    Returns:
        The manifest.
    """
    manifest = finish(store, plan, left_out)
    end(store)
    return manifest


def list_work(request: BuildRequest) -> tuple[BuildRequest, Work]:
    """List the dump and plan its shards; nothing is written.

    Returns:
        The request with what its protocol pins (see `follow_protocol`), and the work.

    Raises:
        InputError: If the dump is wrong, missing or empty, or the request contradicts its protocol.
        ContractError: If a table of the dump is bad, or the engine is unknown.
    """
    if request.engine not in ENGINES:
        raise ContractError(f"engine '{request.engine}': expected {' or '.join(ENGINES)}")
    request, _ = follow_protocol(request)
    source, listing = read_listing(request.kind, request.raw, request.options)
    refuse_empty(listing, request.raw)
    info = describe_source(request.kind, dict(request.options), source, listing)
    if request.protocol is not None:
        source.check_protocol(request.protocol)
    work = make_work(source, listing, info, request.settings, request.protocol)
    return request, replace(work, plan=work.plan.model_copy(update={"raw": dump_path(request.raw)}))


def _check_place(store: Store, request: BuildRequest, title: str, part: str = "") -> BuildRequest:
    """Refuse a place that will not do before the dump is listed, which takes minutes where it is large.

    Returns:
        The request with what its protocol pins (see `follow_protocol`).

    Raises:
        OutputError: If the place holds something else, or another build is under way there.
        InputError, ContractError: As `follow_protocol`.
    """
    refuse_strangers(store)
    refuse_busy(store, title, part)
    request, _ = follow_protocol(request)
    if store.size(MANIFEST_NAME) is not None:
        _refuse_other(store, read_manifest(store), request)
    return request


def _refuse_other(store: Store, manifest: DatasetManifest, request: BuildRequest) -> None:
    """Raise OutputError for a dataset of another kind of dump, or of other settings than a request's."""
    # Hashes leave titles out, so a dataset that was built before a title was reworded is still the same build.
    built, requested = (protocol and protocol.label for protocol in (manifest.protocol, request.protocol))
    if (manifest.source.kind, manifest.settings, built) != (request.kind, request.settings, requested):
        _refuse_dataset(store, manifest)


def _refuse_dataset(store: Store, manifest: DatasetManifest) -> NoReturn:
    raise OutputError(f"{store}: holds another dataset ({manifest.id[:12]}); choose another --out or remove it")


def _finished(store: Store, info: SourceInfo, request: BuildRequest) -> DatasetManifest | None:
    """Read the manifest of a finished build of this request, if any. Raises: OutputError when it is another's."""
    if store.size(MANIFEST_NAME) is None:
        return None
    manifest = read_manifest(store)
    _refuse_other(store, manifest, request)
    if not manifest.source.same_dump(info):
        _refuse_dataset(store, manifest)
    plan = read_plan(store)
    # The process was killed between the manifest and the removal of the plan.
    if plan is not None and plan.version <= manifest.version:
        end(store)
    return manifest


def refuse_strangers(store: Store) -> None:
    """Raise OutputError when the place holds anything that a build does not write."""
    # Tables of protocols carry hashes in their names, so only their first words are known.
    ours = ("tracks-", "sequences-", "positives-", "nearest-", ".")
    names = (SHARDS, VERSIONS, ADDED, LOCK_NAME, MANIFEST_NAME, CHECKSUM_NAME)
    tables = ("frames.parquet", "trajectories.parquet", "quarantine.parquet")
    for name in _entries(store):
        if name not in (*names, *tables) and not name.startswith(ours):
            raise OutputError(f"{store}: holds something else ({name}); choose an empty folder for --out")


def _entries(store: Store) -> list[str]:
    """Names directly in a place; of a URL only its files."""
    if not store.is_local:
        return store.names()
    folder = store.path("")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def write_shards(
    request: BuildRequest,
    store: Store,
    work: Work | StoredWork,
    shards: list[ShardPlan],
    progress: Progress | None,
) -> None:
    """Write those shards that are not sealed yet, here or by the request's engine.

    Args:
        request: The build.
        store: The dataset's store.
        work: Its plan with records and source.
        shards: Shards of the plan.
        progress: Called with (frames finished, frames in all) after each shard.
    """
    clear_leftovers(store, shards)
    plan_hash = work.plan.hash
    todo = [s for s, seal in zip(shards, read_seals(store, shards, plan_hash), strict=True) if seal is None]
    total = sum(shard.stop - shard.start for shard in shards)
    finished_frames = total - sum(shard.stop - shard.start for shard in todo)
    for finished in _run(request, store, work, todo):
        finished_frames += finished.stop - finished.start
        if progress is not None:
            progress(finished_frames, total)


def _run(request: BuildRequest, store: Store, work: Work | StoredWork, shards: list[ShardPlan]) -> Iterator[ShardPlan]:
    """Write the shards, yielding each when it is sealed."""
    settings, plan_hash = work.plan.settings, work.plan.hash
    alone = request.engine == "pool" and (request.workers <= 1 or len(shards) <= 1)
    if alone or store.root.startswith("memory://"):  # a memory file system is one process's own
        for shard in shards:
            write_shard(store, shard, work.rows(shard), work.source, settings, plan_hash)
            yield shard
        return
    # A generator: records of a shard are cut out when its job is handed over, never all at once.
    jobs = (
        ShardJob(
            kind=request.kind,
            raw=request.raw,
            options=dict(request.options),
            out=store.root,
            settings=settings,
            plan_hash=plan_hash,
            plan=shard,
            records=work.rows(shard),
        )
        for shard in shards
    )
    yield from run_jobs(jobs, request.engine, min(request.workers, len(shards)))


def clear_leftovers(store: Store, shards: list[ShardPlan]) -> None:
    """Remove what a killed writer of these shards left half-written."""
    ours = {name for shard in shards for name in (shard.name, shard.table)}
    for name in store.names(SHARDS):
        base = name.rsplit("/", 1)[-1]
        # Temporary files are called .<name>.<random>.tmp; other shards' may belong to array jobs that still run.
        if base.endswith(".tmp") and base.lstrip(".").rsplit(".", 2)[0] in ours:
            store.remove(name)


@dataclass(frozen=True)
class ShardJob:
    """One shard to write in another process.

    Attributes:
        kind: Kind of the dump.
        raw: Folder of the dump.
        options: The source's options.
        out: Folder or URL of the dataset.
        settings: Settings of the build.
        plan_hash: Hash of the version's plan.
        plan: The shard.
        records: The plan's rows of the listing, halo rows first.
    """

    kind: str
    raw: Path
    options: dict[str, str]
    out: str
    settings: BuildSettings
    plan_hash: str
    plan: ShardPlan
    records: pl.DataFrame

    def run(self) -> ShardPlan:
        """Write the shard, in whatever process this is; the dump is opened there.

        Errors are those of `write_shard`.
        """
        source = open_source(self.kind, self.raw, self.options)
        write_shard(Store(self.out, is_output=True), self.plan, self.records, source, self.settings, self.plan_hash)
        return self.plan

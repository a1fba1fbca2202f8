"""Repair: damaged shards of a sealed dataset made again from the raw dump, byte for byte, and tables from the shards.

Nothing is put in place before its hash is the one that the manifest lists, and no manifest is ever written: a repair
that is killed, or refused because the dump has changed, leaves the dataset as it was but for what is mended already.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import polars as pl

from seqdata.build.finish import SealedFrames, finish, join_quarantine, new_frames, seal_version
from seqdata.build.plan import Work, describe_source, make_work, read_listing
from seqdata.build.shards import sealed_under, write_shard
from seqdata.build.tables import Draft, Tables, by_trajectory, write_frames
from seqdata.contracts.dataset_tables import frame_blocks, stored_table
from seqdata.contracts.manifest import (
    FRAMES_NAME,
    MANIFEST_NAME,
    SHARDS,
    DatasetManifest,
    ShardInfo,
    read_manifest,
    tool_versions,
    version_name,
    version_numbers,
)
from seqdata.contracts.tables import table_contract
from seqdata.dataset.compact import compact
from seqdata.dataset.verify import Fault, verify
from seqdata.dataset.versions import WITHDRAWN, fresh_listing, withdraw, without_frames
from seqdata.errors import ContractError
from seqdata.storage.files import rename_flushed, scratch_folder
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.lock import claimed
from seqdata.storage.parquet import PAGE_CHECKSUMS
from seqdata.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One version of the dataset.

    Attributes:
        manifest: Its manifest.
        shards: Shards that it added, none where it withdrew frames.
        before: Manifest of the version before, None for the first.
    """

    manifest: DatasetManifest
    shards: tuple[ShardInfo, ...]
    before: DatasetManifest | None

    @property
    def builds(self) -> bool:
        """Whether it took frames from a dump; a withdrawal and a compaction need none."""
        return self.before is None or len(self.manifest.sources) > len(self.before.sources)

    @property
    def withdraws(self) -> bool:
        """Whether it took frames away; what neither builds nor withdraws compacts."""
        old = self.before.counts.quarantined if self.before else {}
        return not self.builds and self.manifest.counts.quarantined.get(WITHDRAWN, 0) > old.get(WITHDRAWN, 0)

    @property
    def is_whole(self) -> bool:
        """Whether it wrote whole tables: a build, a compaction, and any version of the first two schemas."""
        return not self.manifest.segments

    def tables(self) -> dict[str, str]:
        """Map the paths of the tables that this version wrote to their hashes."""
        old = {table.path for table in self.before.table_files()} if self.before else set()
        return {table.path: table.hash for table in self.manifest.table_files() if table.path not in old}

    def files(self) -> set[str]:
        """List every file that this version wrote, manifests aside."""
        return {name for shard in self.shards for name in shard_files(shard)} | self.tables().keys()


_SCRATCH = "repair"
"""Name from which that of the folder is made where files are made again, on the dataset's own disk."""


def repair(
    folder: str | Path,
    raw: str | Path,
    options: Mapping[str, str] | None = None,
    faults: Iterable[Fault] | None = None,
) -> list[str]:
    """Repair the damaged files of a dataset from the raw dump.

    Of a dataset that was appended to, the files that came from the dump at `raw` are repaired. What no version wrote is
    left alone, and so are the tables of a withdrawal whose own quarantine is damaged.

    Args:
        folder: Folder of the dataset.
        raw: Folder of the raw dump.
        options: The source's options that were paths: the manifest keeps only their last names, which are also looked
            for in `raw`.
        faults: What `verify` yielded; default: it is run.

    Returns:
        Names of the repaired files, sorted.

    Raises:
        InputError: If the dump is wrong or missing.
        ContractError: If the dump or the tools are not those of the build, so that the bytes cannot be made again.
        OutputError: If the folder is remote or in use, or the disk refuses.
    """
    store = Store(folder)
    root = store.path("")
    damaged = {fault.file for fault in (verify(folder) if faults is None else faults)}
    steps = list(_steps(store))
    _warn_of_orphans(store, damaged.difference(*(step.files() for step in steps)))
    hit = [step for step in steps if damaged & step.files()]
    mended: list[str] = []
    if not hit:
        return mended
    builds = sum(step.builds for step in hit)
    with claimed(store, f"repair from {raw}"), scratch_folder(root / _SCRATCH) as scratch:
        for step in hit:
            work = None if not step.builds else _work(store, step, Path(raw), options or {}, alone=builds == 1)
            if work is not None:
                mended += _mend_shards(root, scratch, step, damaged, work)
            if damaged & step.tables().keys():
                mended += _mend_tables(store, scratch, step, damaged, work)
    return sorted(mended)


def _warn_of_orphans(store: Store, damaged: set[str]) -> None:
    """Say which damaged files cannot be made again because `seqdata gc` removed the version before their own."""
    listed = {name for number in version_numbers(store, read_manifest(store)) for name in _files_of(store, number)}
    orphans = sorted(damaged & listed)
    if orphans:
        more = f" (and {len(orphans) - 1} more)" if len(orphans) > 1 else ""
        log.warning(
            "%s/%s%s cannot be made again: seqdata gc removed the version that it was added to; copy it from where the "
            "dataset came from",
            store,
            orphans[0],
            more,
        )


def _files_of(store: Store, number: int) -> list[str]:
    return read_manifest(store, number).files()


def _steps(store: Store) -> Iterator[Step]:
    """Yield the versions that can be made again, oldest first: version 1, and any whose version before is there."""
    before: DatasetManifest | None = None
    for version in version_numbers(store, read_manifest(store)):
        current = read_manifest(store, version)
        if before is None and version > 1:
            yield Step(_first_version(current), _of_first_dump(current), None)
        if version == 1 or (before is not None and before.version == version - 1):
            yield Step(current, current.shards[len(before.shards) if before else 0 :], before)
        before = current


def _first_version(manifest: DatasetManifest) -> DatasetManifest:
    """What is known of version 1 once `seqdata gc` has removed it: its dump, its shards, those tables that stay."""
    tables = {name: table for name, table in manifest.tables.items() if "/" not in table.path}
    frames = tables.get(FRAMES_NAME)
    counts = manifest.counts.model_copy(update={"frames": frames.rows if frames else 0})
    fields = {"sources": manifest.sources[:1], "shards": _of_first_dump(manifest), "tables": tables, "counts": counts}
    return manifest.model_copy(update={"version": 1, "parent": None, "segments": {}, **fields})


def _of_first_dump(manifest: DatasetManifest) -> tuple[ShardInfo, ...]:
    return tuple(shard for shard in manifest.shards if shard.source == 0)


def _work(store: Store, step: Step, raw: Path, overrides: Mapping[str, str], *, alone: bool) -> Work | None:
    """Plan a build or append again, under the hash that its shards are sealed with.

    Returns:
        None where `raw` is another version's dump; when there is only one build, its bytes will decide.

    Raises:
        ContractError: If the dump makes other shards.
    """
    manifest, before = step.manifest, step.before
    dump = manifest.sources[-1]
    in_dump = {name: str(raw / text) for name, text in dump.options.items() if text and (raw / text).is_file()}
    source, listing = read_listing(dump.kind, raw, {**dump.options, **in_dump, **overrides})
    now = describe_source(dump.kind, dict(dump.options), source, listing)
    # With one build only its own dump can be meant, even when its listing has changed: bytes decide.
    if not alone and now.fingerprint != dump.fingerprint:
        return None
    work = make_work(
        source,
        listing if before is None else fresh_listing(store, before, listing, raw),
        dump,
        manifest.settings,
        manifest.protocol,
        version=manifest.version,
        parent=manifest.parent,
        first_shard=len(before.shards) if before else 0,
    )
    listed = [(shard.name, shard.halo) for shard in step.shards]
    if [(plan.name, plan.halo) for plan in work.plan.shards] != listed:
        raise ContractError(f"{raw}: {_changed(step)}; its frames make other shards than the manifest lists")
    return replace(work, plan=work.plan.model_copy(update={"hash": _sealed_under(store, step) or work.plan.hash}))


def _sealed_under(store: Store, step: Step) -> str:
    """The plan's hash that the seals name, whole seals before damaged ones; "" where none can be read.

    A later program may hash the same plan to another value; a wrong answer only makes bytes that are refused.
    """
    files = {shard.name: store.path(f"{SHARDS}/{shard.seal_name}") for shard in step.shards}
    present = [shard for shard in step.shards if files[shard.name].is_file()]
    for shard in sorted(present, key=lambda shard: xxh3_file(files[shard.name]) != shard.seal):
        plan_hash = sealed_under(store, shard.name)
        if plan_hash is not None:
            return plan_hash
    return ""


def _changed(step: Step) -> str:
    """Say why the bytes cannot be made again, as far as the manifest shows."""
    now = tool_versions()
    others = [f"{name} {old}, now {now.get(name)}" for name, old in step.manifest.tools.items() if now.get(name) != old]
    tools = f", or the tools have ({'; '.join(others)})" if others else ""
    return f"the dump has changed since the build, or other options were given{tools}"


def _mend_shards(root: Path, scratch: Path, step: Step, damaged: set[str], work: Work) -> list[str]:
    """Write damaged shards and their seals again, one at a time, and put them in place, the tar before its seal."""
    mended = []
    plans = {plan.name: plan for plan in work.plan.shards}
    for shard in step.shards:
        names = shard_files(shard)
        if not damaged & set(names):
            continue
        plan = plans[shard.name]
        # Shard and seal are made in a store of their own, so that a build's code runs unchanged and never writes into
        # the dataset.
        made = scratch / "made"
        write_shard(Store(made), plan, work.rows(plan), work.source, step.manifest.settings, work.plan.hash)
        for name, digest in zip(names, (shard.hash, shard.seal), strict=True):
            if not _is_whole(root / name, digest):
                _put(made / name, root / name, digest, step)
                mended.append(name)
        shutil.rmtree(made)
    return mended


def _mend_tables(store: Store, scratch: Path, step: Step, damaged: set[str], work: Work | None) -> list[str]:
    """Make the version's tables again and put the damaged ones in place; none where nothing is left to make them of."""
    own_quarantine = step.tables().keys() & {part.path for part in step.manifest.parts("quarantine.parquet")}
    # Which frames a withdrawal took, its quarantine alone says.
    if (work is None and step.builds) or (step.withdraws and own_quarantine & damaged):
        return []
    stage = Store(scratch / "stage")
    mended = sorted(damaged & step.tables().keys())
    # Pages of large tables had no checksums in the first releases: where that is the difference, they get none again.
    for has_checksums in (True, False):
        token = PAGE_CHECKSUMS.set(has_checksums)
        try:
            stage_tables(store, stage, step, work)
        finally:
            PAGE_CHECKSUMS.reset(token)
        if all(_is_whole(stage.path(path), step.tables()[path]) for path in mended):
            break
    # All tables of the version are made, because each follows from the frames table; only the damaged ones are moved.
    for path in mended:
        _put(stage.path(path), store.path(path), step.tables()[path], step)
    return mended


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file is there, can be read, and has this hash (XXH3-128)."""
    try:
        return path.is_file() and xxh3_file(path) == digest
    except OSError:
        return False


def _put(made: Path, final: Path, digest: str, step: Step) -> None:
    """Move a file that was made again into place. Raises: ContractError when it is not what the manifest lists."""
    if not _is_whole(made, digest):
        raise ContractError(f"{final}: made again it has other bytes: {_changed(step)}")
    final.parent.mkdir(parents=True, exist_ok=True)
    rename_flushed(made, final)


def shard_files(shard: ShardInfo) -> tuple[str, str]:
    """Name a shard's tar and its seal in the dataset."""
    return f"{SHARDS}/{shard.name}", f"{SHARDS}/{shard.seal_name}"


def stage_tables(store: Store, stage: Store, step: Step, work: Work | None) -> None:
    """Make the tables of a version once more in another folder, over the dataset's own shards.

    Args:
        store: The dataset's store.
        stage: Where the tables are written.
        step: The version.
        work: Its plan with records and source, where it took frames from a dump.
    """
    _lend(store, stage, step.before)
    # The shards are read only, so hard links to them will do; links of the other kind are refused in datasets.
    stage.path(SHARDS).mkdir()
    for file in store.path(SHARDS).iterdir():
        os.link(file, stage.path(SHARDS) / file.name)
    if work is None:
        _stage_change(store, stage, step)
    elif step.before is None or not step.is_whole:
        finish(stage, work.plan, work.left_out)
    else:
        sealed = SealedFrames(source=len(step.before.sources))
        parts = chain(
            by_trajectory(frame_blocks(stage, step.before)), new_frames(sealed, stage, work.plan, work.left_out)
        )
        quarantine = stored_table(stage, step.before, "quarantine")
        tables, draft = Tables(stage, step.manifest.version), _draft(step.manifest)
        summary = write_frames(tables, parts, draft)
        rows = join_quarantine(pl.concat([quarantine, table_contract("quarantine").conform(work.left_out)]), sealed.bad)
        seal_version(tables, draft, step.manifest.shards, summary, rows)


def _stage_change(store: Store, stage: Store, step: Step) -> None:
    """Withdraw once more the frames that the version's quarantine says were withdrawn, or compact once more."""
    before, manifest = step.before, step.manifest
    if before is None:
        return
    if not step.withdraws:
        compact(stage.path(""))
        return
    old, new = (stored_table(store, version, "quarantine") for version in (before, manifest))
    taken = new.filter(pl.col("reason") == WITHDRAWN).join(old, on=["key", "reason"], how="anti")
    if not step.is_whole:
        withdraw(stage.path(""), taken["key"], taken["message"][0])
    else:
        tables, draft = Tables(stage, manifest.version), _draft(manifest)
        summary = write_frames(tables, without_frames(stage, before, taken["key"]), draft)
        seal_version(tables, draft, manifest.shards, summary, new)


def _draft(manifest: DatasetManifest) -> Draft:
    return Draft(manifest.version, manifest.parent, manifest.sources, manifest.settings, manifest.protocol)


def _lend(store: Store, stage: Store, before: DatasetManifest | None) -> None:
    """Put the version before where `finish` and `withdraw` look for it: its manifest, and links to its tables."""
    folder = stage.path("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if before is None:
        return
    for table in before.table_files():
        place: Path = stage.path(table.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Hard links: tables may be large, and the originals must not move.
        os.link(store.path(table.path), place)
    shutil.copyfile(store.path(version_name(before.version)), stage.path(MANIFEST_NAME))

"""Repair: damaged shards of a sealed dataset made again from the raw dump, byte for byte, and tables from the shards.

Nothing is put in place before its hash is the one that the manifest lists, and no manifest is ever written: a repair
that is killed, or refused because the dump has changed, leaves the dataset as it was but for what is mended already.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from seqdata.errors import ContractError
from seqdata.lock import claimed
from seqdata.manifest import DatasetManifest, read_manifest, tool_versions
from seqdata.plan import Work, describe_source, make_work
from seqdata.repair_tables import Step, shard_files, stage_build, stage_withdrawal
from seqdata.shards import write_shard
from seqdata.sources.base import open_source
from seqdata.storage import Store, explain_write_failure, read_metadata, xxh3_file
from seqdata.verify import Fault, verify
from seqdata.versions import fresh_listing

WORKSHOP = ".repair"


def repair(
    folder: str | Path,
    raw: str | Path,
    options: Mapping[str, str] | None = None,
    faults: Iterable[Fault] | None = None,
) -> list[str]:
    """Mend the damaged files of the dataset in `folder` from the dump at `raw`; returns their names, sorted.

    `faults` are what `verify` found (default: it is run). `options` are the source's, where they were paths: the
    manifest keeps only their last names, which are also looked for in `raw`. Of a dataset that was appended to, the
    files that came from the dump at `raw` are mended. What no version wrote is left alone, and so are the tables of a
    withdrawal whose own quarantine is damaged.
    Raises: InputError for a wrong or missing dump; ContractError when the dump or the tools are not those of the build,
    so that the bytes cannot be had again; OutputError when the folder is remote, in use, or the disk refuses.
    """
    store = Store(folder)
    root = store.path("")
    damaged = {fault.file for fault in (verify(folder) if faults is None else faults)}
    hit = [step for step in _steps(store) if damaged & step.files()]
    mended: list[str] = []
    if not hit:
        return mended
    builds = sum(not step.withdraws for step in hit)
    with claimed(store, f"repair from {raw}"), _workshop(root) as workshop:
        for step in hit:
            work = None if step.withdraws else _work(store, step, Path(raw), options or {}, alone=builds == 1)
            if work is not None:
                mended += _mend_shards(root, workshop, step, damaged, work)
            if damaged & step.tables().keys():
                mended += _mend_tables(store, workshop, step, damaged, work)
    return sorted(mended)


def _steps(store: Store) -> Iterator[Step]:
    """Every version, the oldest first."""
    before: DatasetManifest | None = None
    for version in range(1, read_manifest(store).version + 1):
        current = read_manifest(store, version)
        yield Step(current, current.shards[len(before.shards) if before else 0 :], before)
        before = current


def _work(store: Store, step: Step, raw: Path, given: Mapping[str, str], *, alone: bool) -> Work | None:
    """What the build or append did, under the hash that its shards are sealed with.

    None for another dump's, where others are damaged too; where it is the only one, its bytes will show.
    Raises: ContractError when the dump makes other shards.
    """
    manifest, before = step.manifest, step.before
    stored = manifest.sources[-1]
    in_dump = {name: str(raw / text) for name, text in stored.options.items() if text and (raw / text).is_file()}
    source = open_source(stored.kind, raw, {**stored.options, **in_dump, **given})
    listing = source.listing()
    now = describe_source(stored.kind, dict(stored.options), source, listing)
    if not alone and now.fingerprint != stored.fingerprint:
        return None
    work = make_work(
        source,
        listing if before is None else fresh_listing(store, before, listing, raw),
        stored,
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
    """The plan's hash as the seals tell it, whole ones before damaged ones, nothing where none can be read.

    A later program may hash the same plan to another value; a wrong answer only makes bytes that are refused.
    """
    seals = [(store.path(shard_files(shard)[1]), shard.seal) for shard in step.shards]
    there = [(path, digest) for path, digest in seals if path.is_file()]
    for path, _ in sorted(there, key=lambda seal: xxh3_file(seal[0]) != seal[1]):
        try:
            return str(json.loads(read_metadata(path)["seqdata.shard"])["plan"])
        except (OSError, ValueError, KeyError):
            continue
    return ""


def _changed(step: Step) -> str:
    """Why the bytes cannot be had again, as far as the manifest tells."""
    now = tool_versions()
    others = [f"{name} {old}, now {now.get(name)}" for name, old in step.manifest.tools.items() if now.get(name) != old]
    tools = f", or the tools have ({'; '.join(others)})" if others else ""
    return f"the dump has changed since the build, or other options were given{tools}"


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """An empty folder on the dataset's own disk, removed at the end."""
    workshop = root / WORKSHOP
    try:
        shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir()
    except OSError as error:
        explain_write_failure(root, error)
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _mend_shards(root: Path, workshop: Path, step: Step, damaged: set[str], work: Work) -> list[str]:
    """Write damaged shards and their seals again, one at a time, and put them in place, the tar before its seal."""
    mended = []
    plans = {plan.name: plan for plan in work.plan.shards}
    for shard in step.shards:
        names = shard_files(shard)
        if not damaged & set(names):
            continue
        plan = plans[shard.name]
        records = work.records.slice(plan.start - plan.halo, plan.stop - plan.start + plan.halo)
        made = workshop / "made"
        write_shard(Store(made), plan, records, work.source, step.manifest.settings, work.plan.hash)
        for name, digest in zip(names, (shard.hash, shard.seal), strict=True):
            if not (root / name).is_file() or xxh3_file(root / name) != digest:
                _put(made / name, root / name, digest, step)
                mended.append(name)
        shutil.rmtree(made)
    return mended


def _mend_tables(store: Store, workshop: Path, step: Step, damaged: set[str], work: Work | None) -> list[str]:
    """Make the version's tables again and put the damaged ones in place; none where nothing is left to make them of."""
    quarantine = step.manifest.tables["quarantine.parquet"].path
    stage = Store(workshop / "stage")
    if work is not None:
        stage_build(store, stage, step, work)
    elif step.withdraws and quarantine not in damaged:
        stage_withdrawal(store, stage, step)
    else:
        return []
    mended = sorted(damaged & step.tables().keys())
    for path in mended:
        _put(stage.path(path), store.path(path), step.tables()[path], step)
    return mended


def _put(made: Path, final: Path, digest: str, step: Step) -> None:
    """Move a file that was made again into place. Raises: ContractError when it is not what the manifest lists."""
    if not made.is_file() or xxh3_file(made) != digest:
        raise ContractError(f"{final}: made again it has other bytes: {_changed(step)}")
    final.parent.mkdir(parents=True, exist_ok=True)
    made.replace(final)

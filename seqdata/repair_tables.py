"""The tables of one version of a dataset made again: in a stage beside it, from its shards and the version before."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seqdata.finish import finish, stored_table
from seqdata.manifest import MANIFEST_NAME, DatasetManifest, ShardInfo, version_name
from seqdata.plan import Work
from seqdata.shards import FOLDER
from seqdata.storage import Store
from seqdata.verify import seal_name
from seqdata.versions import WITHDRAWN, withdraw


@dataclass(frozen=True)
class Step:
    """One version: its manifest, the shards that it brought (none where it withdrew frames), the version before."""

    manifest: DatasetManifest
    shards: tuple[ShardInfo, ...]
    before: DatasetManifest | None

    @property
    def withdraws(self) -> bool:
        """Whether it took frames away, and so needs no dump."""
        return self.before is not None and len(self.manifest.sources) == len(self.before.sources)

    def tables(self) -> dict[str, str]:
        """Path → hash of the tables that this version wrote."""
        old = {table.path for table in self.before.tables.values()} if self.before else set()
        return {table.path: table.hash for table in self.manifest.tables.values() if table.path not in old}

    def files(self) -> set[str]:
        """Every file that this version wrote, manifests aside."""
        return {name for shard in self.shards for name in shard_files(shard)} | self.tables().keys()


def shard_files(shard: ShardInfo) -> tuple[str, str]:
    """Names of a shard's tar and of its seal in the dataset."""
    return f"{FOLDER}/{shard.name}", f"{FOLDER}/{seal_name(shard)}"


def stage_build(store: Store, stage: Store, step: Step, work: Work) -> None:
    """Finish a build or an append once more in `stage`, over the dataset's own shards."""
    _lend(store, stage, step.before)
    stage.path(FOLDER).symlink_to(store.path(FOLDER).absolute())
    finish(stage, work.plan, work.left_out)


def stage_withdrawal(store: Store, stage: Store, step: Step) -> None:
    """Withdraw once more, in `stage`, the frames that the version's quarantine says were withdrawn."""
    _lend(store, stage, step.before)
    taken = stored_table(store, step.manifest, "quarantine").filter(pl.col("reason") == WITHDRAWN)
    withdraw(stage.path(""), taken["key"], taken["message"][0])  # those of earlier versions are passed over


def _lend(store: Store, stage: Store, before: DatasetManifest | None) -> None:
    """The version before as `finish` and `withdraw` look for it: its manifest, and links to its tables."""
    folder = stage.path("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if before is None:
        return
    for table in before.tables.values():
        place: Path = stage.path(table.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(store.path(table.path), place)
    shutil.copyfile(store.path(version_name(before.version)), stage.path(MANIFEST_NAME))

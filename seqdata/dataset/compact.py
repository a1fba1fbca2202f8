"""Compact: the tables of a dataset and their segments written as whole tables again, as a new version.

The bytes are those of a build over the same shards without the withdrawn frames. Shards stay as they are; the files of
older versions stay until `seqdata gc`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from seqdata.build.finish import seal_version
from seqdata.build.tables import Draft, Tables, by_trajectory, write_frames
from seqdata.contracts.dataset_tables import frame_blocks, stored_table
from seqdata.contracts.manifest import DatasetManifest, read_manifest
from seqdata.storage.lock import claimed
from seqdata.storage.store import Store


def compact(out: str | Path) -> DatasetManifest:
    r"""Write the tables of the latest version whole; without segments no version is made.

    Killed and started again, it begins anew and ends in the same bytes.

    Args:
        out: Folder or URL of the dataset.

    Returns:
        The manifest of the latest version.

    Raises:
        InputError: If there is no dataset.
        ContractError: If a table is damaged.
        OutputError: If another build is under way there, or the store refuses.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from seqdata.build.builder import BuildRequest, build
        >>> from seqdata.dataset.collect import collect
        >>> from seqdata.dataset.versions import withdraw
        >>> raw, out = Path(tempfile.mkdtemp()), tempfile.mkdtemp()
        >>> for number in range(3):
        ...     Image.new("RGB", (32, 24), (0, 0, 30 * number)).save(raw / f"{number}.jpg")
        >>> rows = [f"{number}.jpg,500000,{2 * number},32N" for number in range(3)]
        >>> _ = (raw / "positions.csv").write_text("\n".join(["image,easting,northing,zone", *rows]))
        >>> _ = build(BuildRequest("folder", raw, out))
        >>> list(withdraw(out, ["1"], "a face").segments)
        ['changes.parquet', 'quarantine.parquet', 'trajectories.parquet']
        >>> compact(out).counts.frames
        2
        >>> collect(out).versions
        (1, 2)
    """
    store = Store(out, is_output=True)
    read_manifest(store)  # before a lock is made where no dataset is
    with claimed(store, "seqdata compact"):
        before = read_manifest(store)
        if not before.segments:
            return before
        draft = Draft(before.version + 1, before.id, before.sources, before.settings, before.protocol)
        tables = Tables(store, draft.version)
        tables.clear()
        summary = write_frames(tables, by_trajectory(by_shard(frame_blocks(store, before))), draft)
        return seal_version(tables, draft, before.shards, summary, stored_table(store, before, "quarantine"))


def by_shard(blocks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Regroup frames into a part a shard.

    A build takes its frames from the shards, and where row groups end follows from the parts that it takes.

    Args:
        blocks: Frames in the dataset's order.
    """
    waiting = pl.DataFrame()
    for block in blocks:
        waiting = pl.concat([waiting, block]) if waiting.height else block
        *whole, waiting = waiting.partition_by("shard", maintain_order=True) or [waiting]
        yield from whole
    if waiting.height:
        yield waiting

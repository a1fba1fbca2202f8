"""Shards: plain USTAR tars that any WebDataset reader can read, each sealed by a Parquet of its frames.

A frame is two members side by side, `<key>.jpg` and `<key>.json`. A shard ends where a trajectory ends; a trajectory
longer than a shard is cut, and the next shard starts with a halo of repeated frames, so that a plain sequential reader
still meets every window of up to halo + 1 frames exactly once.
"""

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from seqdata.contracts.manifest import SHARDS, BuildSettings, seal_name
from seqdata.contracts.tables import table_contract
from seqdata.errors import InputError
from seqdata.frames.encode import StoredImage, prepare
from seqdata.frames.images import BadImageError, Pixels
from seqdata.parallel.steps import step
from seqdata.sources.base import Source
from seqdata.storage.faults import AGAIN
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.parquet import parquet_writer
from seqdata.storage.store import Store
from seqdata.storage.tar import TarWriter

REQUESTS = 16
"""Seals of a remote store that are read at a time: its answers are waited for, not computed."""
FOOTER_BYTES = 64 << 10
"""Read from the end of a seal: enough for the footer of most, which grows with the frames that were left out."""

Result = TypeVar("Result")
_SHARD_METADATA = "seqdata.shard"
_LOCATION_COLUMNS = ("offset", "length", "width", "height", "hash")
_SAMPLE_COLUMNS = ("source", "key", "trajectory", "position", "latitude", "longitude", "time", "panorama")


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        number: Number of the shard.
        start: First row of the listing that it holds.
        stop: Row after the last.
        halo: Rows before `start` that are repeated at its head.
    """

    number: int
    start: int
    stop: int
    halo: int

    @property
    def name(self) -> str:
        """Name of the tar below `shards/`."""
        return f"part-{self.number:06d}.tar"

    @property
    def table(self) -> str:
        """Name of the Parquet that seals the shard."""
        return seal_name(self.name)


@dataclass(frozen=True)
class Seal:
    """What a finished shard's Parquet records of the tar: size, XXH3-128, the plan's hash, and what was left out."""

    bytes: int
    hash: str
    plan: str
    quarantined: list[dict[str, Any]]


@dataclass(frozen=True)
class SealedShard:
    """A finished shard: its seal, the XXH3-128 of the Parquet that holds it, and the rows of its frames."""

    seal: Seal
    table_hash: str
    frames: pl.DataFrame


def plan_shards(records: pl.DataFrame, settings: BuildSettings, first: int = 0) -> list[ShardPlan]:
    """Cut the listing into shards of about `settings.shard_bytes` raw bytes, where trajectories end if possible.

    Args:
        records: Records in (trajectory, position) order, with the column bytes.
        settings: Size of a shard and halo.
        first: Number of the first shard.
    """
    plans: list[ShardPlan] = []
    open_start, open_bytes = 0, 0
    for start, stop, cuts, total in _trajectory_cuts(records, settings.shard_bytes):
        # A trajectory that needs several shards begins one of its own, so that only its own parts need a halo.
        if open_start < start and (len(cuts) > 1 or open_bytes + total > settings.shard_bytes):
            plans.append(ShardPlan(first + len(plans), open_start, start, 0))
            open_start, open_bytes = start, 0
        if len(cuts) > 1:
            for cut, end in zip(cuts, [*cuts[1:], stop], strict=True):
                plans.append(ShardPlan(first + len(plans), cut, end, min(settings.halo, cut - start)))
            open_start = stop
        else:
            open_bytes += total
    if open_start < records.height:
        plans.append(ShardPlan(first + len(plans), open_start, records.height, 0))
    return plans


def _trajectory_cuts(records: pl.DataFrame, shard_bytes: int) -> Iterator[tuple[int, int, list[int], int]]:
    """Start row, stop row, first rows of its parts and bytes of each trajectory."""
    runs = records["trajectory"].rle().struct.unnest()
    sizes = records["bytes"].to_numpy()
    stops = np.cumsum(runs["len"].to_numpy().astype(np.int64)).tolist()
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        of_trajectory = sizes[start:stop]
        # The part that a frame lies in follows from the bytes before it alone, so every run cuts at the same frames.
        part = (np.cumsum(of_trajectory) - of_trajectory) // shard_bytes
        cuts = (start + np.flatnonzero(np.diff(part, prepend=-1))).tolist()
        yield start, stop, cuts, int(of_trajectory.sum())


def write_shard(
    store: Store,
    plan: ShardPlan,
    records: pl.DataFrame,
    source: Source,
    settings: BuildSettings,
    plan_hash: str,
) -> None:
    """Write and seal one shard; one that is sealed already under the same plan is left as it is.

    The tar stands under its name before its Parquet, whose presence seals the shard.

    Args:
        store: Where the dataset is built.
        plan: The shard.
        records: The plan's rows of the listing, halo rows first.
        source: The opened dump.
        settings: Settings of the build.
        plan_hash: Hash of the version's plan.

    Raises:
        InputError: If the dump changed during the build.
        OutputError: If the store refuses.
    """
    if read_seal(store, plan, plan_hash) is not None:
        return
    written = _Written()
    with (
        store.writing(f"{SHARDS}/{plan.name}") as temporary,
        temporary.open("wb") as file,
        step(f"seal {plan.name}", records.height, "frame") as advance,
    ):
        tar = TarWriter(file)
        for index, record in enumerate(records.select(_SAMPLE_COLUMNS).iter_rows(named=True)):
            _write_frame(tar, index, record, source, settings, written, halo=index < plan.halo)
            advance(index + 1)
        digest = tar.finish()
    seal = {"bytes": tar.size, "hash": digest, "plan": plan_hash, "quarantined": written.bad}
    table, metadata = written.table(records, plan.number), {_SHARD_METADATA: json.dumps(seal)}
    with store.writing(f"{SHARDS}/{plan.table}") as temporary, parquet_writer(temporary, table.schema, metadata) as put:
        put(table)


def read_seal(store: Store, plan: ShardPlan, plan_hash: str) -> Seal | None:
    """Read the seal of a shard from the footer of its Parquet.

    Returns:
        None when the shard is absent or its footer damaged, was sealed under another plan, or its tar has another size.
    """
    name = f"{SHARDS}/{plan.table}"
    size = store.size(name)
    if size is None:
        return None
    seal = _parse_seal(_read_end(store, name, size))
    return seal if seal is not None and _is_sealed(store, plan, plan_hash, seal) else None


def read_seals(store: Store, plans: Iterable[ShardPlan], plan_hash: str) -> list[Seal | None]:
    """Read the seals of many shards, one a shard, as `read_seal` does; of a remote store several at a time."""
    return list(_in_order(store, plans, lambda plan: read_seal(store, plan, plan_hash)))


def read_sealed_shards(store: Store, plans: Iterable[ShardPlan], plan_hash: str) -> "Iterator[SealedShard | None]":
    """Read shards with their frames as `read_sealed` does, in order; of a remote store several at a time."""
    return _in_order(store, plans, lambda plan: read_sealed(store, plan, plan_hash))


def _in_order(store: Store, plans: Iterable[ShardPlan], read: Callable[[ShardPlan], Result]) -> Iterator[Result]:
    """Yield what `read` gives for each shard, in order, a few requests to a remote store ahead."""
    if store.is_local:
        yield from map(read, plans)
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="seals") as pool:
        for plan in plans:
            ahead.append(pool.submit(read, plan))
            # No more than can be asked for at once, so that memory does not grow with the number of shards.
            if len(ahead) == REQUESTS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _is_sealed(store: Store, plan: ShardPlan, plan_hash: str, seal: Seal) -> bool:
    """Whether a seal is one of this plan, and its tar is there."""
    return seal.plan == plan_hash and store.size(f"{SHARDS}/{plan.name}") == seal.bytes


def read_sealed(store: Store, plan: ShardPlan, plan_hash: str) -> SealedShard | None:
    """Read a sealed shard with its frames.

    Args:
        store: The dataset's store.
        plan: The shard's part of the plan.
        plan_hash: Hash of the plan that it must be sealed under.

    Returns:
        None when the shard is absent or damaged, was sealed under another plan, or its tar has another size.
    """
    name = f"{SHARDS}/{plan.table}"
    if store.size(name) is None:
        return None
    # Read once: the hash of a seal and the rows in it are then those of the same bytes.
    data = store.read_bytes(name)
    seal = _parse_seal(data)
    if seal is None or not _is_sealed(store, plan, plan_hash, seal):
        return None
    try:
        frames = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError:
        # Damaged since. Its footer may be whole and count as a seal: without it the same build writes the shard again.
        store.remove(name)
        return None
    return SealedShard(seal, xxh3_hex(data), frames)


def sealed_under(store: Store, shard: str) -> str | None:
    """Read the hash of the plan that a shard, such as part-000000.tar, was sealed under; None without a whole seal."""
    name = f"{SHARDS}/{seal_name(shard)}"
    size = store.size(name)
    seal = None if size is None else _parse_seal(_read_end(store, name, size))
    return None if seal is None else seal.plan


def _read_end(store: Store, name: str, size: int) -> bytes:
    """The end of a Parquet file of `size` bytes with all of its footer."""
    end = store.read(name, max(0, size - FOOTER_BYTES), min(size, FOOTER_BYTES))
    # Parquet ends with the length of the footer (four bytes, little-endian) and the letters PAR1.
    length = int.from_bytes(end[-8:-4], "little") + 8
    return end if length <= len(end) or length > size else store.read(name, size - length, length)


def _parse_seal(end: bytes) -> Seal | None:
    """Parse the seal in the end of a Parquet file, None where it is damaged."""
    try:
        # The footer is found from the end of the file, so the end alone is read like a file.
        return Seal(**json.loads(pq.read_metadata(io.BytesIO(end)).metadata[_SHARD_METADATA.encode()]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException):
        return None


@dataclass
class _Written:
    """What a shard holds so far.

    Attributes:
        rows: Row of the listing of each stored frame.
        locations: Offset, length, width, height and hash of each stored frame.
        bad: Quarantine rows of the frames that could not be stored.
    """

    rows: list[int] = field(default_factory=list)
    locations: list[tuple[int, int, int, int, bytes]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def table(self, records: pl.DataFrame, shard: int) -> pl.DataFrame:
        """Join the stored frames' records and their locations."""
        types = table_contract("frames").polars_schema()
        columns = {name: types[name] for name in _LOCATION_COLUMNS}
        locations = pl.DataFrame(self.locations, schema=columns, orient="row")
        table = pl.concat([records.drop("bytes")[self.rows], locations], how="horizontal")
        return table.with_columns(pl.lit(shard, types["shard"]).alias("shard"))


def _write_frame(
    tar: TarWriter,
    index: int,
    record: dict[str, Any],
    source: Source,
    settings: BuildSettings,
    written: _Written,
    *,
    halo: bool,
) -> None:
    """Add one frame's two members to the tar and record its location, or its reason; halo frames are not recorded."""
    try:
        image = prepare_frame(read_image(source, record["source"]), settings)
    except BadImageError as error:
        if not halo:
            identity = {name: record[name] for name in ("source", "key", "trajectory", "position")}
            written.bad.append({**identity, "reason": error.reason, "message": str(error)})
        return
    offset = tar.add(f"{record['key']}.{image.suffix}", image.data)
    tar.add(f"{record['key']}.json", _sample_json(record, halo=halo))
    if not halo:
        written.rows.append(index)
        digest = bytes.fromhex(xxh3_hex(image.data))
        written.locations.append((offset, len(image.data), image.width, image.height, digest))


def prepare_frame(image: bytes | Pixels, settings: BuildSettings) -> StoredImage:
    """Prepare an image as the settings store it.

    Args:
        image: Bytes of a file, or RGB pixels uint8 (H, W, 3).
        settings: Check, size and quality.

    Raises:
        BadImageError: If it cannot be stored.
    """
    return prepare(
        image,
        keep_png=settings.keep_png,
        check=settings.check,
        short_side=settings.short_side,
        quality=settings.quality,
    )


def read_image(source: Source, name: str) -> bytes | Pixels:
    """Read one frame of the dump.

    Args:
        source: The dump.
        name: The record's `source`.

    Raises:
        InputError: If it is gone.
        BadImageError: If only this file is damaged.
    """
    try:
        return source.read(name)
    except (FileNotFoundError, KeyError) as error:
        raise InputError(f"{name}: vanished from the dump while it was being built; start the build again") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); {AGAIN}") from error


def _sample_json(record: dict[str, Any], *, halo: bool) -> bytes:
    """Write the sample's JSON for plain WebDataset readers, at most one tar block; Parquet is authoritative."""
    sample = {
        "key": record["key"],
        "trajectory": record["trajectory"],
        "position": record["position"],
        # Seven decimals are a centimetre; the tables hold the full number.
        "lat": round(record["latitude"], 7),
        "lon": round(record["longitude"], 7),
        "time": record["time"],
    }
    if halo:
        sample["halo"] = True
    if record["panorama"]:
        sample["panorama"] = True
    # Without blanks and escapes the text stays within one tar block of 512 bytes.
    return json.dumps(sample, separators=(",", ":"), ensure_ascii=False).encode()

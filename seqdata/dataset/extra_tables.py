"""Tables added to a sealed dataset: windows and truth of other lengths, spacings and protocols, shards untouched.

They lie below `added/<first 12 digits of the dataset's id>/`, so that the tables of one version of a dataset never pass
for another's. One JSON file a protocol lists them with their hashes; it is written last, by rename, and the dataset's
own manifest and id stay what they are.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from seqdata.contracts.manifest import ADDED, DatasetManifest, TableInfo
from seqdata.contracts.protocol import Protocol
from seqdata.contracts.records import Frozen, describe_first
from seqdata.errors import ContractError
from seqdata.sequences.sequencer import Sequencer
from seqdata.sequences.tables import PlannedTable, planned_tables, positives_name, reach
from seqdata.storage.files import json_bytes
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table


class AddedTables(Frozen):
    """What was added for one protocol: the dataset's id, the protocol, the tables by name with path, size and hash."""

    schema_version: Literal[1] = 1
    kind: Literal["tables"] = "tables"
    dataset: str
    protocol: Protocol
    tables: dict[str, TableInfo] = Field(default_factory=dict)


def folder_of(dataset_id: str) -> str:
    """Where the tables added to a dataset lie."""
    return f"{ADDED}/{dataset_id[:12]}"


def read_added(store: Store, dataset_id: str, protocol: Protocol) -> AddedTables:
    """The tables that were added to a dataset for a protocol, possibly none. Raises: ContractError when damaged."""
    name = f"{folder_of(dataset_id)}/{protocol.hash}.json"
    if store.size(name) is None:
        return AddedTables(dataset=dataset_id, protocol=protocol)
    return _parse(store, name)


def table_infos(store: Store, dataset_id: str) -> dict[str, TableInfo]:
    """Every table that was added to a dataset, by its path in the store: what `verify` hashes besides the manifest's.

    Raises: ContractError when a list is damaged.
    """
    lists = [_parse(store, name) for name in store.names(folder_of(dataset_id)) if name.endswith(".json")]
    return {info.path: info for added in lists for info in added.tables.values()}


def pairs_path(
    store: Store, tables: dict[str, TableInfo], protocol: Protocol, split: str, radius: float
) -> Path | None:
    """Where pairs of a split that reach `radius` or farther are stored, if any of `tables` holds them.

    Raises: as `local_table`.
    """
    own = positives_name(protocol, split)
    for name, info in tables.items():
        if name == own or name.startswith(f"{own.removesuffix('.parquet')}@"):
            path = local_table(store, info.path, info)
            if reach(path, protocol, split) >= radius:
                return path
    return None


def add_tables(
    store: Store, manifest: DatasetManifest, sequencer: Sequencer, protocol: Protocol, max_radius: float | None = None
) -> AddedTables:
    """Add tracks, windows, positives and nearest distances of a protocol; what is there already stays.

    Pairs reach the greatest of `max_radius` (default 25, in the protocol's unit) and the protocol's radii. Tables that
    the dataset or an earlier call holds are not written again.
    Raises: ContractError when the protocol wants another spacing rule, OutputError where the store refuses.
    """
    own = manifest.tables
    written = {Path(path).name: info for path, info in table_infos(store, manifest.id).items()}
    written = {name: info for name, info in written.items() if store.size(info.path) == info.bytes}
    listed = read_added(store, manifest.id, protocol).tables
    tables = {name: info for name, info in listed.items() if name in written}
    for table in planned_tables(sequencer, protocol, max_radius):
        if table.split and pairs_path(store, {**own, **tables}, protocol, table.split, table.radius):
            continue
        name = f"{table.name.removesuffix('.parquet')}@{table.radius:g}.parquet" if table.split else table.name
        if name not in own:
            tables[name] = written.get(name) or _write_table(store, f"{folder_of(manifest.id)}/{name}", table)
    made = AddedTables(dataset=manifest.id, protocol=protocol, tables=tables)
    with store.writing(f"{folder_of(manifest.id)}/{protocol.hash}.json") as path:
        path.write_bytes(json_bytes(made.model_dump(mode="json")))
    return made


def _write_table(store: Store, name: str, table: PlannedTable) -> TableInfo:
    """Write a table into the store and describe it."""
    with store.writing(name) as path:
        table.write(path)
        return TableInfo.measure(name, path)


def _parse(store: Store, name: str) -> AddedTables:
    try:
        return AddedTables.model_validate(store.read_json(name))
    except ValidationError as error:
        raise ContractError(f"{store}/{name}: {describe_first(error)}; remove it and run seqdata sequences") from error

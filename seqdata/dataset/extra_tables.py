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
from seqdata.contracts.table_files import check_footer
from seqdata.errors import ContractError
from seqdata.parallel.steps import step
from seqdata.sequences.sequencer import Sequencer
from seqdata.sequences.tables import PlannedTable, planned_tables, positives_name, reach
from seqdata.storage.files import json_bytes
from seqdata.storage.names import FlatName
from seqdata.storage.store import Store
from seqdata.storage.table_cache import local_table


class AddedTables(Frozen):
    """What was added for one protocol.

    Attributes:
        schema_version: Version of this list's schema.
        kind: Kind of the file.
        dataset: Id of the dataset's version.
        protocol: The protocol.
        tables: The tables by name.
    """

    schema_version: Literal[1] = 1
    kind: Literal["tables"] = "tables"
    dataset: str
    protocol: Protocol
    tables: dict[FlatName, TableInfo] = Field(default_factory=dict)


def folder_of(dataset_id: str) -> str:
    """Name the folder of the tables that were added to a dataset."""
    return f"{ADDED}/{dataset_id[:12]}"


def read_added(store: Store, dataset_id: str, protocol: Protocol) -> AddedTables:
    """Read the list of tables that were added for a protocol.

    Args:
        store: The dataset's store.
        dataset_id: Id of the dataset's version.
        protocol: The protocol.

    Returns:
        The list; an empty one where nothing was added.

    Raises:
        ContractError: If it is damaged.
    """
    name = f"{folder_of(dataset_id)}/{protocol.hash}.json"
    if store.size(name) is None:
        return AddedTables(dataset=dataset_id, protocol=protocol)
    return _parse(store, name)


def table_infos(store: Store, dataset_id: str) -> dict[str, TableInfo]:
    """Read every table that was added to a dataset, by its path in the store, for `verify`.

    Raises:
        ContractError: If a list is damaged.
    """
    lists = [_parse(store, name) for name in store.names(folder_of(dataset_id)) if name.endswith(".json")]
    return {info.path: info for added in lists for info in added.tables.values()}


def pairs_path(
    store: Store, tables: dict[str, TableInfo], protocol: Protocol, split: str, radius: float
) -> Path | None:
    """Find the table of a split's pairs that reach `radius` or farther.

    Args:
        store: The dataset's store.
        tables: Tables of the dataset by name.
        protocol: The protocol.
        split: Name of the split.
        radius: How far the pairs must reach, in the protocol's unit.

    Returns:
        Local path of the table, its footer checked; None where no stored one reaches that far.

    Raises:
        ContractError: If a table is damaged.
    """
    own = positives_name(protocol, split)
    for name, info in tables.items():
        if name == own or name.startswith(f"{own.removesuffix('.parquet')}@"):
            path = local_table(store, info.path, info)
            check_footer("positives", path, info.rows)
            if reach(path, protocol, split) >= radius:
                return path
    return None


@step("cut windows and their truth")
def add_tables(
    store: Store, manifest: DatasetManifest, sequencer: Sequencer, protocol: Protocol, max_radius: float | None = None
) -> AddedTables:
    """Add tracks, windows, positives and nearest distances of a protocol; tables that are there already stay.

    Args:
        store: The dataset's store.
        manifest: Manifest of the dataset's version.
        sequencer: Windows over its frames.
        protocol: The protocol.
        max_radius: How far pairs reach where that is farther than the protocol's radii, in its unit; default 25.

    Returns:
        The list of added tables, as it is stored.

    Raises:
        ContractError: If the protocol needs another spacing rule.
        OutputError: If the store refuses.
    """
    own = manifest.tables
    written = {Path(path).name: info for path, info in table_infos(store, manifest.id).items()}
    # A file of another size was left by a killed call: it is written again.
    written = {name: info for name, info in written.items() if store.size(info.path) == info.bytes}
    listed = read_added(store, manifest.id, protocol).tables
    tables = {name: info for name, info in listed.items() if name in written}
    for table in planned_tables(sequencer, protocol, max_radius):
        if table.split and pairs_path(store, {**own, **tables}, protocol, table.split, table.radius):
            continue
        # Pairs that reach farther stand beside shorter ones, under a name with their radius.
        name = f"{table.name.removesuffix('.parquet')}@{table.radius:g}.parquet" if table.split else table.name
        if name not in own:
            tables[name] = written.get(name) or _write_table(store, f"{folder_of(manifest.id)}/{name}", table)
    added = AddedTables(dataset=manifest.id, protocol=protocol, tables=tables)
    # Last: a table counts only once it is listed, so a killed call leaves nothing that is read.
    with store.writing(f"{folder_of(manifest.id)}/{protocol.hash}.json") as path:
        path.write_bytes(json_bytes(added.model_dump(mode="json")))
    return added


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

"""Contracts are data: tables, protocols, manifests; and their errors name file, field and what to do."""

import json
from pathlib import Path

import polars as pl
import pytest

import seqdata
from indexer.localizer import pack
from indexer.versions import manifest as index_manifest
from seqdata import protocols
from seqdata.contracts import manifest
from seqdata.contracts.manifest import read_manifest
from seqdata.contracts.tables import TYPES, schema_root, table_contract
from seqdata.errors import ContractError, InputError

TABLES = sorted(path.stem for path in (schema_root() / "tables").glob("*.toml"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_contract_is_complete(name: str) -> None:
    contract = table_contract(name)
    assert contract.name == name
    assert all(column.type in TYPES and column.meaning for column in contract.columns)
    names = [column.name for column in contract.columns]
    assert len(set(names)) == len(names)
    empty = pl.DataFrame(schema=contract.polars_schema())
    contract.validate(empty, file="empty.parquet")


def test_a_broken_table_is_named_down_to_the_column() -> None:
    contract = table_contract("positives")
    good = pl.DataFrame(schema=contract.polars_schema())
    with pytest.raises(ContractError, match=r"p.parquet: column 'database' is missing"):
        contract.validate(good.drop("database"), "p.parquet")
    with pytest.raises(ContractError, match=r"column 'query' has type Int64, the positives table needs int32"):
        contract.validate(good.cast({"query": pl.Int64}), "p.parquet")
    row = pl.DataFrame({name: [None] for name in good.columns}, schema=good.schema)
    with pytest.raises(ContractError, match="empty values"):
        contract.validate(row, "p.parquet")


def test_the_datasets_tables_keep_their_contracts(dataset: seqdata.Dataset) -> None:
    for name in dataset.manifest.tables:
        kind = name.split(".")[0].split("-")[0]
        table = pl.read_parquet(dataset.path / name)
        table_contract(kind).validate(table, dataset.path / name)
        assert table.columns == [column.name for column in table_contract(kind).columns]


def test_manifest_schemas_equal_the_models() -> None:
    schemas = {
        **manifest.json_schemas(),
        **index_manifest.json_schemas(),
        **pack.json_schemas(),
    }
    folder = schema_root() / "manifests"
    stored = {path.name.removesuffix(".schema.json"): json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert stored == schemas, "write them again: python docs/write_schemas.py"


@pytest.mark.parametrize("name", protocols.names())
def test_every_shipped_protocol_loads_and_has_a_hash(name: str) -> None:
    protocol = protocols.load(name)
    assert protocol.name == name
    assert protocol.title
    assert len(protocol.hash) == 12
    assert protocol.train.positive_radius <= protocol.train.negative_radius


def test_a_protocols_hash_follows_what_decides_a_number_and_nothing_else() -> None:
    protocol = protocols.load("msls-seqvlad")
    assert protocol.model_copy(update={"title": "another", "expected_counts": {}}).hash == protocol.hash
    for change in ({"radius": 20.0}, {"rule": "all"}, {"length": 10}, {"panoramas": "keep"}, {"pool": "each"}):
        assert protocol.model_copy(update=change).hash != protocol.hash


def test_the_papers_splits() -> None:
    training = set(protocols.load("msls-seqvlad").splits["train"].cities or ())
    assert len(training) == 20
    assert not training & {"amsterdam", "manila", "cph", "sf"}
    assert protocols.load("msls-sta").pool == "each"
    assert protocols.load("nordland-tenth").splits["test"].positions == (1900, 2761)


def test_a_datasets_own_protocol_wins_over_a_shipped_one_of_its_name(drives: Path, tmp_path: Path) -> None:
    from seqdata.build.builder import BuildRequest, build

    mine = protocols.load("own").model_copy(update={"radius": 5.0})
    build(BuildRequest("folder", drives, tmp_path / "out", protocol=mine))
    assert seqdata.open(tmp_path / "out").load_protocol("own").radius == 5.0
    assert seqdata.open(tmp_path / "out").load_protocol("msls-sta").radius == 20.0


def test_the_public_name_is_the_module_of_protocols() -> None:
    assert seqdata.protocols is protocols
    assert "msls-seqvlad" in seqdata.protocols.names()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("name = 'x'", ContractError, "field 'source'"),
        ("name = 'x'\nsource = 'own'\nradius = -1\n[splits.test]", ContractError, "field 'radius'"),
        ("name = 'x'\nsource = 'own'\nraduis = 2\n[splits.test]", ContractError, "raduis"),
        ("name = ", InputError, "not readable as TOML"),
        ("name = 'x'\nsource = 'own'\n[splits]", ContractError, "field 'splits'"),
        ("name = 'x'\nsource = 'own'\n[splits.'../evil']", ContractError, "splits"),
        ("name = 'x'\nsource = 'own'\n[splits.test]\npositions = [10, 5]", ContractError, "must rise"),
    ],
)
def test_a_wrong_protocol_file_is_one_line(text: str, error: type, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(error, match=words) as raised:
        protocols.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_names_list_what_there_is(dataset: seqdata.Dataset) -> None:
    with pytest.raises(ContractError, match="msls-seqvlad"):
        protocols.load("msls")
    with pytest.raises(ContractError, match="it has test"):
        dataset.sequences("own", "train")
    with pytest.raises(ContractError, match="needs a protocol"):
        dataset.sequences(split="train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 4}, "schema version 4"),
        ({"kind": "index"}, "another kind"),
        ({"shards": "none"}, "field 'shards'"),
    ],
)
def test_a_broken_manifest_is_named(change: dict, words: str, dataset: seqdata.Dataset, tmp_path: Path) -> None:
    data = json.loads((dataset.path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(ContractError, match=words):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        read_manifest(tmp_path)


def test_stored_positives_equal_computed_ones(msls_dump: Path, tmp_path: Path) -> None:
    from seqdata.build.builder import BuildRequest, build

    protocol = protocols.load(msls_dump / "protocol.toml")
    build(BuildRequest("msls", msls_dump, tmp_path / "with", protocol=protocol))
    build(BuildRequest("msls", msls_dump, tmp_path / "without"))
    stored, bare = seqdata.open(tmp_path / "with"), seqdata.open(tmp_path / "without")
    assert [name for name in stored.manifest.tables if name.startswith("positives")]
    assert stored.id != bare.id
    for split in protocol.splits:
        assert stored.protocol_positives(protocol, split).equals(bare.protocol_positives(protocol, split))
        assert stored.protocol_positives("demo-city", split).height > 0

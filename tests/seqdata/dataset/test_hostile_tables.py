"""Tables that a stranger wrote, with their right size, hash and rows listed: an answer or one line, no traceback."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.table_files import read_table
from seqdata.contracts.tables import table_contract
from seqdata.dataset.info import describe
from seqdata.errors import ContractError, SeqdataError
from seqdata.storage.hashing import xxh3_file
from tests.conftest import write_drives

Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    raw = write_drives(folder / "raw", {"map": 20, "query": 12})
    build(BuildRequest("folder", raw, folder / "dataset", protocol=protocols.load("own")))
    return folder / "dataset"


def changed(column: str, value: object) -> Change:
    """Put a value into every row of a column, in the column's own type where it fits."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        dtype = table.schema[column] if not isinstance(value, str) else pl.String
        return table.with_columns(pl.lit(value).cast(dtype).alias(column))

    return change


CHANGES: dict[str, Change] = {
    "no rows": lambda table: table.clear(),
    "no columns": lambda table: table.select([]),
    "one row": lambda table: table.head(1),
    "another table": lambda _: pl.DataFrame({"a": [1]}),
    "rows twice": lambda table: pl.concat([table, table]),
    "all text": lambda table: table.with_columns(pl.all().exclude(pl.Binary).cast(pl.String)),
    "all null": lambda table: table.with_columns(pl.all().shift(table.height)),
    "lists": lambda table: table.with_columns(pl.concat_list(pl.col(table.columns[0])).alias(table.columns[0])),
}  # fmt: skip
FRAMES: dict[str, Change] = {
    "negative offset": changed("offset", -5),
    "huge offset": changed("offset", (1 << 63) - 1),
    "huge length": changed("length", (1 << 31) - 1),
    "negative length": changed("length", -1),
    "a shard that is not there": changed("shard", 999),
    "negative shard": changed("shard", -1),
    "short hashes": changed("hash", b"x"),
    "positions below 0": changed("position", -3),
    "latitudes off the globe": changed("latitude", 1e9),
    "eastings that are no number": changed("easting", float("nan")),
    "eastings without end": changed("easting", float("inf")),
    "text for a number": changed("easting", "here"),
    "one key for all": changed("key", "\x1b[2J"),
    "no role": changed("role", None),
    "zones of nowhere": changed("zone", "99Q"),
}
PAIRS: dict[str, Change] = {
    "rows beyond the windows": changed("database", 1 << 30),
    "rows below 0": changed("query", -1),
    "distances that are no number": changed("min_distance", float("nan")),
}


def uses(place: Path) -> Iterator[Callable[[], object]]:
    """What a program does with a dataset, one by one."""
    own = protocols.load("own")
    split = next(iter(own.splits))
    yield lambda: seqdata.open(place)
    try:
        dataset = seqdata.open(place)
    except SeqdataError:
        return
    yield lambda: describe(dataset)
    yield lambda: dataset.sequences(length=5)
    yield lambda: dataset.sequences(own, split, "query")
    yield lambda: dataset.read_frames([0, 1])
    yield lambda: dataset.stream(dataset.sequences(length=5))[0]
    yield lambda: dataset.frame_key(0)
    yield lambda: (dataset.quarantine, dataset.trajectories)
    yield lambda: dataset.places(dataset.sequences(own, split, "database"))
    yield lambda: dataset.protocol_positives(own, split)
    yield lambda: dataset.protocol_pairs(own, split)
    yield lambda: dataset.answerable(own, split)
    yield lambda: dataset.nearest(own, split)


def listed(place: Path, name: str) -> None:
    """Make the manifest agree with a table's file."""
    manifest = json.loads((place / "manifest.json").read_text())
    path = place / name
    entry = {"path": name, "bytes": path.stat().st_size, "hash": xxh3_file(path)}
    rows = manifest["tables"][name]["rows"]
    with suppress(pl.exceptions.PolarsError, pl.exceptions.PanicException):
        rows = pl.read_parquet(path, columns=[]).height if pl.read_parquet_schema(path) else 0
    manifest["tables"][name] = {**entry, "rows": rows}
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "manifest.sha256").unlink(missing_ok=True)


@pytest.mark.parametrize("table", ["frames", "trajectories", "quarantine", "positives", "nearest"])
def test_hostile_tables_end_in_an_answer_or_one_line(built: Path, tmp_path: Path, table: str) -> None:
    name = next(path.name for path in sorted(built.glob(f"{table}*.parquet")))
    whole = pl.read_parquet(built / name)
    refused: dict[str, int] = {}
    for title, change in {**CHANGES, **({"frames": FRAMES, "positives": PAIRS}.get(table, {}))}.items():
        place = tmp_path / title.replace(" ", "-")
        shutil.copytree(built, place)
        change(whole).write_parquet(place / name)
        listed(place, name)
        refused[title] = 0
        for use in uses(place):
            try:
                use()
            except SeqdataError as error:
                refused[title] += 1
                assert "\n" not in str(error)
    silent = {title for title, count in refused.items() if not count}
    # These are tables of their contract; what they say is merely wrong, or about fewer rows.
    harmless = {"no rows", "one row", "rows twice", "one key for all", "no role", "zones of nowhere"}
    harmless |= {"distances that are no number", "huge length"} | ({"all null"} if table == "positives" else set())
    assert silent <= harmless | ({"another table", *CHANGES} if table == "quarantine" and not whole.height else set())


def test_hostile_bytes_end_in_one_line(built: Path, tmp_path: Path) -> None:
    whole = (built / "frames.parquet").read_bytes()
    for number, data in enumerate(
        (b"", b"PAR1", b"PAR1PAR1", whole[:-1], whole[100:], b"\0" * 500, whole[:-8] + b"\xff" * 4 + b"PAR1")
    ):
        place = tmp_path / str(number)
        shutil.copytree(built, place)
        (place / "frames.parquet").write_bytes(data)
        listed(place, "frames.parquet")
        for use in uses(place):
            try:
                use()
            except SeqdataError as error:
                assert "frames.parquet" in str(error)


def test_columns_are_checked_within_their_bounds(tmp_path: Path) -> None:
    contract = table_contract("nearest")
    good = contract.conform(pl.DataFrame({"query": [0, 1], "min_distance": [1.0, None], "centre_distance": [1.0, 2.0]}))
    good.write_parquet(tmp_path / "nearest.parquet")
    assert read_table("nearest", tmp_path / "nearest.parquet", 2).equals(good)
    with pytest.raises(ContractError, match="holds 2 rows, its manifest says 3"):
        read_table("nearest", tmp_path / "nearest.parquet", 3)
    with pytest.raises(ContractError, match="column 'query' has values that are not from 0"):
        contract.validate(good.with_columns(pl.lit(-1, pl.Int32).alias("query")), "t")
    bounded = [column for column in table_contract("places").columns if column.maximum is not None]
    assert {column.name for column in bounded} == {"latitude", "longitude", "easting", "northing"}
    assert not any(column.bounds_hold(pl.Series([np.nan])) for column in bounded)

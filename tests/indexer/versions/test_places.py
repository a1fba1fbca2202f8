"""The places of answers: of a large table the row groups that are shown, the same as of a small one read whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import indexer
from indexer.localizer.places import nearest_places
from indexer.versions import places as place_tables
from indexer.versions.manifest import PLACES
from seqdata.errors import ContractError
from tests.support.indexes import make_places

ROWS = 200


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index whose places count as large: row groups of 16, pages with checksums."""
    monkeypatch.setattr(place_tables, "WHOLE_BYTES", 0)
    monkeypatch.setattr("indexer.versions.publish.WHOLE_BYTES", 0)
    monkeypatch.setattr("indexer.versions.publish.GROUP_ROWS", 16)
    monkeypatch.setattr("seqdata.storage.parquet.WHOLE_BYTES", 0)
    vectors = np.arange(ROWS, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    return indexer.build(
        tmp_path / "index", blocks=iter([vectors]), places=make_places(ROWS), transform=None, inputs={"by": "us"}
    )


def test_answers_read_the_row_groups_of_their_places(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = indexer.open(large)
    assert pq.read_metadata(large / PLACES).num_row_groups == 13
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda file, group, **more: read.append(group) or whole(file, group, **more)
    )
    (places,) = nearest_places(index, np.full((1, 4), 100.2, np.float32), 3)
    assert [place["key"] for place in places] == ["k000100", "k000101", "k000099"]
    assert read == [6]
    rows = np.array([199, 0, 17, 16, 15, 199, 40])
    assert index.places_of(rows).equals(index.places.take(rows))
    assert read == [6, 0, 1, 2, 12]  # each once, and none twice


def test_few_row_groups_stay_in_memory(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_tables, "OPEN_GROUPS", 2)
    index = indexer.open(large)
    rows = np.arange(ROWS)
    assert index.places_of(rows).equals(index.places.take(rows))
    assert list(index._places._groups) == [11, 12]


def test_a_damaged_page_of_a_large_table_is_named(large: Path) -> None:
    path = large / PLACES
    footer = pq.read_metadata(path)
    column = footer.row_group(6).column(footer.schema.names.index("northing"))
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 8] ^= 1
    path.write_bytes(data)
    index = indexer.open(large)
    index.places_of(np.array([3]))  # another row group is whole
    with pytest.raises(ContractError, match=rf"{PLACES}: not readable as a table of places"):
        index.places_of(np.array([100]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9] + bytes(9), "not readable as a table of places"),
        (lambda data: data[:-9], "bytes, its manifest says"),
    ],
)
def test_a_damaged_footer_of_a_large_table_is_named(
    large: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = large / PLACES
    index = indexer.open(large)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ContractError, match=rf"{PLACES}.*{message}"):
        index.places_of(np.array([100]))


def test_no_rows_of_a_large_table_are_no_places(large: Path) -> None:
    assert len(indexer.open(large).places_of(np.empty(0, np.int64))) == 0

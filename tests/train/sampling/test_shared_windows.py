"""A training over mapped tables sees what it sees over tables in memory."""

from pathlib import Path

import numpy as np
import pytest

from seqdata.dataset import dataset as dataset_module
from seqdata.dataset.dataset import open as open_dataset
from seqdata.storage import table_cache
from tests.support.street import build_street, write_street
from train.sampling.mining import draw
from train.sampling.pairs import Radii
from train.sampling.windows import TrainData


def test_mapped_tables_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = build_street(write_street(tmp_path / "raw"), tmp_path / "dataset")
    protocol = plain.load_protocol("halves")
    expected = TrainData.from_split(plain, protocol, "test")
    pixels = plain.read_frames(np.arange(5))
    for module in (table_cache, dataset_module):
        monkeypatch.setattr(module, "SHARED_ROWS", 1)
    TrainData.from_split(open_dataset(tmp_path / "dataset"), protocol, "test")
    assert not (tmp_path / "cache").exists(), "one process alone leaves no file"
    # The second time nothing is computed: all is mapped.
    for _ in range(2):
        dataset = open_dataset(tmp_path / "dataset")
        dataset.share_tables()
        data = TrainData.from_split(dataset, protocol, "test")
        assert isinstance(data.frame_rows, np.memmap)
        np.testing.assert_array_equal(data.frame_rows, expected.frame_rows)
        assert data.queries.equals(expected.queries) and data.database.equals(expected.database)
        rows = np.array([3, len(data.queries) + 2, 0, len(data.queries)])
        assert data.pixel_windows(rows).equals(expected.pixel_windows(rows))
        assert data.sequence_ids(rows) == expected.sequence_ids(rows)
        radii = Radii(positive=7.0, negative=20.0)
        samples = [draw(of, data.queries, data.database, radii) for of in (dataset, plain)]
        np.testing.assert_array_equal(samples[0].query, samples[1].query)
        np.testing.assert_array_equal(np.concatenate(samples[0].positives), np.concatenate(samples[1].positives))
        reader = dataset.frame_reader()
        assert isinstance(reader.locations.offset.base, np.memmap)
        np.testing.assert_array_equal(reader.read(np.arange(5)), pixels)
    assert len(list((tmp_path / "cache" / "seqdata" / "shared").glob("*.arrow"))) == 3


def test_rows_are_selected_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    plain = build_street(write_street(tmp_path / "raw"), tmp_path / "dataset")
    data = TrainData.from_split(plain, plain.load_protocol("halves"), "test")
    count = len(data.queries) + len(data.database)
    rows = np.random.default_rng(0).permutation(count)
    np.testing.assert_array_equal(plain.frame_rows(data.pixel_windows(rows)), data.frame_rows[rows])
    assert data.pixel_windows(np.zeros(0, np.int64)).height == 0

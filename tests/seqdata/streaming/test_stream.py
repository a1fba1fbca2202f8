"""Streams in items: what an item says, any number of workers, bad frames, decodes counted."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import seqdata
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError


def test_items_say_what_they_are(dataset: Dataset) -> None:
    windows = dataset.sequences(length=5)
    item = dataset.stream(windows, seed=1)[3]
    row = windows.row(item["row"], named=True)
    assert item["trajectory"] == row["trajectory"]
    assert item["frames"].shape == (5, 3, 24, 32)
    assert (item["frames"] == dataset.read(windows, [item["row"]])[0]).all()
    assert (np.diff(item["positions"]) == 1).all()
    assert np.diff(item["easting"]) == pytest.approx([3.0] * 4)
    keys = dataset.frame_columns("key")["key"].to_numpy()[dataset.frame_rows(windows)[item["row"]]]
    assert item["keys"] == keys.tolist()
    assert not item["replaced"].any()


def test_the_words_for_an_order(dataset: Dataset) -> None:
    windows = dataset.sequences(length=3)
    rows = {
        word: [item["row"] for item in dataset.stream(windows, seed=2, shuffle=word)]
        for word in ("blocks", "global", True, "none", False)
    }
    assert rows["none"] == rows[False] == list(range(windows.height))
    assert rows["global"] == rows[True] != rows["blocks"]
    with pytest.raises(IndexError):
        dataset.stream(windows)[windows.height]
    with pytest.raises(ContractError, match="cpu, cuda"):
        dataset.stream(windows, device="tpu")


def test_the_order_is_the_same_for_any_number_of_workers(dataset: Dataset) -> None:
    from torch.utils.data import DataLoader

    windows = dataset.sequences(length=3)
    seen = {}
    for workers in (0, 1, 2):
        loader = DataLoader(dataset.stream(windows, seed=5, epoch=2), batch_size=4, num_workers=workers)
        seen[workers] = [(batch["row"].tolist(), int(batch["frames"].sum())) for batch in loader]
    assert seen[0] == seen[1] == seen[2]
    assert sorted(row for rows, _ in seen[0] for row in rows) == list(range(windows.height))


def test_a_loader_forks_workers_while_threads_read(dataset: Dataset) -> None:
    """The lock of the cache may be held in the parent at the fork; a worker must not wait for it."""
    from torch.utils.data import DataLoader

    stream = dataset.stream(dataset.sequences(length=3))
    with stream.batches(4) as batches, stream.cache._lock:
        loader = DataLoader(stream, batch_size=8, num_workers=1, timeout=20)
        rows = [row for batch in loader for row in batch["row"].tolist()]
    assert len(batches) and sorted(rows) == list(range(len(stream)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_keys_as_batches_do(dataset: Dataset, workers: int) -> None:
    """With as many windows a batch as frames a window, keys that were turned over would look right."""
    from torch.utils.data import DataLoader

    stream = dataset.stream(dataset.sequences(length=4), seed=2)
    with stream.batches(4) as batches:
        keys = [batch["keys"] for batch in batches]
    assert [batch["keys"] for batch in DataLoader(stream, batch_size=4, num_workers=workers)] == keys


def test_a_stream_can_be_sent_to_another_process(dataset: Dataset) -> None:
    stream = dataset.stream(dataset.sequences(length=3), seed=4)
    assert (stream[7]["frames"] == pickle.loads(pickle.dumps(stream))[7]["frames"]).all()


def test_each_frame_is_decoded_once_where_the_cache_suffices(cut_dataset: Dataset) -> None:
    windows = cut_dataset.sequences(length=10)
    frames = len(np.unique(cut_dataset.frame_rows(windows)))
    stream = cut_dataset.stream(windows)
    assert sum(len(item["frames"]) for item in stream) == 10 * windows.height
    assert stream.cache.decodes == frames
    tight = cut_dataset.stream(windows, cache_bytes=24 * 32 * 3 * 20)
    first = [item["frames"].sum() for item in tight]
    assert first == [item["frames"].sum() for item in stream]
    assert tight.cache.decodes > frames


@pytest.fixture
def damaged(dataset: Dataset, tmp_path: Path) -> Callable[..., Dataset]:
    """A copy of the dataset in which the bytes of some frames are spoilt: rows whole, `flipped` in one bit."""

    def damage(rows: list[int], flipped: tuple[int, ...] = ()) -> Dataset:
        copy = tmp_path / "copy"
        shutil.copytree(dataset.path, copy)
        places = dataset.frame_columns("shard", "offset", "length")
        for row in (*rows, *flipped):
            shard, offset, length = places.row(row)
            with (copy / "shards" / f"part-{shard:06d}.tar").open("r+b") as file:
                file.seek(offset + length - 40)
                byte = file.read(1)[0] ^ 1
                file.seek(offset + length - 40 if row in flipped else offset)
                file.write(bytes([byte]) if row in flipped else bytes(length))
        return seqdata.open(copy)

    return damage


def test_a_bad_frame_shows_its_nearest_good_neighbour(
    dataset: Dataset, damaged: Callable[..., Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    windows = dataset.sequences(length=5)
    bad = damaged([12, 13], flipped=(30,))
    whole, mended = dataset.stream(windows, seed=9), bad.stream(windows, seed=9)
    rows = dataset.frame_rows(windows)
    for wanted, item in zip(whole, mended, strict=True):
        assert item["row"] == wanted["row"]
        assert item["keys"] == wanted["keys"]
        frames = rows[item["row"]].tolist()
        assert item["replaced"].tolist() == [frame in (12, 13, 30) for frame in frames]
        good = [frame for frame in frames if frame not in (12, 13, 30)]
        shown = [min(good, key=lambda other: (abs(other - frame), other)) for frame in frames]
        assert (item["frames"] == dataset.read_frames(shown)).all()
    keys = dataset.frame_columns("key")["key"]
    assert set(mended.bad) == {keys[12], keys[13], keys[30]}
    assert "hash" in mended.bad[keys[30]]
    assert sum("seqdata verify" in record.message for record in caplog.records) == 3


def test_a_bad_window_takes_frames_of_its_trajectory(dataset: Dataset, damaged: Callable[..., Dataset]) -> None:
    windows = dataset.sequences(length=2)
    bad = damaged(list(range(38, 43)))  # the last two frames of the first drive, the first three of the second
    rows = dataset.frame_rows(windows)
    stream = bad.stream(windows, shuffle="none")
    at = {tuple(frames): number for number, frames in enumerate(rows.tolist())}
    assert (stream[at[38, 39]]["frames"] == dataset.read_frames([37, 37])).all()
    assert (stream[at[40, 41]]["frames"] == dataset.read_frames([43, 43])).all()
    assert stream[at[40, 41]]["replaced"].all()
    few = windows.filter(windows["trajectory"] == windows["trajectory"][at[40, 41]])[[0, 10]]
    assert (bad.stream(few, shuffle="none")[0]["frames"] == dataset.read_frames([50, 50])).all()


def test_reading_stays_strict_and_a_dead_trajectory_is_named(damaged: Callable[..., Dataset]) -> None:
    bad = damaged(list(range(40, 70)))
    windows = bad.sequences(length=5)
    with pytest.raises(ContractError, match="verify"):
        bad.read(windows, [windows.height - 1])
    with pytest.raises(ContractError, match="no frame of the trajectory"):
        bad.stream(windows, shuffle="none")[windows.height - 1]


def test_a_short_shard_is_an_error_every_time(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset.path, copy)
    shard = copy / "shards" / "part-000000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    stream = seqdata.open(copy).stream(dataset.sequences(length=5), shuffle="none")
    for _ in range(2):
        with pytest.raises(InputError, match="verify"):
            stream[40]

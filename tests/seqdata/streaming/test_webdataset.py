"""Plain webdataset and `seqdata.windows(L)` against the windows that the dataset's own tables give."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdata
from seqdata.errors import ContractError
from seqdata.streaming import webdataset as pipeline


def plain(dataset: seqdata.Dataset, *stages: object) -> webdataset.WebDataset:
    urls = [str(dataset.path / "shards" / shard.name) for shard in dataset.manifest.shards]
    return webdataset.WebDataset(urls, shardshuffle=False, workersplitter=webdataset.split_by_worker).compose(*stages)


def key_windows(dataset: seqdata.Dataset, length: int) -> Counter[tuple[str, ...]]:
    rows = dataset.frame_rows(dataset.sequences(length=length))
    keys = dataset.frame_columns("key")["key"].to_numpy()
    return Counter(tuple(window) for window in keys[rows].tolist())


@pytest.mark.parametrize("length", range(1, 16))
def test_every_window_comes_exactly_once_across_shard_cuts(length: int, cut_dataset: seqdata.Dataset) -> None:
    met = Counter(tuple(each["keys"]) for each in plain(cut_dataset, seqdata.windows(length)))
    assert met == key_windows(cut_dataset, length)
    assert sum(met.values()) > 200 - 3 * length
    assert set(met.values()) == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_share_the_windows(workers: int, cut_dataset: seqdata.Dataset) -> None:
    from torch.utils.data import DataLoader

    loader = DataLoader(plain(cut_dataset, seqdata.windows(10)), batch_size=None, num_workers=workers)
    assert Counter(tuple(each["keys"]) for each in loader) == key_windows(cut_dataset, 10)


def test_more_workers_than_shards_are_allowed_as_the_docs_write_it(dataset: seqdata.Dataset) -> None:
    from torch.utils.data import DataLoader

    urls = [str(dataset.path / "shards" / shard.name) for shard in dataset.manifest.shards]
    windows = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).compose(seqdata.windows(5))
    loader = DataLoader(windows, batch_size=None, num_workers=len(urls) + 1)
    assert Counter(tuple(sequence["keys"]) for sequence in loader) == key_windows(dataset, 5)


def test_shards_in_any_order_and_shuffled_sequences(cut_dataset: seqdata.Dataset) -> None:
    urls = [str(cut_dataset.path / "shards" / shard.name) for shard in cut_dataset.manifest.shards]
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(urls).tolist()
        stream = webdataset.WebDataset(mixed, shardshuffle=False).compose(seqdata.windows(15)).shuffle(50)
        assert Counter(tuple(each["keys"]) for each in stream) == key_windows(cut_dataset, 15)


def test_a_sequence_holds_the_frames_of_its_keys(cut_dataset: seqdata.Dataset) -> None:
    frames = cut_dataset.frames.collect()
    rows = {key: row for row, key in enumerate(frames["key"])}
    for sequence in list(plain(cut_dataset, seqdata.windows(4)))[::40]:
        mine = frames[[rows[key] for key in sequence["keys"]]]
        raw = [(cut_dataset.path.parent / "raw" / name).read_bytes() for name in mine["source"]]
        assert sequence["frames"] == raw
        assert sequence["__key__"] == sequence["keys"][1], "the centre frame, index (L - 1) // 2"
        assert sequence["positions"].tolist() == mine["position"].to_list()
        assert sequence["positions"].dtype == np.int32
        assert mine["trajectory"].unique().to_list() == [sequence["trajectory"]]
        np.testing.assert_allclose(sequence["latitude"], mine["latitude"], atol=1e-7)
        np.testing.assert_allclose(sequence["longitude"], mine["longitude"], atol=1e-7)


def test_it_works_after_decode_too(cut_dataset: seqdata.Dataset) -> None:
    encoded = list(plain(cut_dataset, seqdata.windows(3)))
    decoded = list(plain(cut_dataset).decode("rgb8").compose(seqdata.windows(3)))
    assert [each["keys"] for each in decoded] == [each["keys"] for each in encoded]
    pixels = cut_dataset.read_frames([0, 1, 2]).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(np.stack(decoded[0]["frames"]).astype(int) - pixels).max() <= 3  # two decoders


def test_absent_frames_break_windows_and_stride_does_not_depend_on_shards(cut_dataset: seqdata.Dataset) -> None:
    gone = cut_dataset.frames.collect()["key"][60]
    expected = {window for window in key_windows(cut_dataset, 5) if gone not in window}
    assert {tuple(each["keys"]) for each in plain(cut_dataset, seqdata.windows(5, without=[gone]))} == expected
    every = list(plain(cut_dataset, seqdata.windows(5)))
    strided = [each["keys"] for each in plain(cut_dataset, seqdata.windows(5, 3))]
    assert strided == [each["keys"] for each in every if each["positions"][0] % 3 == 0]
    assert 0 < len(strided) < len(every) / 2


def test_withdrawn_frames_are_left_out_by_name(cut_dataset: seqdata.Dataset, tmp_path: Path) -> None:
    from seqdata.dataset.versions import withdraw, withdrawn

    shutil.copytree(cut_dataset.path, tmp_path / "copy")
    keys = cut_dataset.frames.collect()["key"]
    withdraw(tmp_path / "copy", [keys[44], keys[45], keys[120]], "a face")
    dataset = seqdata.open(tmp_path / "copy")
    met = Counter(tuple(each["keys"]) for each in plain(dataset, seqdata.windows(8, without=withdrawn(dataset))))
    assert met == key_windows(dataset, 8)
    assert len(met) < len(key_windows(cut_dataset, 8))


def test_panoramas_break_windows_as_in_the_tables(msls_dump: Path, tmp_path: Path) -> None:
    from seqdata.build.builder import BuildRequest, build

    build(BuildRequest("msls", msls_dump, tmp_path / "dataset"))
    dataset = seqdata.open(tmp_path / "dataset")
    panoramas = set(dataset.frames.filter("panorama").collect()["key"])
    assert panoramas
    met = Counter(tuple(each["keys"]) for each in plain(dataset, seqdata.windows(3)))
    assert met == key_windows(dataset, 3)
    kept = {key for each in plain(dataset, seqdata.windows(3, keep_panoramas=True)) for key in each["keys"]}
    assert kept & panoramas


def test_beyond_the_halo_is_refused(cut_dataset: seqdata.Dataset) -> None:
    with pytest.raises(ContractError, match=r"halo limit: shards repeat 14 frames, .* at most 15"):
        seqdata.windows(16)
    assert pipeline.windows(16, halo=20).length == 16
    for wrong in ((0, 1), (5, 0)):
        with pytest.raises(ContractError, match="at least 1"):
            seqdata.windows(*wrong)
    stranger = [{"__key__": "a", "__url__": "x.tar", "jpg": b""}]
    with pytest.raises(ContractError, match=r"x\.tar: sample a has no json"):
        list(seqdata.windows(1)(stranger))
    with pytest.raises(ContractError, match="no jpg or png"):
        list(seqdata.windows(1)([{"json": {"key": "a", "trajectory": "t", "position": 0, "lat": 0, "lon": 0}}]))


@settings(deadline=None, max_examples=60)
@given(
    present=st.lists(st.booleans(), min_size=1, max_size=40),
    cuts=st.sets(st.integers(1, 39)),
    length=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_any_gaps_and_cuts(present: list[bool], cuts: set[int], length: int, order: object) -> None:
    """Literal truth: runs of present positions; shards cut anywhere with a halo of 4 frames, in any order."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(present)), len(present)]
    shards = [list(_shard(present, start, stop, halo=4)) for start, stop in pairwise(edges)]
    order.shuffle(shards)  # type: ignore[attr-defined]
    samples = (sample for shard in shards for sample in shard)
    stage = pipeline.windows(length, halo=4)
    met = sorted(tuple(each["positions"].tolist()) for each in stage(samples))
    starts = range(len(present) - length + 1)
    assert met == [tuple(range(at, at + length)) for at in starts if all(present[at : at + length])]


def test_neither_another_trajectory_nor_another_shard_goes_on() -> None:
    """The next position of another drive, or of a shard without a halo, is no neighbour in any order of shards."""
    names = [("a", 3, "x"), ("a", 4, "x"), ("b", 5, "x"), ("b", 6, "x"), ("b", 7, "y"), ("b", 8, "y")]
    samples = [
        {
            "__url__": url,
            "jpg": b"",
            "json": {"key": f"{name}{at}", "trajectory": name, "position": at, "lat": 0, "lon": 0},
        }
        for name, at, url in names
    ]
    assert [each["keys"] for each in seqdata.windows(2)(samples)] == [["a3", "a4"], ["b5", "b6"], ["b7", "b8"]]


def _shard(present: list[bool], start: int, stop: int, halo: int) -> Iterator[dict]:
    for position in range(max(0, start - halo), stop):
        frame = {"key": f"k{position}", "trajectory": "t", "position": position, "lat": 0.0, "lon": 0.0}
        if position < start:
            frame["halo"] = True
        if present[position]:
            yield {"__key__": f"k{position}", "__url__": f"{start}.tar", "jpg": b"x", "json": frame}


def test_the_stage_needs_no_webdataset() -> None:
    code = (
        "import sys, seqdata; stage = seqdata.windows(5); assert stage.length == 5; "
        "assert not {'webdataset', 'torch', 'cv2'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""An epoch in batches: one global order for any ranks and threads, resume at any step, decodes counted, no leaks."""

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, MissingDependencyError
from seqdata.frames.buffers import Buffers
from seqdata.frames.reader import FrameReader
from seqdata.geometry import IntArray
from seqdata.storage.store import Store
from seqdata.streaming.batches import Batches
from seqdata.streaming.shuffle import LANES
from seqdata.streaming.stream import Stream
from tests.conftest import write_drives


def rows_of(batches: Batches) -> list[list[int]]:
    """The rows of each batch that is left; closes."""
    with batches:
        return [batch["row"].tolist() for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for rows in batches for row in rows]


def merged(parts: list[list[list[int]]]) -> list[list[int]]:
    """Batches of all ranks → batches of one rank: rank r holds every R-th window from r on."""
    world = len(parts)
    result = []
    for slices in zip(*parts, strict=True):
        whole = [0] * sum(map(len, slices))
        for rank, rows in enumerate(slices):
            whole[rank::world] = rows
        result.append(whole)
    return result


def test_batches_are_the_items_stacked(dataset: Dataset) -> None:
    stream = dataset.stream(dataset.sequences(length=4), seed=1)
    items = list(stream)
    at = 0
    with stream.batches(6) as batches:
        assert len(batches) == -(-len(items) // 6)
        for step, batch in enumerate(batches):
            some = items[at : at + 6]
            at += 6
            assert batch["step"] == step
            for name in ("frames", "row", "positions", "easting", "northing", "replaced"):
                assert (batch[name] == np.stack([item[name] for item in some])).all(), name
            for name in ("trajectory", "city", "role", "keys"):
                assert batch[name] == [item[name] for item in some], name
    assert at >= len(items)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_ranks_and_threads_give_the_unbroken_order_from_any_step(cut_dataset: Dataset, data: st.DataObject) -> None:
    """A state saved by any rank of one run starts any rank of another run: batch for batch the same global order."""
    table = cut_dataset.sequences(length=3)
    ranks = st.sampled_from([1, 2, 3, 4])
    threads = st.integers(1, 3)
    seed, epoch = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 9))
    unbroken = rows_of(cut_dataset.stream(table, seed, epoch).batches(24))
    assert sorted(flat(unbroken)) == list(range(table.height))
    world = data.draw(ranks)
    rank = data.draw(st.integers(0, world - 1))
    stop = data.draw(st.integers(0, len(unbroken)))
    first = cut_dataset.stream(table, seed, epoch).batches(24, rank=rank, world=world, threads=data.draw(threads))
    with first:
        for _ in range(stop):
            next(first)
        state = json.loads(json.dumps(first.state_dict()))
    assert len(json.dumps(state)) < 4096
    after = data.draw(ranks)
    parts = []
    for other in range(after):
        resumed = cut_dataset.stream(table).batches(24, rank=other, world=after, threads=data.draw(threads))
        resumed.load_state_dict(state)
        parts.append(rows_of(resumed))
    assert merged(parts) == unbroken[stop:]


def test_a_loader_with_workers_resumes_from_a_state(dataset: Dataset) -> None:
    from torch.utils.data import DataLoader

    stream = dataset.stream(dataset.sequences(length=3), seed=8)
    with stream.batches(4) as batches:
        rows = [next(batches)["row"].tolist() for _ in range(5)]
        state = batches.state_dict()
        rest = [batch["row"].tolist() for batch in batches]
    left = range(state["step"] * state["batch_size"], len(stream))
    for workers in (0, 2):
        loader = DataLoader(stream, batch_size=4, sampler=left, num_workers=workers)
        assert [batch["row"].tolist() for batch in loader] == rest
    assert sorted(flat(rows + rest)) == list(range(len(stream)))


def test_states_that_do_not_fit_are_refused(dataset: Dataset, cut_dataset: Dataset) -> None:
    table = dataset.sequences(length=3)
    batches = dataset.stream(table).batches(4)
    state = batches.state_dict()
    for other in (dataset.stream(table[1:]), dataset.stream(dataset.sequences(length=2))):
        with pytest.raises(ContractError, match="another dataset or other windows"):
            other.batches(4).load_state_dict(state)
    with pytest.raises(ContractError, match="another dataset"):
        cut_dataset.stream(cut_dataset.sequences(length=3)).batches(4).load_state_dict(state)
    with pytest.raises(ContractError, match="batches of 4"):
        dataset.stream(table).batches(8).load_state_dict(state)
    for wrong in ({}, state | {"format": 2}, state | {"more": 1}):
        with pytest.raises(ContractError, match="format 1"):
            batches.load_state_dict(wrong)
    for step in (-1, len(batches) + 1):
        with pytest.raises(ContractError, match="step"):
            batches.load_state_dict(state | {"step": step})
    with pytest.raises(ContractError, match="blocks, global or none"):
        batches.load_state_dict(state | {"shuffle": "x"})


def test_batches_that_cannot_be_are_refused(dataset: Dataset) -> None:
    stream = dataset.stream(dataset.sequences(length=3))
    for options in ({"batch_size": 0}, {"batch_size": 4, "rank": 1}, {"batch_size": 4, "threads": 0}):
        with pytest.raises(ContractError, match="not possible"):
            stream.batches(**options)
    with pytest.raises(ContractError, match="divide"):
        stream.batches(5, world=2)
    odd = dataset.stream(dataset.sequences(length=3)[:25])
    with pytest.raises(ContractError, match="drop_last"):
        odd.batches(4, world=2)
    assert len(odd.batches(4, world=2, drop_last=True)) == 6
    assert len(odd.batches(4)) == 7


def test_frames_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    from tests.conftest import jpeg

    raw = write_drives(tmp_path / "raw", {"map": 12})
    (raw / "map-007.jpg").write_bytes(jpeg(7, 48, 32))
    build(BuildRequest("folder", raw, tmp_path / "out"))
    mixed = seqdata.open(tmp_path / "out")
    with pytest.raises(ContractError, match="size="):
        rows_of(mixed.stream(mixed.sequences()).batches(2))
    whole = mixed.stream(mixed.sequences(), size=(24, 32))
    assert sum(map(len, rows_of(whole.batches(2)))) == len(whole)


def test_an_error_comes_at_its_batch_and_again(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = dataset.stream(dataset.sequences(length=3), shuffle="none", cache_bytes=0)
    locations, whole = dataset.frame_reader().locations, Store.read

    def failing(self: Store, name: str, offset: int, length: int) -> bytes:
        # A read that covers frame 10: another thread may take the frames after it.
        if name.endswith(f"-{locations.shard[10]:06d}.tar") and offset <= locations.offset[10] < offset + length:
            raise InputError("gone")
        return whole(self, name, offset, length)

    monkeypatch.setattr(Store, "read", failing)
    with stream.batches(4) as batches:
        first = []
        with pytest.raises(InputError, match="gone"):
            for _ in range(4):
                first.append(next(batches)["row"].tolist())
        assert len(first) == 2  # row 8, the one window that shows frame 10, is in the third batch
        with pytest.raises(InputError, match="gone"):
            next(batches)
        monkeypatch.setattr(Store, "read", whole)
        first += [batch["row"].tolist() for batch in batches]
    assert flat(first) == list(range(len(stream)))


def test_replaced_frames_are_counted(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    table = dataset.sequences(length=4)
    other = seqdata.open(dataset.path)
    other.frame_reader().locations.hash[[5, 50]] = 0
    stream = other.stream(table)
    shows = np.isin(dataset.frame_rows(table), [5, 50])
    with stream.batches(8, threads=3) as batches:
        flags = {row: flag for batch in batches for row, flag in zip(batch["row"], batch["replaced"], strict=True)}
        assert batches.replaced == shows.sum()
    assert all((flags[row] == shows[row]).all() for row in range(table.height))


def test_threads_end_with_the_batches(dataset: Dataset) -> None:
    def alive() -> int:
        return sum(thread.name.startswith("seqdata-stream") for thread in threading.enumerate())

    stream = dataset.stream(dataset.sequences(length=3))
    with stream.batches(4, threads=3) as batches:
        next(batches)
        assert alive()
    assert not alive()
    rows_of(stream.batches(4, threads=3))
    assert not alive()
    left = stream.batches(4, threads=3)
    next(left)
    del left
    gc.collect()
    deadline = time.monotonic() + 5
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive()


def test_threads_decode_each_frame_once(cut_dataset: Dataset) -> None:
    windows = cut_dataset.sequences(length=10)
    stream = cut_dataset.stream(windows, seed=2)
    rows_of(stream.batches(8, threads=8))
    assert stream.cache.decodes == len(np.unique(cut_dataset.frame_rows(windows)))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two drives of 600 frames."""
    folder = tmp_path_factory.mktemp("long")
    raw = write_drives(folder / "raw", {"map-a": 600, "map-b": 600})
    build(BuildRequest("folder", raw, folder / "out"))
    return seqdata.open(folder / "out")


def decodes_a_window(dataset: Dataset, world: int, shuffle: str) -> float:
    """Real decodes over all ranks, each with a cache of its own that holds the open blocks and nothing more."""
    table = dataset.sequences(length=10)
    blocks = LANES * -(-table.height // (LANES * 64))
    counted = windows = 0
    for rank in range(world):
        budget = blocks * 12 * 24 * 32 * 3 // world
        stream = dataset.stream(table, seed=1, shuffle=shuffle, cache_bytes=budget)
        windows += len(flat(rows_of(stream.batches(16, rank=rank, world=world, drop_last=True))))
        counted += stream.cache.decodes
    return counted / windows


@pytest.mark.parametrize("world", [1, 2, 4])
def test_blocks_decode_little_and_a_global_shuffle_much(long: Dataset, world: int) -> None:
    assert decodes_a_window(long, world, "blocks") <= 1.35
    assert decodes_a_window(long, world, "global") > 5


def test_a_small_cache_is_named(long: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    table = long.sequences(length=10)
    for budget, told in ((1 << 30, 0), (1 << 19, 1)):
        caplog.clear()
        with long.stream(table, cache_bytes=budget).batches(8) as batches:
            next(batches)
            next(batches)
        assert sum("cache_bytes" in record.message for record in caplog.records) == told


def test_memory_of_batches_is_used_again_only_when_nobody_holds_it() -> None:
    buffers = Buffers()
    one = buffers.take((2, 3, 4))
    one[:] = 1
    part = one[1, :, ::2].T
    address = one.ctypes.data
    del one
    other = buffers.take((2, 3, 4))
    other[:] = 2
    assert (part == 1).all()
    del part, other
    again = [buffers.take((4, 6)), buffers.take((24,))]
    assert address in [array.ctypes.data for array in again]


def test_held_batches_keep_their_pixels(dataset: Dataset) -> None:
    import torch

    stream = dataset.stream(dataset.sequences(length=3))
    with stream.batches(4) as batches:
        held = [(batch["row"], torch.from_numpy(batch["frames"])) for batch in batches]
    for rows, frames in held:
        assert (frames.numpy() == dataset.read(dataset.sequences(length=3), rows)).all()


def test_a_missing_decoder_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(MissingDependencyError, match="torchcodec"):
        dataset.stream(dataset.sequences(), device="cuda:3")


def test_a_device_decodes_what_it_can(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchcodec: its device's pixels are shown, and what it refuses the CPU decodes."""
    import types

    import torch

    from seqdata.frames.decode import channels_first, decode_image

    asked: list[str] = []

    def decode_jpeg(data: bytes, *, mode: str, device: str) -> torch.Tensor:
        asked.append(device)
        if len(asked) % 2:
            raise RuntimeError("not this one")
        return 255 - torch.from_numpy(channels_first(decode_image(data)))

    module = types.ModuleType("torchcodec.decoders")
    module.decode_jpeg = decode_jpeg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    windows = dataset.sequences(length=2)
    frames = dataset.stream(windows, shuffle="none", device="cuda:7")[0]["frames"]
    wanted = dataset.read(windows, [0])[0]
    assert (frames[0] == wanted[0]).all()
    assert (frames[1] == 255 - wanted[1]).all()
    assert asked == ["cuda:7", "cuda:7"]


@pytest.mark.parametrize(
    ("failure", "is_forked", "words"),
    [
        ("CUDA error: an illegal memory access", False, "CUDA error"),
        ("Cannot re-initialize CUDA", True, "num_workers=0"),
    ],
)
def test_a_device_that_fails_is_no_reason_to_decode_on_the_cpu(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, failure: str, is_forked: bool, words: str
) -> None:
    """Each frame would be decoded twice, without a word; a forked worker never gets the device."""
    import types

    import torch

    from seqdata.frames.decode import decoder

    def decode_jpeg(data: bytes, *, mode: str, device: str) -> torch.Tensor:
        raise RuntimeError(failure)

    module = types.ModuleType("torchcodec.decoders")
    module.decode_jpeg = decode_jpeg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    name = f"cuda:{8 + is_forked}"
    decode = decoder(name)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: is_forked)
    jpeg = next(iter(dataset.frame_reader().fetch([0]).values()))
    with pytest.raises((RuntimeError, ContractError), match=words):
        decode(jpeg, None, None, "pillow")


def test_a_torchcodec_without_jpeg_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", types.ModuleType("torchcodec.decoders"))
    with pytest.raises(MissingDependencyError, match=r"torchcodec>=0\.16"):
        dataset.stream(dataset.sequences(), device="cuda:4")


KILLED = """
import json, os, sys
import seqdata

dataset = seqdata.open(sys.argv[1])
with dataset.stream(dataset.sequences(length=3), seed=6).batches(4) as batches:
    for batch in batches:
        with open(sys.argv[2], "a") as log:
            log.write(json.dumps([batch["row"].tolist(), batches.state_dict()]) + "\\n")
        if batch["step"] == 3:
            os.kill(os.getpid(), 9)
"""


def test_a_killed_run_goes_on_where_it_stood(dataset: Dataset, tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(dataset.path), str(log)], timeout=60)
    assert ended.returncode == -9
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stream: Stream = dataset.stream(dataset.sequences(length=3))
    again = stream.batches(4)
    again.load_state_dict(lines[-1][1])
    rest = rows_of(again)
    unbroken = rows_of(stream.reordered(seed=6).batches(4))
    assert [rows for rows, _ in lines] + rest == unbroken


@pytest.mark.parametrize("threads", [1, 3])
def test_single_frames_are_decoded_where_they_belong(dataset: Dataset, threads: int) -> None:
    """The same pixels as through a cache that holds them all, each frame decoded once; PNG and damage as before."""
    table = dataset.sequences(length=1)
    cached, direct = (dataset.stream(table, seed=2, cache_bytes=budget) for budget in (1 << 30, 0))
    with cached.batches(8, threads=threads) as left, direct.batches(8, threads=threads) as right:
        for expected, batch in zip(left, right, strict=True):
            np.testing.assert_array_equal(batch["frames"], expected["frames"])
            assert not batch["replaced"].any()
    assert cached.cache.decodes == direct.cache.decodes == len(table)
    target = np.empty((24, 32, 3), np.uint8)
    assert direct.read_into(0, target)
    assert not direct.read_into(0, np.empty((24, 31, 3), np.uint8))  # another size is left to those who can tell
    assert not cached.read_into(0, target)  # the frames stay for the next epoch
    assert not dataset.stream(dataset.sequences(length=2), cache_bytes=0).read_into(0, target)
    assert not dataset.stream(table, cache_bytes=0, size=(12, 16)).read_into(0, target)


def test_a_damaged_single_frame_shows_its_neighbour(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pixels = FrameReader.fetch, dataset.read_frames(np.arange(8))

    def fetch(reader: FrameReader, rows: IntArray) -> dict[int, bytes | None]:
        return {row: None if row == 5 else data for row, data in whole(reader, rows).items()}

    monkeypatch.setattr(FrameReader, "fetch", fetch)
    stream = dataset.stream(dataset.sequences(length=1), cache_bytes=0, shuffle="none")
    with stream.batches(8) as batches:
        frames = next(batches)["frames"][:, 0]
    np.testing.assert_array_equal(frames[5], pixels[4])
    np.testing.assert_array_equal(np.delete(frames, 5, axis=0), np.delete(pixels, 5, axis=0))
    assert list(stream.cache.bad) == [5]

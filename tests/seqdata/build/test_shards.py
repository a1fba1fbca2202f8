"""Shards as other readers see them: tarfile, the tar program's rules and plain webdataset."""

import json
import shutil
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import webdataset

import seqdata
from seqdata.build.builder import BuildRequest, build
from seqdata.build.shards import (
    ShardPlan,
    _sample_json,
    plan_shards,
    read_seal,
    read_sealed,
    read_seals,
    sealed_under,
)
from seqdata.contracts.manifest import BuildSettings
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.store import Store
from tests.conftest import write_drives


def shard_paths(dataset: seqdata.Dataset) -> list[Path]:
    return [dataset.path / "shards" / shard.name for shard in dataset.manifest.shards]


def test_members_are_plain_ustar_at_the_offsets_that_the_table_says(cut_dataset: seqdata.Dataset) -> None:
    frames = cut_dataset.frames.collect()
    for number, path in enumerate(shard_paths(cut_dataset)):
        rows = {row["key"]: row for row in frames.filter(frames["shard"] == number).to_dicts()}
        data = path.read_bytes()
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert all(member.mtime == 0 and member.uid == 0 and member.isfile() for member in members)
        assert all(member.name.count(".") == 1 and len(member.name) <= 100 for member in members)
        for image, text in zip(members[::2], members[1::2], strict=True):
            key = image.name.removesuffix(".jpg")
            assert text.name == f"{key}.json"
            sample = json.loads(data[text.offset_data : text.offset_data + text.size])
            assert text.size <= 512
            if sample.get("halo"):
                continue
            row = rows.pop(key)
            assert (row["offset"], row["length"]) == (image.offset_data, image.size)
            stored = data[row["offset"] : row["offset"] + row["length"]]
            assert xxh3_hex(stored) == row["hash"].hex()
            assert stored == (cut_dataset.path.parent / "raw" / row["source"]).read_bytes(), "JPEG bytes pass through"
            assert sample["trajectory"] == row["trajectory"]
            assert sample["position"] == row["position"]
            assert (sample["lat"], sample["lon"]) == (round(row["latitude"], 7), round(row["longitude"], 7))
        assert not rows


def test_plain_webdataset_reads_every_frame(cut_dataset: seqdata.Dataset) -> None:
    urls = [str(path) for path in shard_paths(cut_dataset)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    stored = [sample for sample in samples if not sample["json"].get("halo")]
    frames = cut_dataset.frames.collect()
    assert [sample["__key__"] for sample in stored] == frames["key"].to_list()
    pixels = cut_dataset.read_frames([17])[0].transpose(1, 2, 0).astype(int)
    assert np.abs(stored[17]["jpg"].astype(int) - pixels).max() <= 3  # two decoders


@pytest.mark.parametrize("length", [1, 5, 15])
def test_a_sequential_reader_meets_every_window_once(length: int, cut_dataset: seqdata.Dataset) -> None:
    """A ring per shard over plain webdataset samples; a window counts when its last frame is no halo frame."""
    met: Counter[tuple[str, ...]] = Counter()
    for path in shard_paths(cut_dataset):
        ring: list[dict] = []
        for sample in webdataset.WebDataset([str(path)], shardshuffle=False).decode():
            frame = sample["json"]
            if ring and (ring[-1]["trajectory"], ring[-1]["position"] + 1) != (frame["trajectory"], frame["position"]):
                ring = []
            ring = [*ring, frame][-length:]
            if len(ring) == length and not frame.get("halo"):
                met[tuple(each["key"] for each in ring)] += 1
    rows = cut_dataset.frame_rows(cut_dataset.sequences(length=length))
    keys = cut_dataset.frame_columns("key")["key"].to_numpy()
    assert met == Counter(tuple(window) for window in keys[rows].tolist())


def test_long_drives_are_cut_and_short_ones_share_a_shard(cut_dataset: seqdata.Dataset) -> None:
    halos = [shard.halo for shard in cut_dataset.manifest.shards]
    assert halos.count(14) >= 2
    frames = cut_dataset.frames.collect()
    assert frames["shard"].is_sorted()
    assert frames.filter(frames["trajectory"] == "map-a")["shard"].n_unique() > 1


@pytest.mark.parametrize("damage", ["none", "longer", "shorter", "absent", "another plan"])
def test_a_seal_holds_for_the_tar_of_its_size_and_its_plan(
    cut_dataset: seqdata.Dataset, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(cut_dataset.path / "shards", tmp_path / "shards")
    store, plan = Store(tmp_path), ShardPlan(0, 0, 1, 0)
    tar, plan_hash = tmp_path / "shards" / plan.name, sealed_under(store, plan.name)
    assert plan_hash is not None
    data = tar.read_bytes()
    if damage in ("longer", "shorter"):
        tar.write_bytes(data + b"x" if damage == "longer" else data[:-1])
    elif damage == "absent":
        tar.unlink()
    seal = read_seal(store, plan, plan_hash[::-1] if damage == "another plan" else plan_hash)
    assert (seal is not None) == (damage == "none")
    assert seal is None or (seal.bytes, seal.plan) == (len(data), plan_hash)


def records_of(*drives: list[int]) -> pl.DataFrame:
    rows = [(f"t{number}", size) for number, sizes in enumerate(drives) for size in sizes]
    return pl.DataFrame(rows, schema={"trajectory": pl.String, "bytes": pl.Int64}, orient="row")


@pytest.mark.parametrize(
    ("drives", "spans"),
    [
        ([[50], [50]], [(0, 2, 0)]),  # two drives fill a shard exactly
        ([[50], [51]], [(0, 1, 0), (1, 2, 0)]),
        ([[60], [60], [40]], [(0, 1, 0), (1, 3, 0)]),
        ([[60], [60], [40], [1]], [(0, 1, 0), (1, 3, 0), (3, 4, 0)]),
        ([[10], [60, 60]], [(0, 1, 0), (1, 3, 0)]),  # the second drive's frames both begin below the limit
        ([[10], [60, 60, 60, 60], [10]], [(0, 1, 0), (1, 3, 0), (3, 5, 2), (5, 6, 0)]),
    ],
)
def test_a_shard_is_filled_and_a_long_drive_begins_one(
    drives: list[list[int]], spans: list[tuple[int, int, int]]
) -> None:
    settings = BuildSettings.model_construct(shard_bytes=100, halo=3)
    plans = plan_shards(records_of(*drives), settings)
    assert [(plan.start, plan.stop, plan.halo) for plan in plans] == spans


def test_a_sample_stays_within_a_block_in_any_script() -> None:
    """Cyrillic letters are two bytes each as they are, and six as escapes."""
    record = {"key": "k" * 90, "trajectory": "Улица" * 20, "position": 7, "latitude": 1.23456789, "longitude": -1.0}
    data = _sample_json({**record, "time": None, "panorama": False}, halo=True)
    assert len(data) <= 512 and "Улица".encode() in data
    assert json.loads(data) == {
        **{name: record[name] for name in ("key", "trajectory", "position")},
        "lat": 1.2345679, "lon": -1.0, "time": None, "halo": True,
    }  # fmt: skip


def test_a_seal_is_read_from_its_footer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes, whatever the table's size; a damaged body is told when its rows are read, and then written again."""
    raw = write_drives(tmp_path / "raw", {"map": 12})
    request = BuildRequest("folder", raw, tmp_path / "out")
    manifest = build(request)
    store = Store(tmp_path / "out")
    seal = tmp_path / "out" / "shards" / manifest.shards[0].seal_name
    whole = seal.read_bytes()
    monkeypatch.setattr("seqdata.build.shards.FOOTER_BYTES", 64)  # less than the footer: it is asked for by its length
    ranges: list[int] = []
    read = Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, name, offset, length: ranges.append(length) or read(self, name, offset, length)
    )
    plan = ShardPlan(0, 0, 12, 0)
    plan_hash = sealed_under(store, manifest.shards[0].name)
    assert plan_hash is not None
    ranges.clear()
    found = read_seal(store, plan, plan_hash)
    assert found is not None and found.bytes == manifest.shards[0].bytes
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    assert ranges == [64, footer]
    monkeypatch.undo()
    assert read_sealed(store, plan, plan_hash) is not None
    # The body is damaged, the footer whole: that shows when the rows are read, and the seal goes, so that the same
    # build writes the shard again.
    seal.write_bytes(whole[:4] + bytes(len(whole) - footer - 4) + whole[-footer:])
    assert read_seal(store, plan, plan_hash) is not None
    assert read_sealed(store, plan, plan_hash) is None
    assert read_seal(store, plan, plan_hash) is None


def test_seals_of_a_remote_store_are_read_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen requests wait together; the answers come in the order of the shards, and no more are ahead."""
    barrier, most = threading.Barrier(16, timeout=20), []

    def read(store: Store, plan: ShardPlan, plan_hash: str) -> None:
        barrier.wait()
        most.append(plan.number)

    monkeypatch.setattr("seqdata.build.shards.read_seal", read)
    plans = [ShardPlan(number, 0, 1, 0) for number in range(32)]
    assert read_seals(Store("memory://seals"), plans, "hash") == [None] * 32
    assert sorted(most) == list(range(32))

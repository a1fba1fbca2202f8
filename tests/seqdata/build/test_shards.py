"""Shards as other readers see them: tarfile, the tar program's rules and plain webdataset."""

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset

import seqdata
from seqdata.build.shards import ShardPlan, read_seal, sealed_under
from seqdata.storage.hashing import xxh3_hex
from seqdata.storage.store import Store


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

"""Random access and streams: the right pixels, one ranged read a shard, one order for any number of workers."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import seqdata
from seqdata.errors import ContractError, InputError
from seqdata.storage.store import Store


def test_read_gives_the_pixels_of_the_raw_files(dataset: seqdata.Dataset, drives: Path) -> None:
    windows = dataset.sequences(length=4)
    pixels = dataset.read(windows, [0, 20, 50])
    assert pixels.shape == (3, 4, 3, 24, 32)
    assert pixels.dtype == np.uint8
    sources = dataset.frame_columns("source")["source"].to_numpy()[dataset.frame_rows(windows)[[0, 20, 50]]]
    for window, names in zip(pixels, sources, strict=True):
        for frame, name in zip(window, names, strict=True):
            raw = simplejpeg.decode_jpeg((drives / name).read_bytes())
            assert (frame == raw.transpose(2, 0, 1)).all()


def test_resizing_is_pillows_bilinear(dataset: seqdata.Dataset, drives: Path) -> None:
    small = dataset.read_frames([5], size=(12, 20))[0]
    raw = simplejpeg.decode_jpeg((drives / "map-005.jpg").read_bytes())
    wanted = np.asarray(Image.fromarray(raw).resize((20, 12), Image.Resampling.BILINEAR))
    assert (small == wanted.transpose(2, 0, 1)).all()


def test_one_ranged_read_for_each_shard_a_window_touches(
    cut_dataset: seqdata.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = cut_dataset.sequences(length=10)
    shards = cut_dataset.frame_columns("shard")["shard"].to_numpy()[cut_dataset.frame_rows(windows)]
    crossing = int(np.flatnonzero(shards[:, 0] != shards[:, -1])[0])
    reads: list[str] = []
    whole = Store.read

    def counted(self: Store, name: str, offset: int, length: int) -> bytes:
        reads.append(name)
        return whole(self, name, offset, length)

    monkeypatch.setattr(Store, "read", counted)
    cut_dataset.read(windows, [0])
    assert len(reads) == 1
    cut_dataset.read(windows, [crossing])
    assert len(reads) == 3
    assert len(set(reads)) == 2


def test_no_rows_and_a_short_shard(dataset: seqdata.Dataset, tmp_path: Path) -> None:
    import shutil

    assert dataset.read_frames([]).shape[0] == 0
    copy = tmp_path / "copy"
    shutil.copytree(dataset.path, copy)
    shard = copy / "shards" / "part-000000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(InputError, match="verify"):
        seqdata.open(copy).read_frames([60])


def test_frames_of_several_sizes_need_a_size(drives: Path, tmp_path: Path) -> None:
    from seqdata.build.builder import BuildRequest, build
    from tests.conftest import jpeg, write_drives

    raw = write_drives(tmp_path / "raw", {"map": 6})
    (raw / "map-002.jpg").write_bytes(jpeg(7, 48, 32))
    build(BuildRequest("folder", raw, tmp_path / "out"))
    mixed = seqdata.open(tmp_path / "out")
    with pytest.raises(ContractError, match="size="):
        mixed.read(mixed.sequences(), [0])
    assert mixed.read(mixed.sequences(), [0], size=(24, 32)).shape == (1, 5, 3, 24, 32)

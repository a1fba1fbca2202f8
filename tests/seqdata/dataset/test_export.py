"""Exports as their readers see them: webdataset for the tars, the reference code's rules for names and folders."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import webdataset

import seqdata
import tests.conftest
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.export import folders as export_folders
from seqdata.dataset.export import tars as export_tars
from seqdata.dataset.export.export import export, windows_of
from seqdata.errors import ContractError, OutputError
from seqdata.frames.reader import FrameReader


def key_windows(dataset: seqdata.Dataset, table: object) -> list[tuple[str, ...]]:
    keys = dataset.frame_columns("key")["key"].to_numpy()
    return [tuple(window) for window in keys[dataset.frame_rows(table)].tolist()]


def raw_bytes(dataset: seqdata.Dataset) -> dict[str, bytes]:
    frames = dataset.frames.select("key", "source").collect()
    return {key: (dataset.path.parent / "raw" / source).read_bytes() for key, source in frames.iter_rows()}


@pytest.mark.parametrize("shard_bytes", [1 << 15, 1 << 30])
def test_webdataset_reads_one_sample_a_window(shard_bytes: int, cut_dataset: seqdata.Dataset, tmp_path: Path) -> None:
    table = windows_of(cut_dataset, "own", "test", "query")
    seen: list[tuple[int, int]] = []
    report = export(cut_dataset, table, tmp_path / "out", shard_bytes=shard_bytes, progress=lambda *at: seen.append(at))
    tars = sorted((tmp_path / "out" / "test" / "queries").glob("*.tar"))
    assert (len(tars) > 3) == (shard_bytes == 1 << 15)
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode())
    assert [tuple(sample["json"]["keys"]) for sample in samples] == key_windows(cut_dataset, table)
    assert report["windows"] == len(samples) == seen[-1][0] == seen[-1][1]
    raw, frames = raw_bytes(cut_dataset), cut_dataset.frames.collect()
    for sample in webdataset.WebDataset([str(tars[0])], shardshuffle=False):
        text = json.loads(sample["json"])
        assert [sample[f"{index:03d}.jpg"] for index in range(5)] == [raw[key] for key in text["keys"]]
        first = frames.filter(frames["key"] == text["keys"][0]).row(0, named=True)
        assert (text["trajectory"], text["split"], text["role"], text["zone"]) == ("query", "test", "query", "32N")
        assert (text["positions"][0], text["easting"][0]) == (first["position"], first["easting"])
        assert text["latitude"][0] == pytest.approx(first["latitude"])


def test_tars_are_bounded_plain_ustar(cut_dataset: seqdata.Dataset, tmp_path: Path) -> None:
    import tarfile

    table = windows_of(cut_dataset, length=7)
    export(cut_dataset, table, tmp_path / "out", shard_bytes=1 << 15)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"export.json", "all"}
    found = 0
    for path in (tmp_path / "out" / "all").rglob("*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        images = [member.size for member in members if member.name.endswith(".jpg")]
        assert sum(images[:-7]) < 1 << 15
        assert all(member.mtime == member.uid == 0 and len(member.name) <= 100 for member in members)
        assert path.read_bytes()[257:263] == b"ustar\0"
        found += len(images) // 7
    assert found == table.height


def reference_windows(folder: Path, length: int) -> list[tuple[str, ...]]:
    """The windows that the reference loader makes of one role's folder, by its own rules, as keys (name field 5)."""
    found = []
    for sequence in sorted(folder.glob("*")):
        paths = sorted(sequence.glob("*"))
        numbers = np.array([int(str(path).split("@")[4]) for path in paths])
        in_order = np.argsort(numbers)
        for centre in range(length // 2, len(paths) - length // 2):
            window = in_order[np.arange(-length // 2, length // 2) + 1 + centre]
            if (np.diff(numbers[window]) == 1).all():
                found.append(tuple(paths[index].name.split("@")[5] for index in window))
    return found


@pytest.mark.parametrize("role", ["database", "query"])
def test_the_reference_rules_give_the_same_windows_back(
    role: str, cut_dataset: seqdata.Dataset, tmp_path: Path
) -> None:
    table = windows_of(cut_dataset, "own")
    export(cut_dataset, table, tmp_path / "out", "folders")
    folder = tmp_path / "out" / "test" / {"database": "database", "query": "queries"}[role]
    wanted = table.filter(table["role"] == role)
    assert Counter(reference_windows(folder, 5)) == Counter(key_windows(cut_dataset, wanted))
    raw = raw_bytes(cut_dataset)
    frames = {row["key"]: row for row in cut_dataset.frames.collect().to_dicts()}
    paths = list(folder.rglob("*.jpg"))
    for path in paths:
        _, easting, northing, sequence, _, key, city, time, suffix = path.name.split("@")
        row = frames[key]
        assert path.read_bytes() == raw[key]
        assert (len(easting), len(northing)) == (10, 10)
        assert float(easting) == pytest.approx(row["easting"], abs=0.005)
        assert float(northing) == pytest.approx(row["northing"], abs=0.005)
        assert (sequence, city, time, suffix) == (path.parent.name, "own", "", ".jpg")
    assert (
        len(paths)
        == len({path.name.split("@")[5] for path in paths})
        == sum(frame["role"] == role for frame in frames.values())
    )


def test_breaks_gaps_and_strange_names_survive_the_folders(tmp_path: Path) -> None:
    """A jump inside a drive (max_step of `own`), a missing frame, times, and a drive named with @ and a slash."""
    raw = tests.conftest.write_drives(tmp_path / "raw", {"x": 30})
    lines = (raw / "positions.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for number, row in enumerate(rows):
        row[1] = str(float(row[1]) + (1000 if number >= 12 else 0))
        row[4] = "a@b/c"
        row[5] = "database" if number < 24 else "query"
        row.append(f"2015-03-17T11:08:{number:02d}Z")
    text = [lines[0] + ",time", *(",".join(row) for row in rows)]
    (raw / "positions.csv").write_text("\n".join(text) + "\n")
    build(BuildRequest("folder", raw, tmp_path / "dataset"))
    dataset = seqdata.open(tmp_path / "dataset")
    table = windows_of(dataset, "own", "test", "database", length=5)
    assert table.height == 8 + 8
    export(dataset, table, tmp_path / "out", "folders")
    folder = tmp_path / "out" / "test" / "database"
    assert Counter(reference_windows(folder, 5)) == Counter(key_windows(dataset, table))
    names = [path.name for path in folder.rglob("*.jpg")]
    assert len(names) == 24
    assert all(len(name.split("@")) == 9 and "," not in name for name in names)
    assert {name.split("@")[7] for name in names} == {f"20150317_1108{second:02d}" for second in range(24)}


def test_times_and_png_keep_their_form(tmp_path: Path) -> None:
    from PIL import Image

    raw = tests.conftest.write_drives(tmp_path / "raw", {"map": 3, "query": 3})
    for number in range(3):
        (raw / f"map-00{number}.jpg").unlink()
        Image.new("RGB", (32, 24), (number, 0, 0)).save(raw / f"map-00{number}.png")
    text = (raw / "positions.csv").read_text()
    (raw / "positions.csv").write_text(text.replace(".jpg", ".png", 3))
    build(BuildRequest("folder", raw, tmp_path / "dataset", settings=BuildSettings(keep_png=True)))
    dataset = seqdata.open(tmp_path / "dataset")
    table = dataset.sequences(length=3)
    export(dataset, table, tmp_path / "tars")
    export(dataset, table, tmp_path / "folders", "folders")
    (first, second) = webdataset.WebDataset(
        [str(path) for path in sorted((tmp_path / "tars" / "all").rglob("*.tar"))], shardshuffle=False
    )
    assert first["001.png"] == (raw / "map-001.png").read_bytes()
    assert second["001.jpg"] == (raw / "query-001.jpg").read_bytes()
    assert len(list((tmp_path / "folders" / "test" / "database").rglob("@*@.png"))) == 3


@pytest.mark.parametrize("format", ["sequences", "folders"])
def test_killed_half_way_it_goes_on_and_ends_in_the_same_bytes(
    format: str,
    cut_dataset: seqdata.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files_of: Callable[[Path], dict[str, bytes]],
) -> None:
    table = windows_of(cut_dataset, "own")
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(cut_dataset, table, whole, format, shard_bytes=1 << 16)  # type: ignore[arg-type]
    module, name = {"sequences": (export_tars.TarWriter, "add"), "folders": (export_folders, "_write_once")}[format]
    original, calls = getattr(module, name), 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 150:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing)
        with pytest.raises(KeyboardInterrupt):
            export(cut_dataset, table, out, format, shard_bytes=1 << 16)  # type: ignore[arg-type]
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".out.partial").rglob("*.[jt][pa][gr]")}
    assert kept
    export(cut_dataset, table, out, format, shard_bytes=1 << 16)  # type: ignore[arg-type]
    assert files_of(out) == files_of(whole)
    again = {tmp_path / ".out.partial" / path.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("*.*")}
    assert kept.items() <= again.items(), "what stood there was not written again"
    assert not (tmp_path / ".out.partial").exists()


def test_another_exports_leftovers_are_not_mixed_in(cut_dataset: seqdata.Dataset, tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    (partial / "test" / "queries").mkdir(parents=True)
    (partial / "test" / "queries" / "part-000000.tar").write_bytes(b"of another export")
    (partial / "export.json").write_text("{}")
    export(cut_dataset, windows_of(cut_dataset, "own", "test", "query"), tmp_path / "out")
    assert (tmp_path / "out" / "test" / "queries" / "part-000000.tar").stat().st_size > 1000


def test_refusals(cut_dataset: seqdata.Dataset, tmp_path: Path) -> None:
    table = windows_of(cut_dataset, "own")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="not empty"):
        export(cut_dataset, table, tmp_path / "full")
    with pytest.raises(OutputError, match="without one"):
        export(cut_dataset, table, tmp_path / "a@b", "folders")
    with pytest.raises(ContractError, match="sequences or folders"):
        export(cut_dataset, table, tmp_path / "out", "tars")  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="no window"):
        export(cut_dataset, table.head(0), tmp_path / "out")
    with pytest.raises(ContractError, match="no role"):
        export(
            cut_dataset, table.with_columns(role=None).cast({"role": table.schema["role"]}), tmp_path / "o", "folders"
        )
    export(cut_dataset, table.head(3), tmp_path / "empty", "folders")
    assert (tmp_path / "empty" / "export.json").is_file()


def test_an_export_holds_a_bounded_part_of_the_images(
    cut_dataset: seqdata.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ranged read fetches the frames of a few windows only, in the order of the shards."""
    asked: list[np.ndarray] = []
    original = FrameReader.encoded
    monkeypatch.setattr(FrameReader, "encoded", lambda reader, rows: asked.append(rows) or original(reader, rows))
    export(cut_dataset, windows_of(cut_dataset, length=10), tmp_path / "out")
    export(cut_dataset, windows_of(cut_dataset, "own", "test", "database"), tmp_path / "tree", "folders")
    assert max(len(np.unique(rows)) for rows in asked) <= 128
    assert all(rows.min() >= before.min() for before, rows in pairwise(asked[:6]))

"""Names in manifests stay inside their folder and lead to no link, in every kind of manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seqdata
from indexer.versions.manifest import IndexManifest
from seqdata.errors import ContractError, SeqdataError
from seqdata.storage.names import check_flat_name, check_name, refuse_links
from train.data.feature_files import read_manifest

OUTSIDE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "/a",
    "a//b",
    "./a",
    "a/",
    "a\\b",
    "C:x",
    "a\0b",
    "a\x1b[2J",
    "\udcff",
    "é" * 256,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    for check in (check_name, check_flat_name):
        with pytest.raises(ValueError, match="names a file outside the folder"):
            check(name)


def test_names_of_the_program_pass() -> None:
    for name in ("manifest.json", "versions/000002/frames.parquet", "added/0123456789ab/é ü.parquet", "run:1", "…"):
        assert check_name(name) == name
    with pytest.raises(ValueError, match="outside"):
        check_flat_name("a/b")


def test_links_are_refused_where_they_are_listed(tmp_path: Path) -> None:
    folder, manifest = tmp_path / "folder", Path("manifest.json")
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "file").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner" / "link").symlink_to(tmp_path / "secret")
    (folder / "elsewhere").symlink_to(tmp_path)
    refuse_links(folder, ["file", "inner/file", "absent/file"], manifest)
    (tmp_path / "alias").symlink_to(folder)
    refuse_links(tmp_path / "alias", ["file"], manifest)
    for name in ("link", "inner/link", "elsewhere/secret"):
        with pytest.raises(ContractError, match=rf"{name.split('/secret')[0]}: is a link"):
            refuse_links(folder, ["file", name], manifest)


Change = Callable[[dict[str, Any]], Any]
DATASET: list[Change] = [
    lambda manifest: manifest["tables"]["frames.parquet"].update(path="../frames.parquet"),
    lambda manifest: manifest["tables"].update({"../x": manifest["tables"]["frames.parquet"]}),
    lambda manifest: manifest["shards"][0].update(name="../part-000000.tar"),
    lambda manifest: manifest["shards"][0].update(name="part-1.tar"),
]


@pytest.mark.parametrize("change", DATASET)
def test_a_datasets_manifest_names_nothing_outside(dataset: seqdata.Dataset, tmp_path: Path, change: Change) -> None:
    manifest = json.loads((dataset.path / "manifest.json").read_text())
    change(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ContractError, match=r"manifest\.json: field '(tables|shards)"):
        seqdata.open(tmp_path)


@pytest.mark.parametrize("name", ["frames.parquet", "shards/part-000000.tar", "shards"])
def test_a_dataset_whose_file_is_a_link_is_refused(dataset: seqdata.Dataset, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset.path, copy)
    (copy / name).rename(tmp_path / "away")
    (copy / name).symlink_to(tmp_path / "away")
    with pytest.raises(ContractError, match="is a link"):
        seqdata.open(copy)


def test_manifests_of_indexes_and_features_name_nothing_outside(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "fixtures" / "index-v1"
    fields = json.loads(next(path.rglob("manifest.json")).read_text())
    IndexManifest.model_validate(fields)
    record = {"bytes": 1, "xxh3": "0" * 32}
    for change in (
        {"files": {**fields["files"], "../../../seqdata.toml": record}},
        {"name": "../x"},
        {"id": "a/b"},
        {"inputs": {**fields["inputs"], "split": "../../x"}},
        {"origin": {"run": "../../elsewhere"}},
    ):
        with pytest.raises(ValueError, match="names a file outside the folder"):
            IndexManifest.model_validate({**fields, **change})
    part = {"name": "../part-00000.npy", "rows": 1, "start": 128, "hash": "0"}
    features = {"level": "frame", "dataset": "d", "encoder": "e", "shape": [2], "dtype": "float32", "rows": 1}
    (tmp_path / "manifest.json").write_text(json.dumps({**features, "parts": [part]}))
    with pytest.raises(SeqdataError, match="names a file outside the folder"):
        read_manifest(tmp_path)

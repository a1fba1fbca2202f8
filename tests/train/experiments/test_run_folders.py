"""Cells from runs that exist already: which folder is a row's, what is refused, and numbers of every way to match."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import seqdata
import train
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError
from tests.conftest import write_drives
from tests.support import released_names as names
from tests.train.experiments.test_experiments import TINY
from train.experiments.ledger.entries import entries
from train.experiments.measure import scale
from train.experiments.measure.run_folders import SINGLE, find_runs
from train.experiments.run import Request, Result, run
from train.released.importing import ImportRequest, import_run

SIZE = (32, 48)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of two pairs of drives under a protocol of its own."""
    folder = tmp_path_factory.mktemp("street")
    (folder / "tiny.toml").write_text(TINY)
    raw = write_drives(folder / "raw", {"map-a": 45, "query-a": 20, "map-b": 30, "query-b": 22})
    build(BuildRequest("folder", raw, folder / "dataset", protocol=protocols.load(folder / "tiny.toml")))
    return seqdata.open(folder / "dataset")


@pytest.fixture(scope="module")
def runs(street: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by rows: GeM imported, small NetVLAD, SeqNet (also of single frames) and SeqMatchNet untrained."""
    folder = tmp_path_factory.mktemp("runs")
    state = names.filled(names.resnet18() | {"pooling.1.p": (1,)})
    torch.save({"model_state_dict": names.below("module.", state)}, folder / "best_model.pth")
    protocol = protocols.load("msls-seqvlad")
    file = folder / "best_model.pth"
    import_run(ImportRequest("vg-transformers", file, folder / "gem-cat-r18", protocol, options={"size": SIZE}))
    small = {"encoder": "resnet10t", "size": [32, 48], "clusters": 4}
    heads = {"projection": 8, "width": 8}
    for name, model, options in (
        ("seqslam-vgg16", "netvlad-small", {}),
        ("seqmatchnet-vgg16", "seqmatchnet-small", heads),
        ("hvpr-vgg16", "seqnet-small", heads),
        (f"hvpr-vgg16{SINGLE}", "seqnet-small", {**heads, "kernel": 1}),
    ):
        settings: dict[str, Any] = {"model": model, "options": {**small, **options}, "weights": "random", "epochs": 0}
        start = {"kmeans_frames": 8, "kmeans_features": 200, "validate_start": False, "device": "cpu"}
        train.fit(street, train.TrainSettings(**settings, **start, protocol="tiny"), folder / name)
    return folder


def measured(street: Dataset, runs: Path, out: Path, *rows: str) -> Result:
    return run(Request("seqvlad-table3", out, [street], "smoke", rows, device="cpu", runs=runs))


def test_the_run_of_a_training_protocol_goes_first_and_rows_of_one_model_share_it(runs: Path, tmp_path: Path) -> None:
    assert find_runs(runs, "gem-cat-r18", "tiny").run == runs / "gem-cat-r18"
    shutil.copytree(runs / "gem-cat-r18", tmp_path / "tiny" / "gem-cat-r18")
    shutil.copytree(runs / "gem-cat-r18", tmp_path / "gem-cat-r18")
    assert find_runs(tmp_path, "gem-cat-r18", "tiny").run == tmp_path / "tiny" / "gem-cat-r18"
    assert find_runs(tmp_path, "gem-cat-r18", "msls-seqvlad").run == tmp_path / "gem-cat-r18"
    (tmp_path / "gem-cat-r18").rename(tmp_path / "netvlad-cat-r18")
    with pytest.raises(ContractError, match=r"its model is gem-cat-r18, the row's is netvlad-cat-r18"):
        find_runs(tmp_path, "netvlad-cat-pca-r18", "own")
    with pytest.raises(
        InputError, match=rf"no run of this row in .*; seqdata import KIND FILE --out {tmp_path}/sta-pca"
    ):
        find_runs(tmp_path, "sta-pca", "own")
    pair = find_runs(runs, "hvpr-vgg16", "tiny")
    assert pair.single == runs / "hvpr-vgg16-single"


@pytest.mark.parametrize("row", ["gem-cat-r18", "seqslam-vgg16", "seqmatchnet-vgg16", "hvpr-vgg16"])
def test_cells_of_runs_hold_numbers_of_every_way_to_match(
    row: str, street: Dataset, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "SMALL_PCA", 4)
    result = measured(street, runs, tmp_path, row)
    assert [cell.reason for cell in result.cells[row]] == [None, None]
    assert all(0 <= cell.values["r1"].value <= 1 for cell in result.cells[row])
    assert not (tmp_path / "runs").exists()
    assert measured(street, runs, tmp_path, row).computed == 0


def test_the_ledger_names_the_file_and_what_of_the_model_differs(street: Dataset, runs: Path, tmp_path: Path) -> None:
    result = measured(street, runs, tmp_path, "gem-cat-r18", "seqvlad-pca-r18")
    lines = {entry.key.row: entry for entry in entries(result) if entry.key.column == "Forw." and entry.cell}
    text = " ".join(lines["gem-cat-r18"].differs)
    assert "Weights were imported from best_model.pth (vg-transformers, SHA-256 " in text
    assert "size [32, 48] instead of [480, 640]" in text and "encoder" not in text
    assert lines["seqvlad-pca-r18"].reason.startswith("InputError: no run of this row in")

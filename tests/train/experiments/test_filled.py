"""Every table and figure of both papers, filled whole on a synthetic city at smoke scale, and its ledger."""

import csv
from pathlib import Path
from typing import Any

import pytest

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.synth import CityPlan, CitySettings, write_msls
from train.experiments import grid as grids
from train.experiments.ledger.files import COLUMNS, write_ledger
from train.experiments.measure import scale
from train.experiments.run import Request, Result, run
from train.experiments.table.table import make_table

PLANS = (
    ("northfield", "train", 52.0),
    ("westhaven", "train", 48.0),
    ("eastbridge", "val", 55.6),
    ("southport", "test", -37.8),
)
CITY = CitySettings(
    width=32, height=24, street_length=90.0, sequences=1, corrupt=False, panorama=False,
    cities=tuple(
        CityPlan(name, split, 1, latitude, 5.1, query=("winter",))
        for name, split, latitude in PLANS
    ),
)  # fmt: skip
TINY_VIT = {"encoder": "test_vit", "size": [32, 32], "encoder_options": {"img_size": [32, 32]}}
# Stand-ins smaller than those of smoke scale, so that the 300 cells take seconds.
TINY: dict[str, dict[str, Any]] = {
    "r18": {"encoder": "resnet10t", "cut": "layer1", "size": [16, 32]},
    "r50": {"encoder": "resnet10t", "cut": "layer2", "size": [16, 32]},
    "vgg16": {"encoder": "vgg11", "cut": "features.3", "size": [16, 32]},
    "vit": TINY_VIT,
    "cct224": {"size": [32, 32]},
    "cct384": {"cut": "blocks.0", "size": [32, 32]},
    "timesformer": TINY_VIT,
    "r2plus1d": {"encoder": "resnet10t", "size": [32, 32]},
    "sta": {"size": [32, 32]},
}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A city of two training streets, one to validate on and one to test on."""
    folder = tmp_path_factory.mktemp("city")
    write_msls(folder / "raw", settings=CITY)
    protocol = protocols.load(folder / "raw/protocol.toml")
    build(BuildRequest("msls", folder / "raw", folder / "dataset", protocol=protocol))
    return seqdata.open(folder / "dataset")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose runs and cells all experiments share."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models of few numbers: that a row trains is what test_experiments shows."""
    untrained = {"epochs": 0, "validate_start": False, "round_queries": 4, "kmeans_frames": 4, "kmeans_features": 200}
    for name, value in untrained.items():
        monkeypatch.setitem(scale.SMALL_TRAINING, name, value)
    monkeypatch.setattr(scale, "SMALL_PCA", 4)
    backbones = {
        name: backbone.model_copy(update={"small": {**backbone.small, **TINY[name]}})
        for name, backbone in grids.backbones().items()
    }
    methods = {
        name: method.model_copy(update={"small": {**method.small, **TINY.get(method.model.partition("-")[0], {})}})
        for name, method in grids.methods().items()
    }
    for module in (grids, scale):
        monkeypatch.setattr(module, "backbones", lambda: backbones)
    monkeypatch.setattr(grids, "methods", lambda: methods)


def filled(name: str, city: Dataset, shelf: Path, **fields: Any) -> tuple[Result, list[dict[str, str]]]:
    """Run an experiment and read its ledger's CSV."""
    result = run(Request(name, shelf, [city], "smoke", device="cpu", **fields))
    csv_file, page = write_ledger(result)
    assert page.read_text().startswith("<!DOCTYPE html>")
    with csv_file.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    return result, lines


@pytest.mark.parametrize("name", grids.names())
def test_every_cell_of_every_table_holds_a_number(name: str, city: Dataset, shelf: Path) -> None:
    result, lines = filled(name, city, shelf)
    reasons = {cell.reason for cells in result.cells.values() for cell in cells}
    assert reasons == {None}
    table = make_table(result)
    # Nothing but a relative difference to a recall of 0 may be missing.
    assert set(table.footnotes.values()) <= {"there is no relative difference to 0"}
    for line in lines:
        # A cell is ours or the paper's here: the city is none of the papers' datasets.
        assert bool(line["ours"]) != bool(line["published"]) or name in ("seqvlad-figure5", "seqvlad-matching"), line
        assert line["difference"] == "" or name == "seqvlad-figure5"

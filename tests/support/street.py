"""A street driven twice, and an index of it by an untrained model: what search and pack are tested on."""

from pathlib import Path

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_dataset
from seqdata.storage.files import write_json_atomic
from tests.conftest import jpeg
from train.data.describe_settings import DescribeSettings
from train.models import registry as models
from train.runs.checkpoint import save_model
from train.stages.describer import RunDescriber

LENGTH = 3
PROTOCOL = f"""
name = "halves"
source = "made for this test"
length = {LENGTH}
radius = 7.0
rule = "centre"
[splits.val]
positions = [0, 20]
[splits.test]
positions = [20, 44]
[splits.empty]
positions = [90, 99]
"""
TINY = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all"}
MODELS = {
    "sum": ("seqvlad-small", {**TINY, "clusters": 4}),
    "cat": ("gem-cat-small", {**TINY, "size": (40, 48)}),
    "mean": ("mean-small", TINY),
    "lstm": ("lstm-small", {**TINY, "width": 8}),
    "sta": ("sta-small", {"clusters": 4, "window": 3, "blocks": 1}),
    "timesformer": (
        "timesformer",
        {"encoder": "vit_tiny_patch16_224", "size": (32, 48), "encoder_options": {"depth": 2}},
    ),
    "r2plus1d": ("r2plus1d-small", {"encoder": "resnet10t", "cut": "layer1"}),
}  # fmt: skip
_VIT = {"encoder": "test_vit", "size": (32, 48), "trainable": "all", "encoder_options": {"dynamic_img_size": True}}
PLACES = {
    "salad": ("salad", {**_VIT, "clusters": 2, "pooling_options": {"hidden": 8, "width": 4}}),
    "anyloc": ("anyloc-dinov2-s", {**_VIT, "cut": "blocks.1", "facet": "value", "clusters": 4}),
    "boq": ("boq-r50", {**TINY, "size": (24, 32), "pooling_options": {"width": 64, "queries": 4, "rows": 4}}),
    "mixvpr": ("mixvpr-r50", {**TINY, "size": (24, 32), "pooling_options": {"channels": 8}}),
}
"""Models of places, by what is new in each."""


def write_street(raw: Path) -> Path:
    """44 frames 3 m apart, twice; the second time every seventh frame shows something else."""
    raw.mkdir(parents=True)
    rows = ["image,easting,northing,zone,drive,role"]
    for drive, role in (("map", "database"), ("query", "query")):
        for place in range(44):
            seed = 500 + place if drive == "query" and place % 7 == 3 else place
            (raw / f"{drive}-{place:03d}.jpg").write_bytes(jpeg(seed))
            rows.append(f"{drive}-{place:03d}.jpg,{500_000 + 3 * place},{5_000_000},32N,{drive},{role}")
    (raw / "positions.csv").write_text("\n".join(rows) + "\n")
    return raw


def build_street(raw: Path, out: Path) -> Dataset:
    """The dataset of a street, under the protocol `halves`."""
    (raw.parent / "halves.toml").write_text(PROTOCOL)
    build(BuildRequest("folder", raw, out, protocol=protocols.load(str(raw.parent / "halves.toml"))))
    return open_dataset(out)


def make_run(street: Dataset, folder: Path, kind: str) -> Path:
    """A run folder of an untrained model, as far as search and pack read it."""
    name, options = {**MODELS, **PLACES}[kind]
    model = models.create(name, **options)
    save_model(folder / "checkpoints" / "best", model, {})
    fields = {"dataset": street.id, "dataset_path": str(street.path), "protocol": {}, "model": model.config}
    write_json_atomic(folder / "run.json", {**fields, "settings": {"model": name, "weights": "random", "epochs": 0}})
    return folder


def make_index(street: Dataset, folder: Path, kind: str, pca: int | None = None) -> tuple[indexer.PlaceIndex, Path]:
    run = make_run(street, folder / "run", kind)
    protocol = street.load_protocol("halves")
    request = IndexRequest(out=folder / "index", protocol=protocol, split="test", pca=pca)
    return indexer.open(build_index(street, RunDescriber(run, DescribeSettings("cpu")), request)), run

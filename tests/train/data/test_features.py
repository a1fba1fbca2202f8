"""Feature datasets: the same numbers as from pixels, and heads that train on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import train
from seqdata.errors import ContractError, InputError, NotEnoughDataError, OutputError
from seqdata.storage.files import write_json_atomic
from seqdata.storage.hashing import xxh3_file
from seqdata.storage.parquet import write_parquet_atomic
from tests.support.fake_dataset import FakeDataset
from train.data.describe import describe
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureFiles, FeatureManifest, FeaturePart, check_hashes, ids_table
from train.data.features import create_head, open_features
from train.models import registry as models
from train.settings import TrainSettings
from train.stages.features import FeatureRequest, write_features

ENCODER = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": None, "clusters": 4}
FULL = FeatureRequest(dtype="float32", settings=DescribeSettings("cpu"), batch_size=16)


def encoder(name: Any = "netvlad-cat-small") -> Any:
    return models.create(name, **ENCODER)


def test_rows_are_what_the_encoder_gives(data: FakeDataset, tmp_path: Path) -> None:
    model = encoder()
    manifest = write_features(model, data, tmp_path / "f", FULL)
    assert manifest.rows == len(data.pixels) and manifest.shape == (4 * 64,)
    files = FeatureFiles(tmp_path / "f")
    rows = np.array([7, 3, 3, 101, 0])
    with torch.no_grad():
        wanted = model.encode_frames(torch.from_numpy(data.pixels[rows]))
    np.testing.assert_allclose(files.read(rows), wanted.numpy(), atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "f" / "part-00000.npy")[rows], files.read(rows))
    check_hashes(tmp_path / "f")


def test_parts_are_cut_and_read_across(data: FakeDataset, tmp_path: Path) -> None:
    request = FeatureRequest(settings=DescribeSettings("cpu"), batch_size=4, part_bytes=10 * 256 * 2)
    write_features(encoder(), data, tmp_path / "f", request)
    files = FeatureFiles(tmp_path / "f")
    assert len(files.manifest.parts) == 11
    whole = np.concatenate([np.load(tmp_path / "f" / part.name) for part in files.manifest.parts])
    rows = np.random.default_rng(0).integers(0, len(whole), 300)
    np.testing.assert_array_equal(files.read(rows), whole[rows])
    files.close()


def test_a_pca_becomes_the_projection(data: FakeDataset, tmp_path: Path) -> None:
    request = FeatureRequest(dtype="float32", settings=DescribeSettings("cpu"), pca=6)
    write_features(encoder(), data, tmp_path / "f", request)
    source = open_features(tmp_path / "f", data)
    found = source.read(np.arange(20))
    assert found.shape == (20, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        raw = encoder().encode_frames(torch.from_numpy(data.pixels)).double().numpy()
    centred = raw - raw.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    white = centred[:20] @ axes[:6].T / (sizes[:6] / np.sqrt(len(raw) - 1))
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(found), np.abs(white), atol=2e-3)
    with pytest.raises(NotEnoughDataError):
        write_features(encoder(), data, tmp_path / "g", FeatureRequest(settings=DescribeSettings("cpu"), pca=200))


@pytest.mark.parametrize(
    "name", ["netvlad-cat-small", "seqnet-small", "seqgem-small", "seqmatchnet-small", "delta-small"]
)
def test_descriptors_from_features_are_those_from_pixels(data: FakeDataset, tmp_path: Path, name: str) -> None:
    write_features(encoder(), data, tmp_path / "f", FULL)
    source = open_features(tmp_path / "f", data)
    model = create_head(source, name, 0, {"width": 5} if name in ("seqnet-small", "seqmatchnet-small") else {})
    table = data.sequences(length=3)
    stored = describe(model, data, table, device="cpu", source=source)
    data.read_rows.clear()
    np.testing.assert_allclose(stored, describe(model, data, table, device="cpu"), atol=1e-4)
    assert data.read_rows  # the second time pixels were read


@pytest.mark.parametrize(
    ("level", "model", "head", "regime"),
    [
        ("frame", "netvlad-cat-small", "seqnet-small", "triplet"),
        ("frame", "netvlad-cat-small", "netvlad-fc-small", "places"),
        ("frame", "netvlad-cat-small", "seqmatchnet-small", "triplet"),
        ("token", "seqvlad-small", "seqvlad-small", "triplet"),
    ],
)
def test_a_head_trains_without_pixels_and_loads_as_a_whole_model(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, level: Any, model: Any, head: Any, regime: Any
) -> None:
    options = {**ENCODER, "clusters": 4}
    write_features(
        models.create(model, **options),
        data,
        tmp_path / "f",
        FeatureRequest(level=level, settings=DescribeSettings("cpu")),
    )
    data.read_rows.clear()
    wanted = {"clusters": 4} if level == "token" else {"length": 3, "width": 8}
    read_by_one = {"round_queries": 8, "rounds": 1, "negatives": 2, "batch": 4, "places": 4, "steps": 3}
    chosen = TrainSettings.create(
        None, read_by_one, model=head, options=wanted, features=str(tmp_path / "f"), protocol=protocol_file,
        regime=regime, lr=1e-2, epochs=2, device="cpu", kmeans_frames=20, shift=0.1, light=0.2,
    )  # fmt: skip
    run = train.fit(data, chosen, tmp_path / "run")
    assert data.read_rows == []
    record = json.loads((run / "run.json").read_text())
    assert record["features"] == open_features(tmp_path / "f", data).files.manifest.id
    whole = train.load_model(run)
    window = torch.from_numpy(data.read(data.sequences(length=3), [0, 5]))
    assert whole(window).shape == (2, record["descriptor_size"])
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["losses"]
    assert all(np.isfinite(first))


def test_features_of_an_earlier_version_keep_their_encoder_and_heads_say_what_pca_does(
    data: FakeDataset, tmp_path: Path
) -> None:
    """Their encoder's configuration lacks the options that came later."""
    write_features(encoder(), data, tmp_path / "f", FULL)
    table = data.sequences(length=3)
    heads = {"seqgem-small": True, "netvlad-cat-small": False}
    expected = {
        name: describe(create_head(open_features(tmp_path / "f", data), name, 0, {}), data, table, device="cpu")
        for name in heads
    }
    path = tmp_path / "f" / "encoder.json"
    details = json.loads(path.read_text())
    for option in (*models.preset("frames")[0].added, "normalise_after_pca"):
        del details["model"][option]
    path.write_text(json.dumps(details))
    for name, normalised in heads.items():
        head = create_head(open_features(tmp_path / "f", data), name, 0, {})
        np.testing.assert_array_equal(describe(head, data, table, device="cpu"), expected[name])
        assert head.config["normalise_after_pca"] is normalised


def test_other_datasets_damage_and_wrong_heads_are_named(data: FakeDataset, tmp_path: Path) -> None:
    write_features(encoder(), data, tmp_path / "f", FULL)
    source = open_features(tmp_path / "f", data)
    with pytest.raises(ContractError, match="belongs to the stored features"):
        create_head(source, "seqnet-small", 0, {"encoder": "resnet18"})
    with pytest.raises(ContractError, match="no function of frame features"):
        create_head(source, "sta-small", 0, {})
    with pytest.raises(ContractError, match="level token"):
        source.tokens(create_head(source, "seqgem-small", 0, {}), torch.zeros(1))
    data.id = "e" * 64
    with pytest.raises(ContractError, match="not of eeee"):
        open_features(tmp_path / "f", data)
    with pytest.raises(OutputError, match="not empty"):
        write_features(encoder(), data, tmp_path / "f", FULL)
    with pytest.raises(InputError, match="no feature dataset"):
        FeatureFiles(tmp_path)
    part = tmp_path / "f" / "part-00000.npy"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(ContractError, match="not the bytes"):
        check_hashes(tmp_path / "f")
    part.write_bytes(part.read_bytes()[:-4])
    with pytest.raises(ContractError, match="part-00000"):
        FeatureFiles(tmp_path / "f")


def test_only_described_frames_can_be_read_and_models_must_be_framewise(data: FakeDataset, tmp_path: Path) -> None:
    write_features(encoder(), data, tmp_path / "f", FULL, frames=np.array([2, 5, 9]))
    files = FeatureFiles(tmp_path / "f")
    assert files.read(np.array([9, 2])).shape == (2, 256)
    for missing in ([3], [100], [0]):
        with pytest.raises(ContractError, match=f"such as frame {missing[0]}"):
            files.read(np.array(missing))
    with pytest.raises(ContractError, match="no function of single frames"):
        write_features(models.create("r2plus1d-small"), data, tmp_path / "g", FULL)
    with pytest.raises(ContractError, match="one vector a frame"):
        write_features(models.create("seqvlad-small", **ENCODER), data, tmp_path / "g", FeatureRequest(pca=3))


def test_flips_in_a_feature_dataset_are_named(tmp_path: Path) -> None:
    """Ids and parts are hashed when features are opened: a flipped bit would train, or look up, silently."""
    folder = tmp_path / "features"
    folder.mkdir()
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.save(folder / "part-00000.npy", values)
    frames = np.array([0, 1, 2, 5, 6, 9])
    write_parquet_atomic(ids_table(frames, pl.Series([f"k{row}" for row in frames])), folder / "ids.parquet")
    start = (folder / "part-00000.npy").stat().st_size - values.nbytes
    part = FeaturePart(name="part-00000.npy", rows=6, start=start, hash=xxh3_file(folder / "part-00000.npy"))
    fields: dict[str, Any] = {"level": "frame", "dataset": "d", "encoder": "e", "shape": (4,), "dtype": "float32"}
    manifest = FeatureManifest(**fields, rows=6, parts=(part,), ids_hash=xxh3_file(folder / "ids.parquet"))
    write_json_atomic(folder / "manifest.json", manifest.model_dump(mode="json"))
    assert (FeatureFiles(folder).read(np.array([9, 0])) == values[[5, 0]]).all()
    assert manifest.id == FeatureManifest(**fields, rows=6, parts=(part,)).id
    for name in ("part-00000.npy", "ids.parquet"):
        whole = (folder / name).read_bytes()
        for position in range(10, len(whole), len(whole) // 9):
            damaged = bytearray(whole)
            damaged[position] ^= 4
            (folder / name).write_bytes(damaged)
            with pytest.raises(ContractError, match=name):
                FeatureFiles(folder)
        (folder / name).write_bytes(whole)
    keys = pl.Series(["k"] * 6)
    for table in (pl.DataFrame({"a": [1]}), ids_table(frames[::-1], keys), ids_table(frames - 3, keys)):
        write_parquet_atomic(table, folder / "ids.parquet")
        write_json_atomic(
            folder / "manifest.json", manifest.model_copy(update={"ids_hash": ""}).model_dump(mode="json")
        )
        with pytest.raises(ContractError, match=r"ids\.parquet"):
            FeatureFiles(folder)


def test_a_head_that_reads_the_cls_token_is_refused_on_tokens_without(data: FakeDataset, tmp_path: Path) -> None:
    """SALAD would take the first token of the grid for the CLS token without a word."""
    vit = {"encoder": "test_vit", "size": (32, 32), "encoder_options": {"dynamic_img_size": True}}
    model = models.create("seqvlad-vit", **vit, clusters=2, trainable="none", cut=None)
    write_features(model, data, tmp_path / "f", FeatureRequest(level="token", settings=DescribeSettings("cpu")))
    source = open_features(tmp_path / "f", data)
    with pytest.raises(ContractError, match="holds tokens of 'grid', pooling 'salad' reads 'all'"):
        create_head(source, "salad-mean-dinov2-s", 0, {})
    options = {"clusters": 2, "pooling_options": {"global_from": "mean", "hidden": 4, "width": 2}}
    head = create_head(source, "salad-mean-dinov2-s", 0, options)
    assert head.descriptor_size(3) == 256 + 2 * 2 and head.config["pooling_options"]["hidden"] == 4


def test_a_released_map_is_not_replaced_by_a_pca(data: FakeDataset, tmp_path: Path) -> None:
    model = models.create("cosplace-r18", encoder="resnet10t", cut="layer1", size=(16, 24), projection=8)
    with pytest.raises(ContractError, match="the model's own trained map"):
        write_features(model, data, tmp_path / "f", FeatureRequest(settings=DescribeSettings("cpu"), pca=4))
    assert not (tmp_path / "f").exists()
    assert write_features(model, data, tmp_path / "f", FULL).shape == (8,)

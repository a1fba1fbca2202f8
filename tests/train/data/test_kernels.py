"""The resize kernel of a run: recorded by new ones, part of what is described with it, and Pillow's for older ones."""

import json
from pathlib import Path

import pytest

from seqdata.errors import ContractError
from seqdata.frames.resize import default_kernel
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureManifest
from train.runs.record import recorded_kernel
from train.settings import TrainSettings


def write_run(folder: Path, settings: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_a_new_run_records_its_kernel_and_an_older_one_keeps_pillow(tmp_path: Path) -> None:
    assert TrainSettings.create(protocol="own").resize == default_kernel()
    assert TrainSettings.create(None, {"protocol": "own"}).resize == "pillow"  # resumed, begun before there were any
    assert TrainSettings.create(None, {"protocol": "own", "resize": "scaled"}).resize == "scaled"
    assert recorded_kernel(write_run(tmp_path / "old", {})) == "pillow"
    run = write_run(tmp_path / "new", {"resize": "fast"})
    assert recorded_kernel(run) == recorded_kernel(run / "checkpoints" / "best.safetensors") == "fast"
    with pytest.raises(ContractError, match="resize kernel 'bicubic'"):
        recorded_kernel(write_run(tmp_path / "odd", {"resize": "bicubic"}))


def test_a_kernel_by_name_is_part_of_the_identity_of_vectors() -> None:
    assert DescribeSettings("cpu").arithmetic == DescribeSettings("cpu", resize="pillow").arithmetic == {}
    fast = DescribeSettings("cpu", resize="fast")
    assert fast.arithmetic == {"resize": "fast"}
    assert DescribeSettings("cpu", runtime="onnx", resize="fast").arithmetic == {"runtime": "onnx", "resize": "fast"}
    assert DescribeSettings("cpu").of_vectors(fast.arithmetic).resize == "fast"
    assert fast.of_vectors({}).resize == "pillow"


def test_features_of_the_usual_kernel_keep_their_id() -> None:
    fields = {
        "level": "frame",
        "dataset": "d",
        "encoder": "e",
        "shape": (2,),
        "dtype": "float32",
        "rows": 1,
    }
    plain, fast = (FeatureManifest(**fields, parts=(), **more) for more in ({}, {"resize": "fast"}))
    assert "resize" not in plain.model_dump(mode="json")
    assert plain.id != fast.id

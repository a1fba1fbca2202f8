"""Descriptors by ONNX Runtime: those of PyTorch, under an identity of their own."""

from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from tests.support.street import MODELS, build_street, make_run, write_street
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureFiles
from train.runs.checkpoint import load_model
from train.stages.describer import RunDescriber, query_describer
from train.stages.features import FeatureRequest, write_features
from train.stages.search import search_frames


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    raw = write_street(tmp_path_factory.mktemp("street") / "raw")
    return build_street(raw, raw.parent / "dataset")


@pytest.mark.parametrize("kind", MODELS)
def test_descriptors_are_those_of_torch(street: Dataset, tmp_path: Path, kind: str) -> None:
    """At the frames' own size, and (the model cat) at one that frames are resized to."""
    run = make_run(street, tmp_path / "run", kind)
    torch_side = RunDescriber(run, DescribeSettings("cpu"))
    windows = street.sequences(street.load_protocol("halves"), "test", "query")
    expected = torch_side.vectors(street, windows)
    exported = RunDescriber(run, DescribeSettings("cpu", runtime="onnx")).vectors(street, windows)
    np.testing.assert_allclose(exported, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_runtime_is_part_of_what_an_index_is(street: Dataset, tmp_path: Path) -> None:
    run = make_run(street, tmp_path / "run", "sum")
    request = IndexRequest(out=tmp_path / "index", protocol=street.load_protocol("halves"), split="test")
    ours = indexer.open(build_index(street, RunDescriber(run, DescribeSettings("cpu", runtime="onnx")), request))
    plain = indexer.open(build_index(street, RunDescriber(run, DescribeSettings("cpu")), request))
    assert ours.id != plain.id
    assert (ours.computed, plain.computed) == ({"runtime": "onnx"}, {})
    assert query_describer(ours, run).settings.runtime == "onnx"
    assert query_describer(plain, run).settings.runtime == "torch"
    frames = sorted((street.path.parent / "raw").glob("query-*.jpg"))[20:26]
    answers = [
        list(search_frames(plain, frames, query_describer(plain, run, DescribeSettings("cpu"), runtime), 1))
        for runtime in ("torch", "onnx")
    ]
    for one, other in zip(*answers, strict=True):
        assert one.places[0]["key"] == other.places[0]["key"]
        assert other.places[0]["distance"] == pytest.approx(one.places[0]["distance"], abs=2e-5)


def test_features_are_those_of_torch_and_say_what_made_them(street: Dataset, tmp_path: Path) -> None:
    run = make_run(street, tmp_path / "run", "mean")
    stored = {}
    for runtime in ("torch", "onnx"):
        request = FeatureRequest(dtype="float32", settings=DescribeSettings("cpu", runtime=runtime))
        write_features(load_model(run), street, tmp_path / runtime, request)
        stored[runtime] = FeatureFiles(tmp_path / runtime)
    rows = np.arange(stored["torch"].manifest.rows)
    np.testing.assert_allclose(stored["onnx"].read(rows), stored["torch"].read(rows), atol=1e-5)
    assert stored["onnx"].manifest.id != stored["torch"].manifest.id
    assert "runtime" not in stored["torch"].manifest.model_dump()


def test_a_card_is_refused() -> None:
    with pytest.raises(ContractError, match="--runtime onnx describes on the CPU"):
        DescribeSettings("cuda", runtime="onnx")

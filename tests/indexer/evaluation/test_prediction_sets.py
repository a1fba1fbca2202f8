"""Sets of predictions as a notebook uses them: own files, other models, names that differ, what is stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.evaluation import predictions
from indexer.evaluation.prediction_sets import (
    ExternalModel,
    PredictionSet,
    compare_sets,
    distinct_methods,
    external_descriptors,
    own_predictions,
)
from indexer.evaluation.scoring import read_recorded
from indexer.matching.rerank import rerank_set
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, OutputError


@pytest.fixture
def exact(dataset: Dataset, tmp_path: Path) -> PredictionSet:
    """Predictions of a model whose descriptor is the easting."""
    files = []
    for role in ("query", "database"):
        places = dataset.places(dataset.sequences("own", "test", role))
        files.append(tmp_path / f"{role}.npy")
        np.save(files[-1], (places["easting"].to_numpy() - 500_000)[:, None].astype("f4"))
    model = ExternalModel(dataset, (protocols.load("own"),), tmp_path / "judged", name="easting")
    (item,) = external_descriptors(model, *files)
    return item


def test_another_model_is_stored_and_read_again(exact: PredictionSet, dataset: Dataset) -> None:
    lines: list[str] = []
    evaluation = exact.score_and_store(lines.append, full=True)
    assert evaluation.recall[1] == 1.0
    assert exact.path is not None
    assert exact.folder is not None
    assert lines == [f"predictions: {exact.path}"]
    assert read_recorded(exact.folder)[0].recall == evaluation.recall
    (again,) = own_predictions(dataset, exact.path)
    assert again.score().recall == evaluation.recall
    assert again.table.equals(exact.table)
    with pytest.raises(ContractError, match="answers split test"):
        own_predictions(dataset, exact.path, split="val")


def test_a_smaller_radius_is_another_protocol(exact: PredictionSet) -> None:
    assert exact.score(radius=5.0).protocol == "own-r5"


def test_sets_of_one_name_are_told_apart_by_index_then_file(exact: PredictionSet) -> None:
    def named(index: str | None, source: str) -> PredictionSet:
        return replace(exact, info=exact.info.model_copy(update={"index": index}), source=Path(source))

    methods = [item.info.method for item in distinct_methods([named("a" * 16, "x"), named("b" * 16, "x")])]
    assert methods == ["easting [aaaaaaaa]", "easting [bbbbbbbb]"]
    methods = [item.info.method for item in distinct_methods([named(None, "1/one.npy"), named(None, "2/two.npy")])]
    assert methods == ["easting [one]", "easting [two]"]
    methods = [item.info.method for item in distinct_methods([named(None, "1/one.npy"), named(None, "2/one.npy")])]
    assert methods == ["easting [1/one.npy]", "easting [2/one.npy]"]
    assert [item.info.method for item in distinct_methods([exact, exact])] == ["easting", "easting"]


def test_only_the_answer_of_an_index_may_fail_to_be_stored(exact: PredictionSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = replace(exact, path=tmp_path / "file" / "p.parquet", folder=None)
    with pytest.raises(OutputError):
        blocked.score_and_store(lambda line: None)
    lines: list[str] = []
    of_index = replace(blocked, info=blocked.info.model_copy(update={"index": "a" * 16}))
    assert of_index.score_and_store(lines.append).recall[1] == 1.0
    assert len(lines) == 1
    assert lines[0].startswith("not kept: ")


def test_reranked_sets_and_comparison(exact: PredictionSet) -> None:
    reranked = rerank_set(exact, 2, "rerank2")
    assert exact.path is not None
    assert reranked.path == exact.path.with_name(f"{exact.path.stem}-rerank2.parquet")
    assert not reranked.is_stored
    comparison = compare_sets(exact, reranked)
    assert (comparison.first, comparison.queries) == ("easting", 26)
    predictions.write(reranked.path, reranked.table, reranked.info)

"""An answer in parts of the queries, by array jobs or processes, is the answer of one command."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.evaluation import predictions
from indexer.place_index import PlaceIndex, open_index
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from tests.support.street import build_street, make_run, write_street
from train.data.describe_settings import DescribeSettings
from train.runs.record import predictions_path
from train.stages.answers import AnswerOptions, QuerySearch, answer_protocols
from train.stages.describer import RunDescriber
from train.stages.evaluate import answer

CPU = DescribeSettings("cpu")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    raw = write_street(tmp_path_factory.mktemp("street") / "raw")
    return build_street(raw, raw.parent / "dataset")


@pytest.fixture
def search(street: Dataset, tmp_path: Path) -> QuerySearch:
    run = make_run(street, tmp_path / "run", "sum")
    protocol = street.load_protocol("halves")
    request = IndexRequest(tmp_path / "index", protocol, pca=6)
    index = open_index(build_index(street, RunDescriber(run, CPU), request))
    return QuerySearch(street, index, run, protocol, CPU)


def whole_answer(search: QuerySearch) -> tuple[pl.DataFrame, predictions.PredictionsInfo]:
    ((table, info),) = answer(search.dataset, search.index, search.run, search.protocol, settings=CPU)
    return table, info


def test_parts_in_any_order_are_the_answer_of_one_command(search: QuerySearch) -> None:
    counts = [search.write_part(number, 3) for number in (3, 1)]
    assert search.join_parts() is None, "a part is missing"
    search.write_part(1, 2)  # a part of another division is passed over
    counts.append(search.write_part(2, 3))
    joined, expected = search.join_parts(), whole_answer(search)
    assert joined is not None
    assert joined[0].equals(expected[0])
    assert joined[1] == expected[1]
    assert sum(counts) == expected[1].queries


def test_eval_joins_what_jobs_have_stored_and_stores_it_as_its_own(
    search: QuerySearch, files_of: Callable[[Path], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = predictions_path(search.run, search.index, search.protocol)
    expected = whole_answer(search)
    for number in (1, 2):
        search.write_part(number, 2)
    monkeypatch.setattr("train.stages.evaluate.search_queries", lambda *_: pytest.fail("searched again"))
    (result,) = answer_protocols(search.dataset, search.index, search.run, [search.protocol])
    assert result.is_stored
    assert predictions.read(path)[0].equals(expected[0])
    assert predictions.read(path)[1] == expected[1]
    assert not search.folder.exists()


def test_processes_give_the_answer_of_one(search: QuerySearch) -> None:
    options = AnswerOptions(settings=CPU, workers=2, again=True)
    (result,) = answer_protocols(search.dataset, search.index, search.run, [search.protocol], options)
    stored = predictions.read(predictions_path(search.run, search.index, search.protocol))[0]
    assert stored.equals(whole_answer(search)[0])
    assert result.is_stored


def test_a_damaged_part_is_named(search: QuerySearch) -> None:
    search.write_part(1, 1)
    search.part(1, 1).write_bytes(b"x")
    with pytest.raises(ContractError, match=r"part-00001-of-00001\.parquet"):
        search.join_parts()


def test_an_index_opened_by_another_engine_says_so(search: QuerySearch) -> None:
    assert PlaceIndex(search.index.path, engine="cpu").engine == "cpu"

"""What other models bring: descriptors and predictions, judged under a protocol; wrong files are one clear line."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from indexer.evaluation import external_descriptors as foreign
from indexer.evaluation import external_files as foreign_files
from indexer.evaluation import predictions
from indexer.evaluation.comparison import compare
from indexer.evaluation.scoring import score
from indexer.evaluation.text_tables import format_table
from indexer.evaluation.truth import fits, pools_of, with_radius
from indexer.matching.baselines import match_frames
from indexer.matching.frame_vectors import FrameVectors
from indexer.matching.rerank import rerank_frames
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError

OWN = protocols.load("own")
SELF = OWN.model_copy(
    update={"name": "self", "splits": {"test": protocols.Split(database=("map",), query=("map",))}, "radius": 4.0}
)


def sides(dataset: Dataset) -> list[pl.DataFrame]:
    return [dataset.places(dataset.sequences(OWN, "test", role)) for role in ("query", "database")]


def saved(path: Path, array: object) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def described(dataset: Dataset, folder: Path, dtype: str = "float32") -> tuple[Path, Path]:
    """Descriptors that are positions along the street: the right window is the nearest."""
    files = []
    for name, places in zip(("q", "d"), sides(dataset), strict=True):
        east = places["easting"].to_numpy()
        files.append(saved(folder / f"{name}.npy", np.stack([east - 500_000, np.ones(len(east))], 1).astype(dtype)))
    return files[0], files[1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_descriptors_in_the_tables_order(dataset: Dataset, tmp_path: Path, dtype: str) -> None:
    query, database = described(dataset, tmp_path, dtype)
    table, info = foreign.search_descriptors(dataset, OWN, "test", query, database)
    found = score(dataset, OWN, table, info)
    assert (found.recall[1], found.size, found.length, found.method) == (1.0, 2, OWN.length, "q, L2")
    assert info.protocol_hash == OWN.hash


def test_ids_put_rows_in_place(dataset: Dataset, tmp_path: Path) -> None:
    """Rows in any order, with rows of other windows among them, in each kind of file."""
    query, database = described(dataset, tmp_path)
    plain = foreign.search_descriptors(dataset, OWN, "test", query, database)[0]
    rng = np.random.default_rng(0)
    files = []
    for path, places, kind in zip((query, database), sides(dataset), ("txt", "csv"), strict=True):
        order = rng.permutation(places.height)
        keys = [*places["key"][order].to_list(), "a-stranger"]
        saved(path, np.vstack([np.load(path)[order], [[1e6, 0]]]).astype("f4"))
        files.append(tmp_path / f"{path.stem}.{kind}")
        files[-1].write_text("\n".join((["key"] if kind == "csv" else []) + keys) + "\n")
    table, _ = foreign.search_descriptors(
        dataset, OWN, "test", query, database, query_ids=files[0], database_ids=files[1]
    )
    assert table.equals(plain)
    keys = foreign_files.read_ids(files[1])
    keys.to_frame().write_parquet(tmp_path / "d.parquet")
    assert foreign_files.read_ids(tmp_path / "d.parquet").equals(keys)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("block", [1, 50, 1 << 25])
def test_search_equals_direct_loop(monkeypatch: pytest.MonkeyPatch, cosine: bool, block: int) -> None:
    monkeypatch.setattr(foreign, "BLOCK_VALUES", block)
    monkeypatch.setattr(foreign, "QUERIES_A_BLOCK", 7)
    rng = np.random.default_rng(0)
    query, database = rng.normal(size=(20, 5)).astype("f4"), rng.normal(size=(40, 5)).astype("f4")
    asked, stored = np.arange(3, 20), rng.permutation(40)[:30]
    distances, rows = foreign.nearest(query, asked, database, stored, 6, cosine=cosine)
    for line, one in enumerate(asked):
        a, b = query[one].astype("f8"), database[stored].astype("f8")
        cosines = b @ a / np.linalg.norm(b, axis=1) / np.linalg.norm(a)
        apart = 1 - cosines if cosine else np.linalg.norm(b - a, axis=1)
        assert rows[line].tolist() == np.argsort(apart)[:6].tolist()
        np.testing.assert_allclose(distances[line], np.sort(apart)[:6], rtol=1e-4)
    assert foreign.nearest(query, asked, database, stored[:2], 6)[1].shape == (17, 2)


def test_wrong_descriptors_are_named(dataset: Dataset, tmp_path: Path) -> None:
    query, database = described(dataset, tmp_path)
    good = np.load(query)

    def refused(words: str, error: type[Exception] = ContractError, **ids: Path) -> None:
        with pytest.raises(error, match=words) as caught:
            foreign.search_descriptors(dataset, OWN, "test", query, database, **ids)
        assert "\n" not in str(caught.value)

    for wrong, words in (
        (good[:-1], r"q\.npy: 25 descriptors, the protocol has 26 query windows"),
        (good[:, :1], "descriptors of 1 numbers, those of .* have 2"),
        (good[0], r"q\.npy: shape \(2,\)"),
        (good.astype(int), r"q\.npy: shape .*int64"),
        (np.array([{"a": 1}], object), r"q\.npy: no \.npy file of numbers"),
        (np.where(good == good[3], np.nan, good), "NaN"),
    ):
        saved(query, wrong)
        refused(words)
    query.write_bytes(pickle.dumps({"evil": 1}))
    refused(r"q\.npy: no \.npy file of numbers")
    query.write_bytes(b"")
    refused(r"q\.npy: no \.npy file of numbers")
    with query.open("wb") as file:
        np.savez(file, a=good)
    refused("npz archive")
    query.unlink()
    refused("no such file", InputError)
    saved(query, good)
    keys = sides(dataset)[0]["key"].to_list()
    ids = tmp_path / "ids.txt"
    for listed, words in (
        (keys[:-1], "25 ids for the 26 descriptors"),
        ([*keys[:-1], keys[0]], "stands there twice"),
        ([*keys[:-1], "other"], "lacks 1 of 26 query windows"),
    ):
        ids.write_text("\n".join(listed))
        refused(words, query_ids=ids)
    ids.with_suffix(".csv").write_text("name,note\na,b\n")
    refused("no column 'key'", query_ids=ids.with_suffix(".csv"))


def ranked(dataset: Dataset) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Pairs by key: the three nearest database windows of each query but the first, with rank and distance."""
    query, database = sides(dataset)
    apart = np.abs(query["easting"].to_numpy()[:, None] - database["easting"].to_numpy())
    near = np.argsort(apart, axis=1, kind="stable")[:, :3]
    rows = np.arange(1, query.height)
    table = {
        "query": np.repeat(query["key"].to_numpy()[rows], 3),
        "database": database["key"].to_numpy()[near[rows].ravel()],
        "rank": np.tile([1, 2, 3], len(rows)),
        "distance": np.take_along_axis(apart, near, 1)[rows].ravel(),
    }
    return pl.DataFrame(table), [query, database]


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "object.json", "rows.parquet", "rows.csv", "distance.csv"])
def test_predictions_of_another_model(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    table, _ = ranked(dataset)
    path = tmp_path / f"theirs.{kind}"
    shuffled = table.sample(fraction=1, shuffle=True, seed=0)
    if kind.startswith("rows"):
        shuffled = as_rows(dataset, shuffled)
    if kind == "object.json":
        lists = table.group_by("query", maintain_order=True).agg("database")
        path.write_text(json.dumps(dict(lists.rows())))
    elif kind == "json":
        path.write_text(json.dumps(shuffled.to_dicts()))
    elif kind == "distance.csv":
        shuffled.drop("rank").write_csv(path)
    else:
        shuffled.write_parquet(path) if kind.endswith("parquet") else shuffled.write_csv(path)
    assert not foreign_files.is_own(path)
    read, info = foreign_files.read_predictions(dataset, OWN, "test", path)
    found = score(dataset, OWN, read, info, full=True)
    written = as_rows(dataset, table).select("query", "rank", "database")
    if kind != "distance.csv":  # of equal distances the order is that of the shuffled rows
        assert read.select("query", "rank", "database").rows() == written.rows()
    answered = dataset.protocol_positives(OWN, "test")["query"].n_unique()
    assert found.recall == {1: pytest.approx((answered - 1) / answered)}  # the first query has no predictions
    assert (found.metrics.auc is None) == (kind == "object.json")
    assert found.metrics.depth == 3
    predictions.write(tmp_path / "kept.parquet", read, info)
    assert foreign_files.is_own(tmp_path / "kept.parquet")


def test_ranks_may_be_written_as_floats(dataset: Dataset, tmp_path: Path) -> None:
    table, _ = ranked(dataset)
    expected, _ = foreign_files.read_predictions(dataset, OWN, "test", written(table, tmp_path / "whole.csv"))
    floats = written(table.with_columns(pl.col("rank").cast(pl.Float64)), tmp_path / "floats.csv")
    assert foreign_files.read_predictions(dataset, OWN, "test", floats)[0].equals(expected)


def written(table: pl.DataFrame, path: Path) -> Path:
    table.write_csv(path)
    return path


def test_wrong_predictions_are_named(dataset: Dataset, tmp_path: Path) -> None:
    table, _ = ranked(dataset)
    path = tmp_path / "theirs.csv"
    unknown = table.with_columns(
        pl.when(pl.col("rank") == 2).then(pl.lit("x9")).otherwise("database").alias("database")
    )
    for wrong, words in (
        (table.drop("database"), "no column 'database'"),
        (table.head(0), "no predictions in it"),
        (unknown, r"theirs\.csv: column 'database' names 'x9', which is no database window"),
        (table.with_columns(pl.lit(1).alias("rank")), "a rank twice"),
        (pl.concat([table, table]), "same database window twice"),
        (table.with_columns(pl.lit("near").alias("distance")), "column 'distance' has 'near' in row 1, no number"),
        (table.with_columns(pl.lit("90 %").alias("score")), "column 'score' has '90 %' in row 1, no number"),
        (table.with_columns(pl.col("rank") + 0.5), "column 'rank' has '1.5' in row 1, no whole number"),
        (table.with_columns(pl.lit(999).alias("query")), "column 'query' names '999'"),
        (table.with_columns(pl.lit(None).alias("rank")), "empty cells"),
    ):
        wrong.write_csv(path)
        with pytest.raises(ContractError, match=words) as caught:
            foreign_files.read_predictions(dataset, OWN, "test", path)
        assert "\n" not in str(caught.value)
    for name, data in (("a.json", b"[1, 2"), ("b.json", b"7"), ("c.json", b"[" * 90_000), ("d.parquet", b"PAR1x")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ContractError, match=name):
            foreign_files.read_predictions(dataset, OWN, "test", tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        foreign_files.read_predictions(dataset, OWN, "test", tmp_path / "absent.csv")


def read_recall(dataset: Dataset, path: Path, **options: str) -> tuple[dict[int, float], str | None]:
    table, info = foreign_files.read_predictions(dataset, OWN, "test", path, **options)
    result = score(dataset, OWN, table, info)
    assert result.metrics is None
    assert result.ranked_by == info.ranked_by
    return result.recall, result.ranked_by


def write_any(table: pl.DataFrame, path: Path) -> Path:
    """A table in the kind of file that its name says."""
    if path.suffix == ".json":
        path.write_text(json.dumps(table.to_dicts()))
    else:
        table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return path


def as_rows(dataset: Dataset, table: pl.DataFrame) -> pl.DataFrame:
    """Pairs by key as pairs by row number."""
    query, database = ({key: row for row, key in enumerate(side["key"].to_list())} for side in sides(dataset))
    return table.with_columns(pl.col("query").replace_strict(query), pl.col("database").replace_strict(database))


KINDS = ("parquet", "csv", "json")


class Renamed:
    """A dataset whose centre frames are called otherwise: `keys(role, row)`."""

    def __init__(self, dataset: Dataset, name: Callable[[int], str]) -> None:
        self._dataset, self._name = dataset, name

    def __getattr__(self, name: str) -> object:
        return getattr(self._dataset, name)

    def places(self, table: pl.DataFrame) -> pl.DataFrame:
        offset = 0 if table["role"][0] == "database" else 100
        names = [self._name(offset + row) for row in range(table.height)]
        return self._dataset.places(table).with_columns(pl.Series("key", names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 4])
def test_ids_have_one_meaning_a_file(dataset: Dataset, tmp_path: Path, kind: str, width: int) -> None:
    """Frames called 1.jpg, 2.jpg …: keys and row numbers look alike, whatever kind of file holds them."""
    named = Renamed(dataset, lambda row: str(row + 1).zfill(width))  # database 1 …, queries 101 …
    table, _ = ranked(dataset)
    rows = as_rows(dataset, table)
    plain = read_recall(dataset, write_any(table, tmp_path / f"plain.{kind}"))
    keys = rows.with_columns(pl.col("query") + 101, pl.col("database") + 1)
    texts = keys.with_columns(pl.col("query", "database").cast(pl.String).str.zfill(width))
    for content in (rows, keys, keys.cast({"query": pl.UInt64, "database": pl.UInt16}), texts):
        assert read_recall(named, write_any(content, tmp_path / f"t.{kind}")) == plain
    mixed = keys.with_columns(database=rows["database"])
    with pytest.raises(ContractError, match=r"column 'database' names '0', which is no.* in both columns"):
        read_recall(named, write_any(mixed, tmp_path / f"mixed.{kind}"))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_fit_both_ways_are_asked_for(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    named = Renamed(dataset, lambda row: str(row - 100 if row >= 100 else (row + 7) % 36))
    rows = as_rows(dataset, ranked(dataset)[0])
    path = write_any(rows, tmp_path / f"t.{kind}")
    with pytest.raises(
        ContractError, match=r"fit as keys of centre frames and as row numbers.*--ids keys or --ids rows"
    ):
        read_recall(named, path)
    by_rows, by_keys = (read_recall(named, path, ids=ids)[0] for ids in ("rows", "keys"))
    assert by_rows[1] > by_keys[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["score", "similarity", " Score"])
def test_similarities_rank_from_the_greatest(dataset: Dataset, tmp_path: Path, kind: str, column: str) -> None:
    table, _ = ranked(dataset)
    mixed = table.sample(fraction=1, shuffle=True, seed=2)
    # Differences beyond float32: the order is that of the file's own numbers.
    scored = mixed.select("query", "database", (0.5 - 1e-12 * pl.col("distance")).alias(column))
    name = column.strip().lower()
    recall, ranked_by = read_recall(dataset, write_any(scored, tmp_path / f"t.{kind}"))
    assert recall == read_recall(dataset, write_any(table, tmp_path / f"ranked.{kind}"))[0]
    assert ranked_by == f"column '{name}', greatest first"
    read, info = foreign_files.read_predictions(dataset, OWN, "test", tmp_path / f"t.{kind}")
    result = score(dataset, OWN, read, info, full=True)
    assert f"theirs: ranked by {ranked_by}" in format_table([result.model_copy(update={"method": "theirs"})])
    assert result.metrics.auc is not None


def test_a_few_falling_steps_may_be_chance(dataset: Dataset, tmp_path: Path) -> None:
    """Two steps a query of three rows: nine are taken as they are, ten are an order."""
    falling = ranked(dataset)[0].with_columns(distance=4.0 - pl.col("rank"))
    path = write_any(falling.head(14), tmp_path / "t.csv")
    assert foreign_files.read_predictions(dataset, OWN, "test", path)[0].height == 14
    with pytest.raises(ContractError, match="falls within every query"):
        foreign_files.read_predictions(dataset, OWN, "test", write_any(falling.head(15), path))


def test_orders_that_cannot_be_meant_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    table, _ = ranked(dataset)
    path = tmp_path / "t.csv"
    nan = pl.when(pl.col("rank") == 2).then(float("nan")).otherwise("distance").alias("distance")
    near = 1 / (1 + pl.col("distance"))
    for wrong, words in (
        (table.with_columns(nan).drop("rank"), r"'distance' is NaN in 25 rows, first in row 2 \(query \d+\)"),
        (table.with_columns(nan), "'distance' is NaN"),
        (table.with_columns(score=pl.lit(float("nan"))), "'score' is NaN"),
        (table.with_columns(distance=-pl.col("distance")), r"holds negative numbers.*call it 'similarity'"),
        (table.with_columns(distance=near), "'distance' falls within every query as 'rank' rises"),
        (table.with_columns(distance=near).drop("rank"), "'distance' falls within every query as the file goes on"),
        (table.with_columns(score=pl.col("distance")).drop("distance"), "rank 1 has the lowest 'score'"),
        (table.with_columns(score=pl.col("distance")).drop("rank"), "'distance' and 'score' rank differently"),
        (table.select("query", "database", confidence="distance"), r"column 'confidence' holds numbers.*call it"),
        (table.with_columns(Rank="rank"), "several columns are called 'rank'"),
    ):
        wrong.write_csv(path)
        with pytest.raises(ContractError, match=words) as caught:
            foreign_files.read_predictions(dataset, OWN, "test", path)
        assert "\n" not in str(caught.value)
    both = table.with_columns(score=-pl.col("distance")).drop("rank").sample(fraction=1, shuffle=True, seed=0)
    assert read_recall(dataset, write_any(both, path))[1] == "column 'distance', least first"
    for text in ('{"a": {"b": 0.5}}', '{"a": "b"}', '{"a": [["b", 0.5]]}', '{"a": [true]}'):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(ContractError, match="not JSON of the form"):
            foreign_files.read_predictions(dataset, OWN, "test", tmp_path / "t.json")
    saved(tmp_path / "t.npy", np.zeros((3, 2)))
    with pytest.raises(ContractError, match="read from Parquet, CSV or JSON"):
        foreign_files.read_predictions(dataset, OWN, "test", tmp_path / "t.npy")


def test_bounds_of_ids_and_ranks(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row number, the greatest rank, a column without a name, and a key that two windows have."""
    rows = as_rows(dataset, ranked(dataset)[0]).select("query", "database", "rank")
    count = sides(dataset)[1].height
    last = rows.head(1).with_columns(database=pl.lit(count - 1))
    assert foreign_files.read_predictions(dataset, OWN, "test", write_any(last, tmp_path / "t.csv"))[0].height == 1
    beyond = write_any(last.with_columns(database=pl.lit(count)), tmp_path / "t.csv")
    with pytest.raises(ContractError, match=f"names '{count}', which is no database window"):
        foreign_files.read_predictions(dataset, OWN, "test", beyond)
    ids = tmp_path / "ids.csv"
    ids.write_text("anything\na\n")
    assert foreign_files.read_ids(ids).to_list() == ["a"]
    ids.with_suffix(".txt").write_text("\ufeffa b\n\n c \n", encoding="utf-8")
    assert foreign_files.read_ids(ids.with_suffix(".txt")).to_list() == ["a b", "c"]
    path = write_any(rows, tmp_path / "t.parquet")
    for deepest, words in ((3, None), (2, "more than 2 predictions for a query")):
        monkeypatch.setattr(foreign_files, "DEEPEST", deepest)
        if words is None:
            foreign_files.read_predictions(dataset, OWN, "test", path)
        else:
            with pytest.raises(ContractError, match=words):
                foreign_files.read_predictions(dataset, OWN, "test", path)
    monkeypatch.undo()
    named = Renamed(dataset, lambda row: "q" if row == 100 else str(row // 2))  # windows 2n and 2n + 1 have key n
    one = write_any(pl.DataFrame({"query": ["q"], "database": ["4"]}), tmp_path / "twins.parquet")
    assert foreign_files.read_predictions(named, OWN, "test", one)[0]["database"].to_list() == [8]


def test_short_lists_limit_the_ranks(dataset: Dataset, tmp_path: Path) -> None:
    """One query has 36 ranks, the others two: only R@1 is known of all; a query without any is a miss."""
    query, database = sides(dataset)
    pairs = [
        {"query": key, "database": other, "rank": rank}
        for number, key in enumerate(query["key"][:-1].to_list())
        for rank, other in enumerate(database["key"].to_list()[: None if number == 0 else 2], start=1)
    ]
    table, info = foreign_files.read_predictions(
        dataset, OWN, "test", write_any(pl.DataFrame(pairs), tmp_path / "t.parquet")
    )
    result = score(dataset, OWN, table, info)
    assert (set(result.recall), result.queries, result.unanswered) == ({1}, 26, 1)
    assert "26 queries, 1 of them without any prediction, a miss" in format_table([result])


def test_one_drive_in_both_roles_never_finds_itself(dataset: Dataset) -> None:
    """Frame by frame the nearest window is the query itself; the score must come from the others."""
    table, info = match_frames(dataset, SELF, "test", "aligned")
    nearest = table.filter(pl.col("rank") == 1)
    assert (nearest["query"] == nearest["database"]).all()
    found = score(dataset, SELF, table, info)
    length = SELF.length
    assert found.shared == 36 + 2 * sum(36 - gap for gap in range(1, length))
    assert found.recall[1] < 1.0
    again, said = rerank_frames(dataset, SELF, table, info, 20)
    rows = dataset.frame_rows(dataset.sequences(SELF, "test", "query"))
    for query, row in again.select("query", "database").rows():
        assert not set(rows[query]) & set(rows[row])
    assert "first 20 re-ranked (thumbnails, SAD)" in said.method


def remaining(dataset: Dataset, table: pl.DataFrame) -> list[int]:
    """How many of each query's predictions share no frame with it, one by one."""
    rows = dataset.frame_rows(dataset.sequences(SELF, "test", "query"))
    left = dict.fromkeys(table["query"].to_list(), 0)
    for query, row in table.select("query", "database").rows():
        left[query] += not set(rows[query]) & set(rows[row])
    return list(left.values())


def test_recall_is_told_as_deep_as_shared_pairs_leave_ranks(dataset: Dataset) -> None:
    """Predictions 20 deep, of which some are the query's own windows: R@20 of the rest is not known."""
    whole, info = match_frames(dataset, SELF, "test", "aligned")
    assert set(score(dataset, SELF, whole, info).recall) == {1, 5, 10, 20}  # all 36 windows are ranked: none is missing
    cut = whole.filter(pl.col("rank") <= 20)
    left = remaining(dataset, cut)
    assert 10 <= min(left) < 20
    found = score(dataset, SELF, cut, info)
    assert set(found.recall) == {1, 5, 10}
    assert found.recall == {n: score(dataset, SELF, whole, info).recall[n] for n in (1, 5, 10)}
    assert set(compare(dataset, SELF, (cut, info), (whole, info)).gaps) == {1, 5, 10}
    again, said = rerank_frames(dataset, SELF, cut, info, 20)
    assert again["rank"].max() == min(left)
    assert set(score(dataset, SELF, again, said).recall) == {1, 5, 10}
    with pytest.raises(ContractError, match=r"predictions of 1 ranks.*more ranks are needed"):
        score(dataset, SELF, whole.filter(pl.col("rank") == 1), info)


def test_pools_of_cities() -> None:
    queries, database = pl.DataFrame({"city": ["b", "a", "c"]}), pl.DataFrame({"city": ["a", "b", "b"]})
    assert pools_of(OWN, queries, database).tolist() == [3, 3, 3]
    assert pools_of(OWN.model_copy(update={"pool": "each"}), queries, database).tolist() == [2, 1, 0]


def test_rerank_with_frame_vectors_repairs_a_shuffled_list(dataset: Dataset) -> None:
    table, info = match_frames(dataset, OWN, "test", "frame")
    rng = np.random.default_rng(0)
    shuffled = table.with_columns(pl.Series("noise", rng.random(table.height))).sort("query", "noise").drop("noise")
    shuffled = shuffled.with_columns(pl.int_range(1, pl.len() + 1).over("query").cast(pl.Int16).alias("rank"))
    east = dataset.frame_columns("easting")["easting"].to_numpy()
    vectors = FrameVectors(lambda rows: np.stack([east[rows] - 500_000, np.ones(len(rows))], 1), "positions")
    repaired, said = rerank_frames(dataset, OWN, shuffled, info, 36, vectors=vectors, metric="l2")
    assert score(dataset, OWN, repaired, said).recall[1] == 1.0
    matched, named = match_frames(dataset, OWN, "test", "aligned", vectors=vectors, metric="l2")
    assert score(dataset, OWN, matched, named).recall[1] == 1.0
    assert named.method == "aligned frame matching (positions, L2, mean over the window)"


def test_methods_by_name(dataset: Dataset) -> None:
    names = {method: match_frames(dataset, OWN, "test", method)[1].method for method in ("seqslam", "delta")}
    assert names == {"seqslam": "SeqSLAM (SAD)", "delta": "Delta descriptors (thumbnails, cosine)"}


def test_comparison_and_radius(dataset: Dataset) -> None:
    first = match_frames(dataset, OWN, "test", "aligned")
    second = match_frames(dataset, OWN, "test", "frame")
    told = compare(dataset, OWN, first, second)
    assert told.gaps[1].first == score(dataset, OWN, *first).recall[1]
    assert told.gaps[1].second == score(dataset, OWN, *second).recall[1]
    assert (told.label, told.queries) == (OWN.label, 26)
    other = second[1].model_copy(update={"split": "val"})
    with pytest.raises(ContractError, match="different questions"):
        compare(dataset, OWN, first, (second[0], other))
    longer = OWN.variant(length=3)
    assert not fits(dataset, longer, first[1])
    assert fits(dataset, with_radius(OWN, 9), first[1])
    with pytest.raises(ContractError, match="cuts other windows"):
        compare(dataset, longer, first, second)
    near = score(dataset, OWN, *first, radius=3.0)
    assert near.protocol_hash == with_radius(OWN, 3.0).hash != OWN.hash
    assert near.recall[1] <= score(dataset, OWN, *first).recall[1]
    with pytest.raises(ContractError, match="radius -1"):
        with_radius(OWN, -1)


def test_breakdowns_of_a_dataset(dataset: Dataset) -> None:
    answered = match_frames(dataset, OWN, "test", "aligned")
    found = score(dataset, OWN, *answered, by=("subtask", "city", "night", "heading"))
    assert found.by["city"][dataset.trajectories["city"][0]].queries == found.queries
    assert set(found.by["night"]) == {"day"}
    assert set(found.by["heading"]) == {"same way, up to 45 deg"}
    with pytest.raises(ContractError, match="weather"):
        score(dataset, OWN, *answered, by=("weather",))


PLACES = np.cumsum(np.random.default_rng(0).standard_normal((1200, 64)), axis=0) / 100
NEAR_PLACES = PLACES[:1100] + 1e-2 * np.random.default_rng(1).standard_normal((1100, 64)) / 8
DIRECTION = np.full(64, 0.125)


@pytest.mark.parametrize(
    ("offset", "scale", "dtype"),
    [
        (0, 1, "f4"), (100, 1, "f4"), (8000, 1, "f4"), (0.125, 1e-3, "f4"), (1e9, 1e-3, "f8"), (0, 1, "f2"),
        (0, 1e-25, "f4"), (0, 1e18, "f4"),
    ],
)  # fmt: skip
def test_search_is_exact_where_descriptors_share_a_part(offset: float, scale: float, dtype: str) -> None:
    """Product form in float32 loses the digits that differ; what is nearest must not depend on the offset."""
    database, query = ((offset + scale * part).astype(dtype) for part in (PLACES, NEAR_PLACES))
    exact = database.astype("f8")
    truth = [((exact - one) ** 2).sum(axis=1).argmin() for one in query.astype("f8")]
    rows = foreign.nearest(query, np.arange(len(query)), database, np.arange(len(database)), 5)[1]
    assert (rows[:, 0] == truth).mean() == 1.0
    few = foreign.nearest(query, np.arange(9), database, np.arange(len(database)), 5)[1]
    assert few.tolist() == rows[:9].tolist()  # nor on how many queries are asked


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e18])
def test_cosine_of_nearly_equal_vectors_is_exact(scale: float) -> None:
    database, query = (((DIRECTION + 1e-3 * part) * scale).astype("f4") for part in (PLACES, NEAR_PLACES))
    units = [side.astype("f8") / np.linalg.norm(side.astype("f8"), axis=1, keepdims=True) for side in (query, database)]
    truth = (units[0] @ units[1].T).argmax(axis=1)
    rows = foreign.nearest(query, np.arange(len(query)), database, np.arange(len(database)), 5, cosine=True)[1]
    assert (rows[:, 0] == truth).mean() > 0.99  # float32 leaves a few pairs within one rounding of each other


def test_equal_descriptors_rank_by_row() -> None:
    """A collapsed model: every distance is the same, and the rows stand in their order, with a constant memory."""
    database, query = np.ones((5000, 16), np.float32), np.ones((300, 16), np.float32)
    distances, rows = foreign.nearest(query, np.arange(300), database, np.arange(5000), 20)
    assert (rows == np.arange(20)).all()
    assert not distances.any()

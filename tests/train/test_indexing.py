"""From run to index and answer: windows described backward, answers by fewer components, what a version depends on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import indexer
import seqdata
from indexer.flat import map_exact
from indexer.reading import PlaceIndex
from seqdata.build import BuildRequest, build
from seqdata.dataset import Dataset
from seqdata.errors import ContractError
from seqdata.manifest import BuildSettings
from tests.train.street import LENGTH, build_street, make_index, make_run, write_street
from train.eval_stage import answer
from train.index_append import append_index
from train.index_shares import merge_shares, write_share
from train.index_stage import IndexRequest, build_index, stratified_rows


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    raw = write_street(tmp_path_factory.mktemp("street") / "raw")
    return build_street(raw, raw.parent / "dataset")


def request(street: Dataset, folder: Path, kind: str = "cat") -> IndexRequest:
    run = make_run(street, folder / "run", kind)
    return IndexRequest(run, folder / "index", street.load_protocol("halves"), device="cpu")


def stored(index: PlaceIndex) -> np.ndarray:
    facts = index.manifest
    return np.asarray(map_exact(index.path / "index.faiss", facts.rows, facts.size, facts.input_size, "flat"))


def test_a_reversed_database_holds_each_window_last_frame_first(street: Dataset, tmp_path: Path) -> None:
    """A concatenation of frame descriptors turns round block by block; places and truth stay."""
    plain = request(street, tmp_path)
    turned = replace(plain, reverse=True)
    forward, backward = (indexer.open(build_index(street, each)) for each in (plain, turned))
    blocks = stored(forward).reshape(len(forward), LENGTH, -1)
    np.testing.assert_allclose(
        stored(backward).reshape(blocks.shape), blocks[:, ::-1], atol=1e-6 * np.abs(blocks).max()
    )
    assert np.abs(blocks[:, 0] - blocks[:, -1]).max() > 1e-2 * np.abs(blocks).max()
    assert backward.sequences.equals(forward.sequences)
    assert backward.id != forward.id
    ((_, info),) = answer(street, backward, plain.run, plain.protocol, device="cpu")
    assert info.method == "gem-cat-small (untrained), database reversed"
    assert append_index(street, backward, plain.run, device="cpu") == backward.path


def test_shares_of_a_reversed_database_make_the_same_version(street: Dataset, tmp_path: Path) -> None:
    whole = replace(request(street, tmp_path), reverse=True)
    parts = replace(whole, out=tmp_path / "shares")
    for number in (1, 2):
        write_share(street, parts, number, 2)
    plain = indexer.open(build_index(street, whole))
    merged = indexer.open(merge_shares(street, parts.out, plain.id))
    np.testing.assert_allclose(stored(merged), stored(plain), atol=1e-5)


def test_fewer_components_are_an_index_of_a_smaller_pca(street: Dataset, tmp_path: Path) -> None:
    asked = request(street, tmp_path, "sum")
    large, small, plain = (indexer.open(build_index(street, replace(asked, pca=count))) for count in (8, 3, None))
    whole, shorter = answer(street, large, asked.run, asked.protocol, sizes=(3,), device="cpu")
    ((expected, about),) = answer(street, small, asked.run, asked.protocol, device="cpu")
    assert (whole[1].size, shorter[1].size, about.size) == (8, 3, 3)
    assert shorter[0].select("query", "rank", "database").equals(expected.select("query", "rank", "database"))
    np.testing.assert_allclose(shorter[0]["distance"], expected["distance"], rtol=1e-3, atol=1e-5)
    assert not shorter[0]["database"].equals(whole[0]["database"])
    with pytest.raises(ContractError, match="with a PCA"):
        plain.search(np.zeros(plain.size), 1, components=2)
    with pytest.raises(ContractError, match="has 8"):
        large.search(np.zeros(large.size), 1, components=9)


def test_how_frames_were_shrunk_stands_in_the_version(street: Dataset, tmp_path: Path) -> None:
    raw = write_street(tmp_path / "raw")
    protocol = street.load_protocol("halves")
    settings = BuildSettings(short_side=18, quality=70)
    build(BuildRequest("folder", raw, tmp_path / "small", settings=settings, protocol=protocol))
    shrunk, _ = make_index(seqdata.open(tmp_path / "small"), tmp_path / "a", "sum")
    plain, _ = make_index(street, tmp_path / "b", "sum")
    assert (shrunk.manifest.inputs["short_side"], shrunk.manifest.inputs["quality"]) == (18, 70)
    assert not {"short_side", "quality", "reversed"} & plain.manifest.inputs.keys()


def test_vectors_after_pca_are_normalised_for_models_that_are_not_the_papers(street: Dataset, tmp_path: Path) -> None:
    papers = replace(request(street, tmp_path / "papers", "cat"), pca=5)
    ours = replace(request(street, tmp_path / "ours", "mean"), pca=5)
    cases = [(papers, None, False), (papers, True, True), (ours, None, True), (ours, False, False)]
    for asked, wanted, normalised in cases:
        index = indexer.open(build_index(street, replace(asked, normalise=wanted)))
        assert index.manifest.normalised is normalised
        lengths = np.linalg.norm(stored(index), axis=1)
        assert np.allclose(lengths, 1, atol=1e-5) is normalised
        parts = replace(asked, normalise=wanted, out=asked.out.parent / f"shares-{normalised}")
        write_share(street, parts, 1, 1)
        assert merge_shares(street, parts.out, index.id).name == index.id
    assert not indexer.open(build_index(street, replace(ours, pca=None))).manifest.normalised


def test_a_sample_is_the_same_share_of_every_trajectory() -> None:
    trajectory = pl.Series(["a"] * 1000 + ["b"] * 300 + ["c"] * 50)
    rows = stratified_rows(trajectory, 270, seed=1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    counts = trajectory[rows].value_counts()
    assert all(abs(count - {"a": 200, "b": 60, "c": 10}[name]) <= 1 for name, count in counts.iter_rows())
    assert rows.tolist() == stratified_rows(trajectory, 270, seed=1).tolist()
    assert rows.tolist() != stratified_rows(trajectory, 270, seed=2).tolist()
    assert np.abs(np.diff(rows)).max() < 40
    assert len(set(range(200)) & set(rows.tolist())) < 80

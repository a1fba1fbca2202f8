"""From run to index and answer: windows described backward, answers by fewer components, what a version depends on."""

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch

import indexer
import seqdata
from indexer.builder.append import append
from indexer.builder.build import build as build_version
from indexer.builder.pipeline import build as building
from indexer.builder.pipeline.append import append_index
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest, existing_version, index_work
from indexer.builder.pipeline.samples import held_out, stratified_rows
from indexer.builder.pipeline.shares import merge_shares, write_share
from indexer.describer import PRECISIONS
from indexer.pca import fit as pca
from indexer.pca import sample_parts
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.project import project
from indexer.place_index import PlaceIndex
from indexer.search.flat_file import map_exact
from indexer.search.kinds import KindSpec
from indexer.versions.manifest import read_measured
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError
from tests.support.street import LENGTH, build_street, make_index, make_run, write_street
from train.data.describe import describe
from train.data.describe_settings import DescribeSettings
from train.models.presets import is_paper_method
from train.runs.checkpoint import load_model
from train.stages.describer import RunDescriber, query_describer
from train.stages.evaluate import answer

CPU = DescribeSettings("cpu")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    raw = write_street(tmp_path_factory.mktemp("street") / "raw")
    return build_street(raw, raw.parent / "dataset")


def request(street: Dataset, folder: Path, kind: str = "cat") -> tuple[RunDescriber, IndexRequest]:
    """The model of a new run, and the request for its index."""
    run = make_run(street, folder / "run", kind)
    return RunDescriber(run, CPU), IndexRequest(folder / "index", street.load_protocol("halves"))


def stored(index: PlaceIndex) -> np.ndarray:
    facts = index.manifest
    return np.asarray(map_exact(index.path / "index.faiss", facts.rows, facts.size, facts.input_size, "flat"))


def test_a_reversed_database_holds_each_window_last_frame_first(street: Dataset, tmp_path: Path) -> None:
    """A concatenation of frame descriptors turns round block by block; places and truth stay."""
    model, plain = request(street, tmp_path)
    turned = replace(plain, reverse=True)
    forward, backward = (indexer.open(build_index(street, model, each)) for each in (plain, turned))
    blocks = stored(forward).reshape(len(forward), LENGTH, -1)
    np.testing.assert_allclose(
        stored(backward).reshape(blocks.shape), blocks[:, ::-1], atol=1e-6 * np.abs(blocks).max()
    )
    assert np.abs(blocks[:, 0] - blocks[:, -1]).max() > 1e-2 * np.abs(blocks).max()
    assert backward.sequences.equals(forward.sequences)
    assert backward.id != forward.id
    ((_, info),) = answer(street, backward, model.run, plain.protocol, settings=CPU)
    assert info.method == "gem-cat-small (untrained), database reversed"
    assert append_index(street, backward, model) == backward.path


def test_shares_of_a_reversed_database_make_the_same_version(street: Dataset, tmp_path: Path) -> None:
    model, plain_request = request(street, tmp_path)
    whole = replace(plain_request, reverse=True)
    parts = replace(whole, out=tmp_path / "shares")
    for number in (1, 2):
        write_share(street, model, parts, number, 2)
    plain = indexer.open(build_index(street, model, whole))
    merged = indexer.open(merge_shares(street, parts.out, plain.id))
    np.testing.assert_allclose(stored(merged), stored(plain), atol=1e-5)


def test_fewer_components_are_an_index_of_a_smaller_pca(street: Dataset, tmp_path: Path) -> None:
    model, plan = request(street, tmp_path, "sum")
    large, small, plain = (indexer.open(build_index(street, model, replace(plan, pca=count))) for count in (8, 3, None))
    whole, shorter = answer(street, large, model.run, plan.protocol, sizes=(3,), settings=CPU)
    ((expected, about),) = answer(street, small, model.run, plan.protocol, settings=CPU)
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
    papers = request(street, tmp_path / "papers", "cat")
    ours = request(street, tmp_path / "ours", "mean")
    cases = [(*papers, None, False), (*papers, True, True), (*ours, None, True), (*ours, False, False)]
    for model, plain, option, normalised in cases:
        reduced = replace(plain, pca=5, normalise=option)
        index = indexer.open(build_index(street, model, reduced))
        assert index.manifest.normalised is normalised
        lengths = np.linalg.norm(stored(index), axis=1)
        assert np.allclose(lengths, 1, atol=1e-5) is normalised
        parts = replace(reduced, out=plain.out.parent / f"shares-{normalised}")
        write_share(street, model, parts, 1, 1)
        assert merge_shares(street, parts.out, index.id).name == index.id
    assert not indexer.open(build_index(street, *ours)).manifest.normalised


def test_names_of_the_papers_presets_are_whole_words() -> None:
    assert all(map(is_paper_method, ("sta", "sta-small", "cls-fc-vit", "netvlad-cat-r18", "r2plus1d-r50", "delta")))
    assert not any(
        map(is_paper_method, ("stacked", "mean-r18", "seqgem-small", "salad-mean-small", "team:seqnet", "frames"))
    )


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


def recall_of(index: PlaceIndex, vectors: np.ndarray, windows: np.ndarray) -> float:
    """The share of the ten nearest vectors that the index finds for descriptors `windows`, by a literal count."""
    asked = project(windows, index.transform, index.manifest.normalised)
    apart = np.linalg.norm(asked[:, None].astype(np.float64) - vectors[None], axis=2)
    exact, found = np.argsort(apart, axis=1)[:, :10].tolist(), index.search(windows, 10)[1].tolist()
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]))


def test_an_index_is_measured_by_queries_of_another_split(street: Dataset, tmp_path: Path) -> None:
    """Recall of coarse codes is that of the validation queries, not of the database's own rows; in shares too."""
    model, whole = request(street, tmp_path, "sum")
    plain = replace(whole, pca=6)
    exact = indexer.open(build_index(street, model, plain))
    queries = street.sequences(plain.protocol, "val", "query")
    vectors = describe(load_model(model.run), street, queries, device="cpu")
    for factory, mergeable in (("IVF2,SQ4", True), ("PQ2x3", False)):
        asked = replace(plain, kind=KindSpec(factory=factory, recall_target=0.01))
        folders = [build_index(street, model, asked)]
        if mergeable:
            parts = replace(asked, out=tmp_path / "shares")
            for number in (1, 2):
                write_share(street, model, parts, number, 2)
            folders.append(merge_shares(street, parts.out, folders[0].name))
        for folder in folders:
            measured = read_measured(folder)
            assert (measured.queries, measured.queries_of) == (len(queries), "val queries")
            assert measured.recall is not None
            assert measured.recall[10] == pytest.approx(recall_of(indexer.open(folder), stored(exact), vectors))
            assert measured.recall[10] < 1
    assert {
        "describe sample",
        "fit",
        "describe queries",
        "describe",
        "write",
        "train",
        "add",
        "measure",
        "build",
    } == set(read_measured(build_index(street, model, asked)).seconds)
    assert set(read_measured(exact.path).seconds) == {"describe sample", "fit", "describe", "write", "build"}


def test_without_other_queries_rows_of_the_database_are_asked(street: Dataset, tmp_path: Path) -> None:
    model, plain = request(street, tmp_path)
    lists = replace(plain, split="val", kind=KindSpec("ivf"))
    halves = replace(plain, out=tmp_path / "halves", kind=KindSpec("fp16"))
    parts = replace(halves, out=tmp_path / "shares")
    for number in (1, 2, 3):
        write_share(street, model, parts, number, 3)
    made = [build_index(street, model, each) for each in (lists, halves)]
    merged = merge_shares(street, parts.out, made[1].name)
    for folder in (*made, merged):
        measured = read_measured(folder)
        assert (measured.queries, measured.queries_of) == (indexer.open(folder).manifest.rows, "database rows")
        assert measured.recall is not None and measured.recall[10] > 0.9
    assert (merged / "index.faiss").read_bytes() == (made[1] / "index.faiss").read_bytes()


def test_held_out_windows_share_no_frame_with_the_database(street: Dataset, tmp_path: Path) -> None:
    _, asked = request(street, tmp_path)
    windows = street.sequences(asked.protocol, "val", "query")
    everything = held_out(street, asked.protocol, "test", street.sequences(asked.protocol, "test", "database"), 0)
    assert everything is not None and everything.windows.equals(windows)
    some = held_out(street, asked.protocol, "test", windows[:5], 0)
    assert some is not None and some.windows.equals(windows[5 + LENGTH - 1 :])
    assert held_out(street, asked.protocol, "test", windows, 0) is None
    assert held_out(street, asked.protocol, "val", windows[:0], 0) is None, "the indexed split's own are not asked"


def test_a_renamed_run_gives_the_same_version(street: Dataset, tmp_path: Path) -> None:
    """Its name stands beside the inputs; a version from when it was among them is still recognised."""
    model, plain = request(street, tmp_path)
    shutil.copytree(model.run, tmp_path / "better name")
    renamed, elsewhere = (
        RunDescriber(tmp_path / "better name", CPU),
        replace(plain, out=tmp_path / "other"),
    )
    one, other = build_index(street, model, plain), build_index(street, renamed, elsewhere)
    assert one.name == other.name
    assert [indexer.open(each).manifest.origin["run"] for each in (one, other)] == ["run", "better name"]
    assert build_index(street, renamed, plain) == one
    work = index_work(street, model, plain)
    before = indexer.build(
        tmp_path / "before", blocks=iter([stored(indexer.open(one))]), places=street.places(work.database),
        transform=None, inputs={**work.inputs, "run": "run"},
    )  # fmt: skip
    old = replace(plain, out=tmp_path / "before")
    assert before.name != one.name
    assert existing_version(old, work) == build_index(street, model, old) == before
    assert write_share(street, model, old, 1, 2) > 0
    assert not list((tmp_path / "before").glob(".parts"))


def test_workers_load_their_own_model(street: Dataset, tmp_path: Path) -> None:
    """A describer is pickled without its weights, with a path that holds in another working directory."""
    model, _ = request(street, tmp_path)
    assert model.network is model.network
    copy = pickle.loads(pickle.dumps(model))
    assert copy.run.is_absolute() and "network" not in vars(copy)
    assert (copy.name, copy.weights, copy.model) == (model.name, model.weights, model.model)


class CardTensor(torch.Tensor):
    """A tensor that notes what is copied to the host."""

    widths: ClassVar[set[int]] = set()

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        self.widths.add(self.shape[1])
        return super().cpu().as_subclass(torch.Tensor)


class CardSettings(DescribeSettings):
    """A card, whose part the CPU plays."""

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda")


class CardDescriber(RunDescriber):
    """A run whose descriptors stay on a card."""

    def device_blocks(self, *arguments: Any) -> Iterator[Any]:
        for block in super().device_blocks(*arguments):
            assert isinstance(block, torch.Tensor)
            yield block.as_subclass(CardTensor)


@pytest.mark.parametrize("kind", ["flat", "fp16"])
def test_descriptors_on_a_card_are_projected_there(street: Dataset, tmp_path: Path, kind: str) -> None:
    """Only the projections are copied to the host, and the index has the bytes of one whose blocks are arrays."""
    model, plain = request(street, tmp_path, "sum")
    plain = replace(plain, pca=5, normalise=True, kind=KindSpec(kind))
    expected = build_index(street, model, plain)
    size = model.descriptor_size(LENGTH)
    on_card = CardDescriber(model.run, CardSettings("cpu", precision="fp32"))
    CardTensor.widths.clear()
    whole = build_index(street, on_card, replace(plain, out=tmp_path / "card"))
    parts = replace(plain, out=tmp_path / "shares")
    for number in (1, 2):
        write_share(street, on_card, parts, number, 2)
    for version in (whole, merge_shares(street, parts.out, expected.name)):
        assert (version / "index.faiss").read_bytes() == (expected / "index.faiss").read_bytes()
    assert CardTensor.widths == {5}
    bare = build_index(street, on_card, replace(plain, pca=None, out=tmp_path / "bare"))
    assert CardTensor.widths == {5, size} and len(indexer.open(bare)) == len(indexer.open(expected))


class RoundingDescriber(RunDescriber):
    """A run on a device that rounds products to TF32."""

    @property
    def arithmetic(self) -> dict[str, str]:
        return {"precision": self.settings.precision}


def test_vectors_of_another_precision_are_another_version(street: Dataset, tmp_path: Path) -> None:
    """Whole float32 keeps the ids of before; rounded vectors have their own, and are not appended to others."""
    model, plain = request(street, tmp_path)
    rounding = RoundingDescriber(model.run, CPU)
    whole, rounded = (indexer.open(build_index(street, each, plain)) for each in (model, rounding))
    assert "computed" not in whole.manifest.inputs and model.arithmetic == {}
    assert rounded.computed == {"precision": "tf32"} and rounded.id != whole.id
    assert append_index(street, rounded, rounding) == rounded.path
    for index, describer, words in (
        (whole, rounding, "computed with whole float32, this would be precision tf32"),
        (rounded, model, "computed with precision tf32, this would be whole float32"),
    ):
        with pytest.raises(ContractError, match=words):
            append_index(street, index, describer)
    assert [query_describer(index, model.run).settings.precision for index in (whole, rounded)] == ["fp32", "tf32"]


def test_a_card_is_recorded_only_where_it_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.devices.pick_device", torch.device)
    ways = {name: RunDescriber(Path("run"), DescribeSettings("cuda", precision=name)).arithmetic for name in PRECISIONS}
    assert ways == {"fp32": {}, "tf32": {"precision": "tf32"}, "bf16": {"precision": "bf16"}}
    assert RunDescriber(Path("run"), DescribeSettings("cpu", "bf16")).arithmetic == {}


def test_workers_share_out_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes on two cards: two each; a card that is named, and a CPU, stay as they are."""
    monkeypatch.setattr("train.stages.describer.torch.set_num_threads", lambda count: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("train.devices.pick_device", torch.device)

    def device(number: int, name: str = "cuda") -> str:
        return RunDescriber(Path("run"), DescribeSettings(name)).as_worker(number, 1).settings.device

    devices = [device(number) for number in (1, 2, 3, 4)]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [device(2, name) for name in ("cpu", "cuda:0")] == ["cpu", "cuda:0"]


def test_shares_describe_the_sample_together_and_end_in_the_bytes_of_one_build(
    street: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    """The PCA of any number of shares is that of a plain build, whose manifest names how it was fitted."""
    monkeypatch.setattr(sample_parts, "PART_ROWS", 7)
    model, plan = request(street, tmp_path, "sum")
    plain = replace(plan, pca=5)
    whole = build_index(street, model, plain)
    assert not list((plain.out / ".parts").iterdir()), "the sample goes when the version is there"
    shares = replace(plain, out=tmp_path / "shares" / "index")
    for number in (2, 3, 1):
        write_share(street, model, shares, number, 3)
    merged = merge_shares(street, shares.out, whole.name)
    assert files_of(merged).keys() == files_of(whole).keys()
    for name in ("index.faiss", "transform.safetensors", "ids.parquet", "manifest.json"):
        assert (merged / name).read_bytes() == (whole / name).read_bytes(), name
    assert indexer.open(whole).manifest.arithmetic == sample_parts.FITTED
    assert indexer.open(build_index(street, model, plan)).manifest.arithmetic == ARITHMETIC


def test_an_index_of_an_earlier_release_is_the_answer_to_its_request_and_can_be_appended_to(
    street: Dataset, tmp_path: Path
) -> None:
    """Its PCA was fitted in one piece, under another name of the arithmetic: vectors are projected alike."""
    model, plan = request(street, tmp_path, "sum")
    reduced = replace(plan, pca=5)
    work = index_work(street, model, reduced)
    transform = pca.fit(model.vectors(street, work.sample), 5)
    blocks = model.blocks(street, work.described[:20])
    places = street.places(work.database)
    older = build_version(
        reduced.out,
        blocks=blocks,
        places=places[:20],
        transform=transform,
        inputs=work.inputs,
        normalise=work.normalise,
    )
    assert indexer.open(older).manifest.arithmetic == ARITHMETIC
    assert existing_version(reduced, work) == older
    rest = model.blocks(street, work.described[20:])
    grown = indexer.open(append(older, rest, places[20:], {**work.inputs, "dataset": "newer"}))
    assert grown.manifest.arithmetic == ARITHMETIC
    assert len(grown) == work.database.height


def test_a_killed_build_of_many_windows_goes_on_with_its_parts(
    street: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that were whole before are not described again, and the version has the bytes of one stream."""
    model, plan = request(street, tmp_path, "sum")
    reduced = replace(plan, pca=5)
    whole = build_index(street, model, reduced)
    monkeypatch.setattr(building, "PART_ROWS", 6)
    again = replace(reduced, out=tmp_path / "again" / "index")
    described: list[str] = []

    def stop_at_third(stage: str, count: int, total: int) -> None:
        described.append(stage)
        if stage == "describe share 3/4":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(street, model, again, stop_at_third)
    described.clear()
    version = build_index(street, model, again, lambda stage, count, total: described.append(stage))
    assert set(described) == {"describe share 3/4", "describe share 4/4"}
    for name in ("index.faiss", "transform.safetensors", "ids.parquet", "manifest.json"):
        assert (version / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list((again.out / ".parts").iterdir())

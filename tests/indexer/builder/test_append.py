"""Sequences appended to an index: equal to a full build with the same transform and quantiser, the parent untouched."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.builder import append as adding
from indexer.builder import merge_lists
from indexer.pca import fit as pca
from indexer.pca.exact_product import ARITHMETIC
from indexer.pca.project import project
from indexer.search import kinds
from indexer.search.file_layout import write
from indexer.search.flat_file import wrap
from indexer.search.kinds import KindSpec
from indexer.selection import held_out as held
from indexer.versions.checks import check_version
from indexer.versions.folders import list_versions
from indexer.versions.manifest import read_manifest, read_measured
from indexer.versions.tags import collect, rollback
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array
from tests.support.indexes import make_places

ROOT = Path(__file__).parents[3]
ROWS, NEW, SIZE = 700, 90, 16
KINDS = ("flat", "fp16", "ivf", "imi", "PQ2x4", "hnsw", "IVF4,PQ2x4,Refine(SQfp16)")


def descriptors(rows: int = ROWS + NEW) -> Float32Array:
    x: Float32Array = np.random.default_rng(3).normal(size=(rows, SIZE)).astype(np.float32)
    return x


def first(out: Path, kind: str, with_pca: bool = True, normalise: bool = True) -> Path:
    x = descriptors()[:ROWS]
    return indexer.build(
        out,
        blocks=iter([x[:300], x[300:]]),
        places=make_places(ROWS),
        transform=pca.fit(x, 8) if with_pca else None,
        inputs={"dataset": "one"},
        normalise=normalise,
        kind=KindSpec(kind, recall_target=0.5) if kind in kinds.KINDS else KindSpec(factory=kind, recall_target=0.5),
    )


def append(out: Path, blocks: Iterator[Float32Array] | None = None) -> Path:
    x = descriptors()[ROWS:]
    new = make_places(ROWS + NEW)[ROWS:]
    return adding.append(out, iter([x[:7], x[7:]]) if blocks is None else blocks, new, {"dataset": "two"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_pca", [True, False])
def test_equal_to_a_full_build(tmp_path: Path, kind: str, with_pca: bool) -> None:
    """The literal other way: all projected by the parent's transform and added to its trained quantiser at once."""
    parent = first(tmp_path / "town", kind, with_pca, normalise=with_pca)
    before = {path.name: path.read_bytes() for path in parent.iterdir()}
    folder = append(tmp_path / "town")
    manifest = read_manifest(folder)
    assert (manifest.parent, manifest.rows, manifest.storage) == (
        parent.name,
        ROWS + NEW,
        "factory" if "x" in kind else kind,
    )
    assert manifest.inputs == {"dataset": "two", "parent": parent.name}
    assert before == {path.name: path.read_bytes() for path in parent.iterdir()}
    index = indexer.open(tmp_path / "town")
    assert index.id == folder.name
    assert index.sequences.equals(make_places(ROWS + NEW))
    if kind in ("flat", "fp16"):
        whole = indexer.build(
            tmp_path / "whole", blocks=iter([descriptors()]), places=make_places(ROWS + NEW), transform=index.transform,
            inputs={"all": 1}, normalise=with_pca, kind=kind,
        )  # fmt: skip
        assert (whole / "index.faiss").read_bytes() == (folder / "index.faiss").read_bytes()
    elif kind in ("ivf", "imi"):
        trained = merge_lists.trained(parent / "index.faiss")
        merge_lists.add_projected(trained, project(descriptors(), index.transform, with_pca))
        write(trained, tmp_path / "expected")
        assert (tmp_path / "expected").read_bytes() == (folder / "index.faiss").read_bytes()
    found = index.search(descriptors()[ROWS + 3], 5)[1]
    assert kind == "PQ2x4" or found[0, 0] == ROWS + 3
    check_version(folder)


LISTS_AND_GRAPHS = ("ivf", "imi", "hnsw", "IVF4,SQfp16", "IVF4,PQ2x4,Refine(Flat)", "IVF4,PQ2x4,Refine(SQfp16)")


@pytest.mark.parametrize("kind", LISTS_AND_GRAPHS)
def test_recall_is_measured_on_all_vectors(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a literal count: distances of held-out rows to all others, as the searched index gives them."""
    monkeypatch.setattr(held, "QUERIES", 100)
    first(tmp_path / "town", kind)
    folder = append(tmp_path / "town")
    manifest, measured = read_manifest(folder), read_measured(folder)
    assert measured.recall is not None and measured.curve is not None
    assert (measured.queries, measured.queries_of) == (100, "database rows")
    assert measured.truth == ("the float16 vectors that the index keeps" if "fp16" in kind else "float32 vectors")
    assert set(measured.seconds) == {"describe", "write", "measure", "append"}
    assert measured.curve[-1]["search"] == manifest.search
    assert measured.curve[-1]["recall"] == measured.recall[10] >= 0.5
    assert all(point["recall"] < 0.5 for point in measured.curve[:-1]), "the cheapest that reaches the target"
    index = indexer.open(folder)
    stored = project(descriptors(), index.transform, True)
    rows = kinds.spread_rows(ROWS + NEW, 100, 1)
    assert rows.max() >= ROWS, "new rows are asked for too"
    apart = np.linalg.norm(stored[rows, None].astype(np.float64) - stored[None], axis=2)
    apart[np.arange(100), rows] = np.inf
    exact = np.argsort(apart, axis=1)[:, :10]
    answers = index.search(descriptors()[rows], 11)[1]
    found = [[row for row in line if row != query][:10] for line, query in zip(answers, rows, strict=True)]
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert measured.recall[10] == pytest.approx(share, abs=0.02 if "fp16" in kind else 1e-9)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_search_parameters_rise_with_what_is_added(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that were enough for the parent are not kept where they miss the target now."""
    parent = first(tmp_path / "town", kind)
    before, place = read_manifest(parent), parent / "manifest.json"
    asked = {**before.settings, "recall_target": 1.0}
    before.model_copy(update={"settings": asked, "search": {next(iter(before.search)): 1}}).write(parent)
    assert place.is_file()
    folder = append(tmp_path / "town")
    recall = read_measured(folder).recall
    assert recall is not None and recall[10] == 1.0
    assert next(iter(read_manifest(folder).search.values())) > 1


def test_float32_finds_all_by_construction(tmp_path: Path) -> None:
    parent = first(tmp_path / "town", "flat")
    ours, theirs = read_measured(append(tmp_path / "town")), read_measured(parent)
    assert (ours.recall, ours.curve, ours.queries) == (theirs.recall, theirs.curve, theirs.queries) == (None, None, 0)


def test_float16_alone_is_not_compared_with_itself(tmp_path: Path) -> None:
    parent = first(tmp_path / "town", "fp16")
    ours, theirs = read_measured(append(tmp_path / "town")), read_measured(parent)
    assert theirs.recall is not None and theirs.recall[10] > 0.99
    assert ours.recall is None and ours.curve is not None
    assert [(point["kind"], "float16 alone" in point["note"]) for point in ours.curve] == [("fp16", True)]


@pytest.mark.parametrize("kind", ["PQ2x4", "IVF4,PQ2x4", "IVF4,SQ8"])
def test_codes_alone_are_not_compared_with_themselves(tmp_path: Path, kind: str) -> None:
    parent = first(tmp_path / "town", kind)
    folder = append(tmp_path / "town")
    measured = read_measured(folder)
    assert measured.recall is None and measured.curve is not None
    assert [(point["recall"], "keeps codes" in point["note"]) for point in measured.curve] == [(None, True)]
    assert read_manifest(folder).search == read_manifest(parent).search


def test_too_few_to_measure(tmp_path: Path) -> None:
    x = descriptors()
    indexer.build(
        tmp_path / "town", blocks=iter([x[:4]]), places=make_places(4), transform=None, inputs={}, kind="hnsw"
    )
    folder = adding.append(tmp_path / "town", iter([x[4:6]]), make_places(6)[4:], {"dataset": "two"})
    measured = read_measured(folder)
    assert measured.recall is None and measured.curve is not None
    assert "10 vectors or fewer" in measured.curve[0]["note"]
    assert indexer.open(folder).search(x[5], 6)[1][0, 0] == 5


GROWN = """
    import resource, sys
    from pathlib import Path
    import faiss
    import numpy as np
    from indexer.search import engines
    from indexer.selection import held_out as held
    from indexer.versions.manifest import read_manifest
    from indexer.selection.appended import recalibrate
    held.QUERIES, engines.WIDE_VALUES = 20, 1 << 20
    np.ones((300, 300), np.float32) @ np.ones((300, 300), np.float32)  # the product takes its own memory once
    parent = read_manifest(Path(sys.argv[1]))
    held = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
    limit = int(held.split()[1]) * 1024 + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    assert recalibrate(Path(sys.argv[1]) / "index.faiss", parent, parent.rows)[1]["recall"][10] > 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on data, which maps are no part of, is Linux's")
@pytest.mark.parametrize("kind", ["IVF4,Flat", "Flat,Refine(Flat)", "Flat,Refine(SQfp16)"])
def test_measuring_maps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Vectors of 51 MB, or twice that, are measured with 24 MB beside the map."""
    monkeypatch.setattr(held, "QUERIES", 20)
    x = np.random.default_rng(0).standard_normal((50_000, 256), dtype=np.float32)
    parent = indexer.build(
        tmp_path / "town", blocks=iter([x]), places=make_places(len(x)), transform=None, inputs={},
        kind=KindSpec(factory=kind, recall_target=0.01),
    )  # fmt: skip
    command = [sys.executable, "-c", textwrap.dedent(GROWN), str(parent), str(24 << 20)]
    # Stacks of threads and buffers of other kernels are no part of what is measured.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("OPENBLAS_CORETYPE", None)
    assert subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode == 0


def test_the_same_again_is_a_no_op_and_nothing_new_is_the_parent(tmp_path: Path) -> None:
    out = tmp_path / "town"
    parent = first(out, "ivf")
    assert adding.append(out, iter([]), make_places(4)[:0], {"dataset": "two"}) == parent
    child = append(out)
    assert rollback(out)[1] == parent.name

    def untouched() -> Iterator[Float32Array]:
        raise AssertionError("blocks were read")
        yield

    assert append(out, untouched()) == child
    assert indexer.open(out).id == child.name
    grand = append(out)
    assert read_manifest(grand).parent == child.name, "appended to the latest"
    assert len(indexer.open(out)) == ROWS + 2 * NEW
    assert set(list_versions(out)) == {parent.name, child.name, grand.name}
    assert set(collect(out).removed) == {parent.name, child.name}
    assert append_rows(out) == list(range(ROWS + 2 * NEW)), "a version needs nothing of its parents"


def append_rows(out: Path) -> list[int]:
    index = indexer.open(out)
    return sorted(index.search(descriptors()[0], len(index))[1][0].tolist())


@pytest.mark.parametrize("version", ["index-v1", "index-v2"])
def test_vectors_of_two_arithmetics_are_not_mixed(tmp_path: Path, version: str) -> None:
    """The fixtures' vectors were projected by float32 products, whose bits depended on the block."""
    fixture = ROOT / "tests" / "fixtures" / version / "town"
    shutil.copytree(fixture, tmp_path / "town")
    before = indexer.open(tmp_path / "town")
    assert before.manifest.arithmetic is None
    x = np.random.default_rng(1).normal(size=(3, before.size)).astype(np.float32)
    with pytest.raises(ContractError, match="build the index again"):
        adding.append(tmp_path / "town", iter([x]), make_places(3), {"dataset": "more"})
    assert list_versions(tmp_path / "town") == list_versions(fixture)


def test_a_chain_from_before_the_arithmetic_had_a_name(tmp_path: Path) -> None:
    """Nothing is computed where vectors are stored as they come: such an index goes on."""
    parent = first(tmp_path / "town", "flat", with_pca=False, normalise=False)
    manifest = read_manifest(parent)
    assert manifest.arithmetic == ARITHMETIC
    identifier = indexer.version_id(manifest.inputs)
    manifest.model_copy(update={"arithmetic": None, "id": identifier}).write(parent)
    parent.rename(parent.parent / identifier)
    (tmp_path / "town" / "latest").write_text(f"{identifier}\n")
    folder = append(tmp_path / "town")
    index = indexer.open(tmp_path / "town")
    assert (index.manifest.parent, index.manifest.arithmetic, len(index)) == (identifier, None, ROWS + NEW)
    assert index.search(descriptors()[ROWS : ROWS + 3], 1)[1][:, 0].tolist() == [ROWS, ROWS + 1, ROWS + 2]
    assert folder.name == index.id
    check_version(folder)


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "town"
    with pytest.raises(InputError, match="no such index"):
        append(out)
    parent = first(out, "ivf")
    x = descriptors()[ROWS:]
    for blocks in ([x[:5]], [x, x], [x[:, :3]], [np.full_like(x, np.nan)]):
        with pytest.raises(ContractError):
            append(out, iter(blocks))
    (parent / "index.faiss").write_bytes(b"x" * (parent / "index.faiss").stat().st_size)
    with pytest.raises(ContractError, match=r"index\.faiss"):
        append(out)
    assert list_versions(out) == [parent.name]
    assert [path.name for path in (out / "versions").iterdir()] == [parent.name]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from indexer.builder import grow as growing, merge_lists
    from indexer.versions import publish as sealing, folders as versions
    from tests.indexer.builder.test_append import append
    points = {"join": (merge_lists, "join"), "seal": (sealing, "publish"), "latest": (versions, "point_latest")}
    setattr(*points[sys.argv[2]], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    append(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("point", ["join", "seal", "latest"])
def test_killed_and_run_again(tmp_path: Path, point: str) -> None:
    """Killed before the lists are joined, before the rename, and between the rename and `latest`."""
    out = tmp_path / "town"
    parent = first(out, "ivf")
    expected = append(first(tmp_path / "other" / "town", "ivf").parents[1])
    code = textwrap.dedent(KILLED)
    ended = subprocess.run([sys.executable, "-c", code, str(out), point], cwd=ROOT, check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert indexer.open(out).id == parent.name
    folder = append(out)
    assert indexer.open(out).id == folder.name == expected.name
    for name in ("index.faiss", "manifest.json", "ids.parquet", "transform.safetensors"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    collect(out)
    assert [path.name for path in (out / "versions").iterdir()] == [folder.name]


def test_wrap_keeps_the_lists(tmp_path: Path) -> None:
    """`has_lists` is about the part behind the transform."""
    import faiss

    lists = faiss.index_factory(8, "IVF4,Flat")
    assert merge_lists.has_lists(wrap(lists, None, True))
    assert not merge_lists.has_lists(faiss.index_factory(8, "IVF4,Flat,RFlat"))
    (tmp_path / "no").write_bytes(b"no index")
    with pytest.raises(ContractError, match="not a readable FAISS index"):
        merge_lists.open_index(tmp_path / "no")


@pytest.mark.parametrize("with_pca", [True, False])
@pytest.mark.parametrize("factory", ["OPQ4,IVF4,Flat", "RR4,IVF4,Flat", "L2norm,IVF4,Flat", "OPQ4_8,PQ4x4,RFlat"])
def test_rotations_of_a_factory_string_turn_new_vectors_too(tmp_path: Path, factory: str, with_pca: bool) -> None:
    """A new row is found by its own descriptor; it was stored unturned before, and found by none."""
    first(tmp_path / "town", factory, with_pca, normalise=with_pca)
    append(tmp_path / "town")
    index = indexer.open(tmp_path / "town")
    rows = index.search(descriptors(), 1)[1][:, 0]
    share = (rows[ROWS:] == np.arange(ROWS, ROWS + NEW)).mean()
    assert share >= 0.9 * (rows[:ROWS] == np.arange(ROWS)).mean() > 0.3

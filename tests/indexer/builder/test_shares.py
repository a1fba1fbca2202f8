"""An index built in shares: the version of a plain build, whatever the division, the order, or what was killed."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.builder import share_plan as plans
from indexer.builder import shares as sharded
from indexer.builder.share_plan import BuildPlan, Trained
from indexer.pca.project import project
from indexer.pca.transform import Transform
from indexer.search import kinds
from indexer.search.kinds import KindSpec
from indexer.versions.folders import list_versions
from indexer.versions.manifest import read_manifest, read_measured
from indexer.versions.tags import collect
from seqdata.errors import ContractError, InputError
from seqdata.geometry import Float32Array
from tests.support.indexes import make_places

ROOT = Path(__file__).parents[3]
ROWS, SIZE = 1500, 16
INPUTS = {"dataset": "one"}
FILES = ("index.faiss", "ids.parquet", "transform.safetensors", "manifest.json")


def descriptors() -> Float32Array:
    generator = np.random.default_rng(3)
    centres = generator.normal(size=(20, SIZE)) * 3
    x: Float32Array = (centres[np.arange(ROWS) // 75] + generator.normal(size=(ROWS, SIZE))).astype(np.float32)
    return x


def transform() -> Transform:
    """Eight orthonormal directions; a fitted PCA is the same to all that follows, but needs torch."""
    rows = np.linalg.qr(np.random.default_rng(5).normal(size=(SIZE, SIZE)))[0][:8]
    return Transform(np.full(SIZE, 0.5, np.float32), rows.astype(np.float32), np.ones(8), 0.5, "gram", ROWS)


def spec(kind: str) -> KindSpec:
    named = {"kind": kind} if kind in kinds.KINDS else {"factory": kind}
    return KindSpec(**named, recall_target=0.9)


def train(kind: str) -> Trained:
    """As `indexer.builder.pipeline.shares` does: the rows that a plain build trains on."""
    fitted = transform()
    factory = kinds.factory_string(kind, ROWS, 8) if kind in kinds.KINDS else kind
    if kind in kinds.EXACT:
        rows = kinds.spread_rows(ROWS, 50, 1)
        held = None if kind == "flat" else (rows, project(descriptors()[rows], fitted, False))
        return Trained(fitted, SIZE, held_out=held, storage=kind, factory=factory)
    index = kinds.create(factory, 8)
    rows = kinds.training_rows(index, ROWS, 0)
    vectors = project(descriptors()[rows], fitted, False)
    kinds.train(index, vectors, 0, factory)
    held = kinds.spread_rows(len(rows), 50, 1)
    return Trained(fitted, SIZE, index, (rows[held], vectors[held]), spec(kind).name, factory)


def prepare(out: Path, kind: str = "flat") -> BuildPlan:
    return plans.prepare(out, ROWS, INPUTS, lambda: train(kind), settings=spec(kind).settings())


def write(out: Path, number: int, of: int, kind: str = "flat") -> Path:
    plan = prepare(out, kind)
    rows = sharded.share(ROWS, number, of)
    x = descriptors()[rows.start : rows.stop]
    return sharded.write_part(out, plan, number, of, iter([x[:9], x[9:]]))


def merge(out: Path, kind: str = "flat") -> Path:
    return sharded.merge(out, prepare(out, kind).id, make_places(ROWS))


def whole(out: Path, kind: str) -> Path:
    return indexer.build(
        out, blocks=iter([descriptors()]), places=make_places(ROWS), transform=transform(), inputs=INPUTS,
        kind=spec(kind),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@pytest.mark.parametrize("of", [1, 3, 7])
def test_exact_kinds_come_out_in_the_bytes_of_a_plain_build(tmp_path: Path, kind: str, of: int) -> None:
    plain = whole(tmp_path / "a" / "town", kind)
    for number in reversed(range(1, of + 1)):
        write(tmp_path / "b" / "town", number, of, kind)
    merged = merge(tmp_path / "b" / "town", kind)
    assert merged.name == plain.name
    for name in FILES:
        assert (merged / name).read_bytes() == (plain / name).read_bytes(), name
    assert sharded.unfinished(tmp_path / "b" / "town") == []
    assert set(read_measured(merged).seconds) == {"train", "merge", *(["measure"] if kind == "fp16" else [])}
    sizes = [[point["bytes"] for point in read_measured(version).curve or ()] for version in (merged, plain)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("kind", ["ivf", "imi"])
def test_lists_come_out_as_in_a_plain_build(tmp_path: Path, kind: str) -> None:
    """The file is FAISS's own, byte for byte, but for the default nprobe that each build measured for itself."""
    import faiss

    plain = whole(tmp_path / "a" / "town", kind)
    out = tmp_path / "b" / "town"
    for number in (2, 3, 1):
        write(out, number, 3, kind)
    merged = merge(out, kind)
    assert merged.name == plain.name
    one, other = (faiss.read_index(str(folder / "index.faiss")) for folder in (plain, merged))
    for index in (one, other):
        faiss.extract_index_ivf(index).nprobe = 1
    assert faiss.serialize_index(one).tobytes() == faiss.serialize_index(other).tobytes()
    manifest, measured = read_manifest(merged), read_measured(merged)
    assert (manifest.storage, manifest.factory) == (kind, read_manifest(plain).factory)
    assert measured.recall is not None
    assert measured.recall[10] >= 0.9
    assert measured.curve is not None
    assert measured.curve[-1]["search"] == manifest.search
    recalls = [point["recall"] for point in measured.curve]
    assert all(recall < 0.9 for recall in recalls[:-1]), "the cheapest that reaches the target"
    exact = indexer.open(whole(tmp_path / "c" / "town", "flat")).search(descriptors()[::7], 11)[1]
    found = indexer.open(merged).search(descriptors()[::7], 11)[1]
    share = np.mean([len(set(a) & set(b)) / 11 for a, b in zip(exact, found, strict=True)])
    assert share > 0.85


def literal_recall(out: Path, asked: np.ndarray, own: np.ndarray | None) -> float:
    """The share of the ten nearest float32 vectors, each distance from its difference, that the index finds."""
    stored, queries = (project(x, transform(), False) for x in (descriptors(), asked))
    apart = np.linalg.norm(queries[:, None].astype(np.float64) - stored[None], axis=2)
    if own is not None:
        apart[np.arange(len(own)), own] = np.inf
    exact = np.argsort(apart, axis=1)[:, :10].tolist()
    found = indexer.open(out).search(asked, 10 if own is None else 11)[1].tolist()
    answers = [[row for row in line if own is None or row != own[at]][:10] for at, line in enumerate(found)]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, answers, strict=True)]))


CODES = ("fp16", "ivf", "IVF4,PQ4x4", "IVF4,SQ4")


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("of", [1, 3])
def test_recall_is_against_the_float32_vectors_of_all_shares(tmp_path: Path, kind: str, of: int) -> None:
    """Codes of a few bits, searched through all their lists, are no truth: recall is well below 1 and told so."""
    out = tmp_path / "town"
    for number in range(of, 0, -1):
        write(out, number, of, kind)
    held = train(kind).held_out
    assert held is not None
    merged = merge(out, kind)
    measured = read_measured(merged)
    assert (measured.queries, measured.queries_of, measured.truth) == (50, "database rows", "float32 vectors")
    assert measured.recall is not None
    assert measured.recall[10] == pytest.approx(literal_recall(out, descriptors()[held[0]], held[0]))
    assert (measured.recall[10] < 0.8) == ("Q4" in kind)


@pytest.mark.parametrize("kind", ["ivf", "IVF4,PQ4x4"])
def test_given_queries_measure_a_merged_index(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "town"
    asked = descriptors()[5::40] + np.random.default_rng(9).normal(size=(38, SIZE)).astype(np.float32)
    plan = plans.prepare(
        out, ROWS, INPUTS, lambda: replace(train(kind), held_out=(np.full(38, -1), project(asked, transform(), False)),
        queries_of="val queries"), settings=spec(kind).settings(), origin={"run": "one"},
    )  # fmt: skip
    for number in (1, 2):
        write(out, number, 2, kind)
    merged = sharded.merge(out, plan.id, make_places(ROWS))
    measured = read_measured(merged)
    assert (measured.queries, measured.queries_of) == (38, "val queries")
    assert measured.recall is not None
    assert measured.recall[10] == pytest.approx(literal_recall(out, asked, None))
    assert read_manifest(merged).origin == {"run": "one"}


def test_nearest_of_shares_must_be_there(tmp_path: Path) -> None:
    out = tmp_path / "town"
    for number in (1, 2):
        part = write(out, number, 2, "ivf")
    part.with_suffix(sharded.NEAREST).write_bytes(b"x")
    with pytest.raises(ContractError, match=r"nearest: not readable as held-out queries"):
        merge(out, "ivf")
    with pytest.raises(ContractError, match="held-out queries are needed"):
        plans.prepare(out, ROWS, {"other": 1}, lambda: replace(train("fp16"), held_out=None))


def test_shares_tile_the_rows() -> None:
    for rows, of in ((10, 3), (2, 5), (0, 2), (1500, 7)):
        parts = [sharded.share(rows, number, of) for number in range(1, of + 1)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for number, of in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(ContractError, match="i from 1 to N"):
            sharded.share(9, number, of)


def test_trained_once_and_a_part_is_not_made_twice(tmp_path: Path) -> None:
    out = tmp_path / "town"
    write(out, 1, 2)

    def untrained() -> Trained:
        raise AssertionError("trained again")

    def unread() -> Iterator[Float32Array]:
        raise AssertionError("blocks were read")
        yield

    plan = plans.prepare(out, ROWS, INPUTS, untrained, settings={})
    assert sharded.write_part(out, plan, 1, 2, unread()).is_file()
    with pytest.raises(ContractError, match=f"planned for {ROWS} windows, there are 3"):
        plans.prepare(out, 3, INPUTS, untrained)


def test_missing_shares_are_named(tmp_path: Path) -> None:
    out = tmp_path / "town"
    with pytest.raises(InputError, match="no share is there"):
        merge(out)
    write(out, 2, 6)
    with pytest.raises(InputError, match=r"shares 1/6, 3/6, 4/6 \(and 2 more\) are missing"):
        merge(out)
    for number in (1, 2):
        write(out, number, 2)
    assert read_manifest(merge(out)).rows == ROWS, "another division that is whole"
    with pytest.raises(InputError, match=r"plan\.json: no such file"):
        sharded.merge(out, "0" * 16, make_places(ROWS))


def test_a_version_that_is_there_already_only_loses_its_parts(tmp_path: Path) -> None:
    out = tmp_path / "town"
    write(out, 1, 2)
    plain = whole(out, "flat")
    assert merge(out) == plain
    assert sharded.unfinished(out) == []


def test_refusals(tmp_path: Path) -> None:
    out = tmp_path / "town"
    with pytest.raises(ContractError, match="cannot be merged from shares"):
        plans.prepare(out, ROWS, INPUTS, lambda: Trained(None, 8, kinds.create("HNSW8", 8), storage="hnsw"))
    plan = prepare(out)
    for blocks in ([descriptors()[:5]], [descriptors()], [descriptors()[:, :3]]):
        with pytest.raises(ContractError):
            sharded.write_part(out, plan, 1, 2, iter(blocks))
    assert not list((out / ".parts" / plan.id).glob("part-*"))
    for number in (1, 2):
        write(out, number, 2)
    with pytest.raises(ContractError, match="3 places"):
        sharded.merge(out, plan.id, make_places(3))
    part = sharded.part_file(out, plan.id, 1, 2)
    whole_part = part.read_bytes()
    for damaged in (whole_part[:-1], whole_part[:-1] + b"x", None):
        part.unlink() if damaged is None else part.write_bytes(damaged)
        with pytest.raises(ContractError, match=f"{part.name}: damaged"):
            merge(out)
    (out / ".parts" / plan.id / "plan.json").write_text('{"id": 3}')
    with pytest.raises(ContractError, match=r"plan\.json: not the plan of a build in shares"):
        prepare(out)
    assert list_versions(out) == []


def _share(arguments: tuple[str, int]) -> None:
    write(Path(arguments[0]), arguments[1], 4, "ivf")


def test_shares_at_once(tmp_path: Path) -> None:
    """Four array jobs begin together: one trains, the others wait for it."""
    out = tmp_path / "town"
    with get_context("spawn").Pool(4) as pool:
        pool.map(_share, [(str(out), number) for number in (1, 2, 3, 4)], chunksize=1)
    merged = merge(out, "ivf")
    for number in (1, 2, 3, 4):
        write(tmp_path / "other" / "town", number, 4, "ivf")
    expected = merge(tmp_path / "other" / "town", "ivf")
    for name in FILES:
        assert (merged / name).read_bytes() == (expected / name).read_bytes(), name


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from indexer.builder import share_plan as plans, shares as sharded, merge_lists
    from indexer.versions import publish as sealing, folders as versions
    from tests.indexer.builder import test_shares
    points = {
        "plan": (plans, "write_bytes_atomic"), "encode": (sharded, "encode"), "join": (merge_lists, "join"),
        "publish": (sealing, "publish"), "latest": (versions, "point_latest"), "parts": (sharded.shutil, "rmtree"),
    }
    setattr(*points[sys.argv[2]], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    for number in (1, 2):
        test_shares.write(Path(sys.argv[1]), number, 2, "ivf")
    test_shares.merge(Path(sys.argv[1]), "ivf")
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "town"
    for number in (1, 2):
        write(out, number, 2, "ivf")
    return merge(out, "ivf")


@pytest.mark.parametrize("point", ["plan", "encode", "join", "publish", "latest", "parts"])
def test_killed_and_run_again(tmp_path: Path, expected: Path, point: str) -> None:
    out = tmp_path / "town"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(out), point]
    assert subprocess.run(command, cwd=ROOT, check=False, env=os.environ).returncode == -signal.SIGKILL
    if point != "parts":
        for number in (1, 2):
            write(out, number, 2, "ivf")
    merged = merge(out, "ivf") if sharded.unfinished(out) else out / "versions" / list_versions(out)[0]
    assert indexer.open(out).id == merged.name == expected.name
    for name in FILES:
        assert (merged / name).read_bytes() == (expected / name).read_bytes(), name
    collect(out)
    assert [path.name for path in (out / "versions").iterdir()] == [merged.name]
    shutil.rmtree(out)

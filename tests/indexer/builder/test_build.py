"""Index versions: round trip, exactness, publication, and every damage named."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import indexer
from indexer.pca import fit as pca
from indexer.pca.transform import Transform
from indexer.versions.folders import BUILDING, list_versions
from indexer.versions.manifest import json_schemas, read_manifest
from seqdata.errors import ContractError, InputError, NotEnoughDataError, OutputError
from tests.support.indexes import make_places

ROWS, SIZE = 120, 24


def descriptors(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, SIZE)).astype(np.float32)


def build(
    out: Path, transform: Transform | None = None, normalise: bool = False, rows: int = ROWS, name: str = "a"
) -> Path:
    x = descriptors(rows=rows)
    blocks = (x[start : start + 17] for start in range(0, rows, 17))
    inputs = {"dataset": name, "pca": None if transform is None else transform.output_size}
    return indexer.build(
        out, blocks=blocks, places=make_places(rows), transform=transform, inputs=inputs, normalise=normalise
    )


def brute_force(stored: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    apart = np.linalg.norm(queries[:, None].astype(np.float64) - stored[None].astype(np.float64), axis=2)
    rows = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(apart, rows, 1), rows


@pytest.mark.parametrize("with_pca", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_search_is_brute_force(tmp_path: Path, with_pca: bool, normalise: bool) -> None:
    x, queries = descriptors(), descriptors(1, 31)
    transform = pca.fit(x, 8) if with_pca else None
    build(tmp_path / "town", transform, normalise)
    stored, asked = (x, queries) if transform is None else (transform.apply(x), transform.apply(queries))
    if normalise:
        stored, asked = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (stored, asked))
    expected, expected_rows = brute_force(stored, asked, 6)
    distances, rows = indexer.open(tmp_path / "town").search(queries, 6)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert (distances.dtype, rows.dtype) == (np.float32, np.int64)


def test_file_alone_is_the_whole_index(tmp_path: Path) -> None:
    """Plain FAISS on `index.faiss`, with raw descriptors, finds the same neighbours: the transform is inside."""
    import faiss

    folder = build(tmp_path / "town", pca.fit(descriptors(), 8))
    squared, rows = faiss.read_index(str(folder / "index.faiss")).search(descriptors(1, 9), 4)
    distances, ours = indexer.open(folder).search(descriptors(1, 9), 4)
    np.testing.assert_array_equal(rows, ours)
    np.testing.assert_allclose(np.sqrt(squared), distances, atol=1e-4)


def test_distance_to_itself_is_zero(tmp_path: Path) -> None:
    build(tmp_path / "town")
    distances, rows = indexer.open(tmp_path / "town").search(descriptors(), 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(ROWS))
    assert (distances == 0).all()


def test_result_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    build(tmp_path / "town")
    index = indexer.open(tmp_path / "town")
    distances, rows = index.search(descriptors(1, 64), 5)
    one = [index.search(query, 5) for query in descriptors(1, 64)]
    np.testing.assert_array_equal(rows, np.concatenate([found for _, found in one]))
    np.testing.assert_array_equal(distances, np.concatenate([apart for apart, _ in one]))


def test_more_neighbours_than_rows(tmp_path: Path) -> None:
    build(tmp_path / "town")
    distances, rows = indexer.open(tmp_path / "town").search(descriptors(1, 3), 1000)
    assert rows.shape == distances.shape == (3, ROWS)
    assert (np.sort(rows, axis=1) == np.arange(ROWS)).all()


@pytest.mark.parametrize("among", [np.arange(40, 70), np.array([3, 99, 7, 50])])
def test_search_among_rows(tmp_path: Path, among: np.ndarray) -> None:
    build(tmp_path / "town")
    distances, rows = indexer.open(tmp_path / "town").search(descriptors(1, 8), 3, rows=among)
    expected, inside = brute_force(descriptors()[among], descriptors(1, 8), 3)
    np.testing.assert_array_equal(rows, among[inside])
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_search_refusals(tmp_path: Path) -> None:
    build(tmp_path / "town", pca.fit(descriptors(), 8))
    index = indexer.open(tmp_path / "town")
    bad = descriptors(1, 2)
    for wrong in (bad[:, :8], bad[None], np.full_like(bad, np.nan)):
        with pytest.raises(ContractError):
            index.search(wrong, 3)
    with pytest.raises(ContractError, match="k = 0"):
        index.search(bad, 0)
    for rows in ([ROWS], [-1], [[1]]):
        with pytest.raises(ContractError, match="rows"):
            index.search(bad, 1, rows=rows)
    assert index.search(bad[:0], 3)[0].shape == (0, 3)
    assert index.search(bad, 3, rows=[])[0].shape == (2, 0)


def test_sequences_and_manifest(tmp_path: Path) -> None:
    folder = build(tmp_path / "town", pca.fit(descriptors(), 8))
    index = indexer.open(folder)
    assert index.sequences.equals(make_places(ROWS))
    assert (len(index), index.size, index.manifest.size, index.id) == (ROWS, SIZE, 8, folder.name)
    assert index.manifest.name == "town"
    assert index.manifest.transform is not None
    assert index.manifest.transform.samples == ROWS
    assert json_schemas()["index"]["title"] == "IndexManifest"
    index.verify()


def test_second_process_finds_the_same(tmp_path: Path) -> None:
    build(tmp_path / "town", pca.fit(descriptors(), 8))
    np.save(tmp_path / "q.npy", descriptors(1, 9))
    code = """
        import sys, numpy, indexer
        assert "torch" not in sys.modules and "faiss" not in sys.modules
        distances, rows = indexer.open(sys.argv[1]).search(numpy.load(sys.argv[2]), 4)
        assert "torch" not in sys.modules
        numpy.savez(sys.argv[3], distances=distances, rows=rows)
    """
    arguments = [str(tmp_path / name) for name in ("town", "q.npy", "r.npz")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], check=True)
    distances, rows = indexer.open(tmp_path / "town").search(descriptors(1, 9), 4)
    other = np.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(other["rows"], rows)
    np.testing.assert_array_equal(other["distances"], distances)


def test_same_inputs_are_a_no_op(tmp_path: Path) -> None:
    first = build(tmp_path / "town")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def untouched() -> Iterator[Any]:
        raise AssertionError("blocks were read")
        yield

    again = indexer.build(
        tmp_path / "town", blocks=untouched(), places=make_places(ROWS), transform=None,
        inputs={"dataset": "a", "pca": None},
    )  # fmt: skip
    assert again == first == indexer.find_version(tmp_path / "town", {"pca": None, "dataset": "a"})
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert indexer.find_version(tmp_path / "town", {"dataset": "b"}) is None


def test_inputs_that_do_not_name_everything_are_caught(tmp_path: Path) -> None:
    build(tmp_path / "town")
    with pytest.raises(ContractError, match="name all"):
        build(tmp_path / "town", rows=60)


def test_latest_and_versions(tmp_path: Path) -> None:
    first = build(tmp_path / "town")
    held = indexer.open(tmp_path / "town")
    second = build(tmp_path / "town", name="b", rows=60)
    assert indexer.open(tmp_path / "town").id == second.name
    assert indexer.open(tmp_path).id == second.name
    assert indexer.open(tmp_path / "town", version=first.name[:9]).id == first.name
    assert indexer.open(first).id == first.name
    assert held.search(descriptors(1, 1), 1)[1].shape == (1, 1)
    build(tmp_path / "town")
    assert indexer.open(tmp_path / "town").id == first.name
    with pytest.raises(InputError, match="no version 'zz'"):
        indexer.open(tmp_path / "town", version="zz")
    build(tmp_path / "other")
    with pytest.raises(InputError, match="several indexes, name one: other, town"):
        indexer.open(tmp_path)


def test_nothing_to_open(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="run seqdata index"):
            indexer.open(path)
    folder = build(tmp_path / "town")
    (tmp_path / "town" / "latest").write_text("0123\n")
    with pytest.raises(ContractError, match="latest"):
        indexer.open(tmp_path / "town")
    shutil.rmtree(folder)
    (tmp_path / "town" / "latest").unlink()
    with pytest.raises(InputError, match="no version is published"):
        indexer.open(tmp_path / "town")


DAMAGES = ("cut", "flip", "foreign", "gone")
FILES = ("manifest.json", "transform.safetensors", "index.faiss", "ids.parquet")
DAMAGED = [(name, damage) for name in FILES for damage in DAMAGES if (name, damage) != ("manifest.json", "flip")]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = build(tmp_path / "town", pca.fit(descriptors(), 8)) / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        data[middle] ^= 0x55
        path.write_bytes({"cut": data[:middle], "flip": data, "foreign": os.urandom(len(data))}[damage])
    if (name, damage) == ("manifest.json", "gone"):
        with pytest.raises(ContractError, match="latest"):
            indexer.open(tmp_path / "town")
        return
    with pytest.raises(ContractError, match=name):
        _ = indexer.open(tmp_path / "town").sequences


def test_flipped_manifest(tmp_path: Path) -> None:
    """A flipped byte either breaks the manifest by name or hits a free text that nothing depends on."""
    path = build(tmp_path / "town") / "manifest.json"
    whole = path.read_bytes()
    named = 0
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x95]) + whole[place + 1 :])
        try:
            indexer.open(tmp_path / "town")
        except ContractError as error:
            named += "town" in str(error)
    assert named > len(whole) / 11 / 2


def test_foreign_index_behind_a_fitting_manifest(tmp_path: Path) -> None:
    """Even with matching hashes, another kind or size of index is refused by name."""
    import faiss

    from seqdata.storage.hashing import xxh3_file

    folder = build(tmp_path / "town")
    record = json.loads((folder / "manifest.json").read_text())
    path = folder / "index.faiss"
    for index in (faiss.IndexHNSWFlat(SIZE, 8), faiss.IndexFlatL2(SIZE), faiss.IndexFlatIP(SIZE), None):
        path.write_bytes(b"not an index")
        if index is not None:
            faiss.write_index(index, str(path))
        record["files"]["index.faiss"] = {"bytes": path.stat().st_size, "xxh3": xxh3_file(path)}
        (folder / "manifest.json").write_text(json.dumps(record))
        (folder / "manifest.sha256").unlink(missing_ok=True)
        with pytest.raises(ContractError, match=r"index\.faiss"):
            indexer.open(folder)


def test_blocks_must_fit_places(tmp_path: Path) -> None:
    x = descriptors()
    for blocks in ([x[:50]], [x, x], [x[:60], x[60:, :5]], [], [np.full_like(x, np.inf)]):
        with pytest.raises(ContractError):
            indexer.build(
                tmp_path / "town", blocks=iter(blocks), places=make_places(ROWS), transform=None, inputs={"a": 1}
            )
    with pytest.raises(NotEnoughDataError, match="no database windows"):
        indexer.build(
            tmp_path / "town", blocks=iter([x]), places=make_places(ROWS)[:0], transform=None, inputs={"a": 1}
        )
    assert list((tmp_path / "town" / "versions").iterdir()) == []


def test_occupied_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "town").mkdir()
    (tmp_path / "town" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        build(tmp_path / "town")
    assert [path.name for path in (tmp_path / "town").iterdir()] == ["thesis.txt"]


BUILD_CODE = """
    import os, resource, signal, sys
    import numpy as np
    import indexer
    from seqdata.errors import OutputError
    from tests.support.indexes import make_places
    from tests.indexer.builder.test_build import ROWS, descriptors

    def blocks():
        yield descriptors()[:50]
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        yield descriptors()[50:]

    if sys.argv[2] == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        indexer.build(sys.argv[1], blocks=blocks(), places=make_places(ROWS), transform=None, inputs={"a": 1})
    except OutputError as error:
        print(error)
        sys.exit(error.exit_code)
"""


def run_build(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(BUILD_CODE), str(out), *arguments]
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_killed_build_leaves_nothing_under_a_final_name(tmp_path: Path) -> None:
    assert run_build(tmp_path / "town", "kill").returncode == -9
    assert list_versions(tmp_path / "town") == []
    assert not (tmp_path / "town" / "latest").exists()
    leftovers = list((tmp_path / "town" / "versions").iterdir())
    assert [path.name.startswith(BUILDING) for path in leftovers] == [True]
    folder = indexer.build(
        tmp_path / "town", blocks=iter([descriptors()]), places=make_places(ROWS), transform=None, inputs={"a": 1}
    )
    assert list((tmp_path / "town" / "versions").iterdir()) == [folder]


@pytest.mark.parametrize("limit", [1000, 8000])
def test_no_space_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """The disk refuses the places table (limit 1,000 bytes) or the vectors (8,000)."""
    result = run_build(tmp_path / "town", "full", str(limit))
    assert result.returncode == OutputError.exit_code, result.stderr
    assert len(result.stdout.strip().splitlines()) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list_versions(tmp_path / "town") == []


def test_no_space_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(OutputError, match="no space left"):
        build(tmp_path / "town", pca.fit(descriptors(), 8))
    assert list((tmp_path / "town" / "versions").iterdir()) == []


def _race(out: str) -> str:
    return str(build(Path(out), rows=ROWS))


def test_two_builders_at_once_end_well(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        folders = pool.map(_race, [str(tmp_path / "town")] * 2)
    assert folders[0] == folders[1]
    assert [path.name for path in (tmp_path / "town" / "versions").iterdir()] == [Path(folders[0]).name]
    indexer.open(tmp_path / "town").verify()


def test_second_builder_keeps_the_first_ones_version(tmp_path: Path) -> None:
    """The other builder publishes while this one still streams."""
    out = tmp_path / "town"
    inputs = {"dataset": "a", "pca": None}

    def blocks() -> Iterator[Any]:
        build(out)
        yield descriptors()

    folder = indexer.build(out, blocks=blocks(), places=make_places(ROWS), transform=None, inputs=inputs)
    assert list((out / "versions").iterdir()) == [folder]
    assert read_manifest(folder).rows == ROWS


def test_import_is_light() -> None:
    code = "import sys, indexer; print(sorted({'torch', 'faiss', 'jinja2', 'safetensors'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = indexer.nothing
    assert "open" in dir(indexer)


def test_places_must_keep_their_contract(tmp_path: Path) -> None:
    places = make_places(ROWS).drop("easting")
    with pytest.raises(ContractError, match="easting"):
        indexer.build(tmp_path / "town", blocks=iter([descriptors()]), places=places, transform=None, inputs={"a": 1})
    assert isinstance(places, pl.DataFrame)

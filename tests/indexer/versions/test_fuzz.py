"""Damaged, foreign and hostile index folders: a named error, never a traceback, never the end of the process."""

import json
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import indexer
from indexer.pca import fit as pca
from indexer.pca import transform
from indexer.search import flat_file as flat
from indexer.search.kinds import KindSpec
from seqdata.errors import ContractError, SeqdataError
from seqdata.storage.hashing import xxh3_file
from tests.support.indexes import make_places

ROWS, SIZE, KEPT = 300, 12, 8
KINDS = ("flat", "fp16", "ivf", "hnsw", "imi", "IVF4,PQ4x4,RFlat")
FUZZ = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
CUTS = st.floats(0, 1, exclude_max=True)


def descriptors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A version of every kind behind a PCA."""
    x, folders = descriptors(), {}
    for kind in KINDS:
        spec = KindSpec(kind) if "," not in kind else KindSpec(factory=kind)
        folders[kind] = indexer.build(
            tmp_path_factory.mktemp("index") / "town", blocks=iter([x]), places=make_places(ROWS),
            transform=pca.fit(x, KEPT), inputs={}, kind=spec,
        )  # fmt: skip
    return folders


def spoil(data: bytes, place: float, patch: bytes, cut: bool) -> bytes:
    start = int(place * len(data))
    return data[:start] if cut else data[:start] + patch + data[start + len(patch) :]


def sign(folder: Path, name: str) -> None:
    """Make the manifest fit a changed file, as an attacker would."""
    record = json.loads((folder / "manifest.json").read_text())
    record["files"][name] = {"bytes": (folder / name).stat().st_size, "xxh3": xxh3_file(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(record))
    (folder / "manifest.sha256").unlink(missing_ok=True)


def copy(source: Path, tmp_path: Path, name: str = "copy") -> Path:
    target = tmp_path / name
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(source, target)


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(place=CUTS, patch=st.binary(min_size=1, max_size=9), cut=st.booleans())
def test_damaged_index_is_named_before_faiss_reads_it(
    tmp_path: Path, whole: Any, kind: str, place: Any, patch: Any, cut: Any
) -> None:
    folder = copy(whole[kind], tmp_path)
    path = folder / "index.faiss"
    before = path.read_bytes()
    path.write_bytes(spoil(before, place, patch, cut))
    if path.read_bytes() == before:
        return
    with pytest.raises(ContractError, match=r"index\.faiss"):
        indexer.open(folder)


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@FUZZ
@given(place=CUTS, patch=st.binary(min_size=1, max_size=9), cut=st.booleans(), head=st.booleans())
def test_signed_exact_file_is_named_or_searched(
    tmp_path: Path, whole: Any, kind: str, place: Any, patch: Any, cut: Any, head: Any
) -> None:
    """Exact files are mapped without FAISS: any content is safe."""
    folder = copy(whole[kind], tmp_path)
    path = folder / "index.faiss"
    data = path.read_bytes()
    vectors = ROWS * KEPT * (4 if kind == "flat" else 2)
    where = place * (len(data) - vectors) / len(data) if head else place
    path.write_bytes(spoil(data, where, patch, cut))
    sign(folder, "index.faiss")
    try:
        distances, rows = indexer.open(folder).search(descriptors()[:3], 4)
    except SeqdataError as error:
        assert "index.faiss" in str(error)
    else:
        assert rows.shape == distances.shape == (3, 4)
        assert ((rows >= 0) & (rows < ROWS)).all()


OPENER = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import numpy as np, indexer
    from seqdata.errors import SeqdataError
    queries = np.zeros((3, 12), np.float32)
    for line in sys.stdin:
        try:
            rows = indexer.open(line.strip()).search(queries, 4)[1]
            assert ((rows >= 0) & (rows < 300)).all()
            print("found")
        except SeqdataError as error:
            assert line.strip().rpartition("/")[2] in str(error), error
            print("named")
"""


def hostile(data: bytes, number: int) -> bytes:
    """Cut, or a count or number replaced by one that is too large, in the header or anywhere."""
    rng = np.random.default_rng(number)
    place = int(rng.integers(0, min(len(data) - 8, 1200 if number % 2 else len(data))))
    if number % 4 == 0:
        return data[:place]
    value = [0, 1, 2**31 - 1, 2**40, 2**62, 2**64 - 1][number % 6]
    return data[:place] + struct.pack("<Q", value) + data[place + 8 :]


@pytest.mark.parametrize("kind", KINDS[2:])
def test_signed_hostile_index_does_not_end_the_process(tmp_path: Path, whole: Any, kind: str) -> None:
    """Hashes that fit, so that FAISS itself meets the bytes: in a process of its own, which must end well."""
    folders = []
    for number in range(48):
        folder = copy(whole[kind], tmp_path, f"case-{number:02d}")
        (folder / "index.faiss").write_bytes(hostile((folder / "index.faiss").read_bytes(), number))
        sign(folder, "index.faiss")
        folders.append(str(folder))
    command = [sys.executable, "-c", textwrap.dedent(OPENER)]
    result = subprocess.run(command, input="\n".join(folders), capture_output=True, text=True, check=False, timeout=200)
    answers = result.stdout.split()
    where = folders[min(len(answers), 47)]
    assert result.returncode == 0, f"{where}: {result.stderr[-500:]}"
    assert len(answers) == 48
    assert answers.count("named") >= 10


@FUZZ
@given(place=CUTS, patch=st.binary(min_size=1, max_size=9), cut=st.booleans())
def test_transform_file(tmp_path: Path, whole: Any, place: Any, patch: Any, cut: Any) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(spoil((whole["flat"] / "transform.safetensors").read_bytes(), place, patch, cut))
    try:
        loaded = transform.load(path)
    except ContractError as error:
        assert "t.safetensors" in str(error)
    else:
        assert loaded.matrix.shape == (KEPT, SIZE)
        assert loaded.mean.dtype == np.float32


def paths(value: object, prefix: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [prefix, *(path for key, each in inner for path in paths(each, (*prefix, key)))]


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=9),
    st.sampled_from(["flat", "fp16", "ivf", "../../etc", "IVF0,Flat", "PCA4,Flat"]), st.just({}), st.just([]),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@FUZZ
@given(data=st.data())
def test_manifest_of_any_values(tmp_path: Path, whole: Any, kind: str, data: Any) -> None:
    """One field of the manifest replaced or removed: opened and searched, or a named error."""
    folder = copy(whole[kind], tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    path = data.draw(st.sampled_from(paths(manifest)[1:]))
    owner = manifest
    for key in path[:-1]:
        owner = owner[key]
    if isinstance(owner, dict) and data.draw(st.booleans()):
        del owner[path[-1]]
    else:
        owner[path[-1]] = data.draw(VALUES)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "manifest.sha256").unlink(missing_ok=True)
    try:
        rows = indexer.open(folder).search(descriptors()[:2], 3)[1]
    except SeqdataError as error:
        assert str(folder) in str(error) or "--factory" in str(error)
    else:
        assert ((rows >= 0) & (rows < ROWS)).all()


@pytest.mark.parametrize("kind", ["flat", "fp16"])
@FUZZ
@given(rows=st.integers(0, 400), size=st.integers(1, 30), input_size=st.integers(0, 30))
def test_other_shapes_are_refused(whole: Any, kind: str, rows: Any, size: Any, input_size: Any) -> None:
    path = whole[kind] / "index.faiss"
    if (rows, size, input_size) == (ROWS, KEPT, SIZE):
        return
    with pytest.raises(ContractError, match=r"index\.faiss"):
        flat.map_exact(path, rows, size, input_size, kind)


def test_one_kind_is_not_taken_for_another(tmp_path: Path, whole: Any) -> None:
    """Every file behind every other manifest, with hashes that fit.

    (A graph's file ends as the exact one does, with
    the same vectors, so it may be taken for it.)
    """
    for source in KINDS:
        for target in KINDS:
            if source == target or (source, target) == ("hnsw", "flat"):
                continue
            folder = copy(whole[target], tmp_path)
            shutil.copy(whole[source] / "index.faiss", folder / "index.faiss")
            sign(folder, "index.faiss")
            with pytest.raises(ContractError, match=r"index\.faiss"):
                indexer.open(folder)

"""FAISS files from elsewhere: tried in a process of their own, recorded by hash; factory strings within bounds."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import xxhash

import indexer
from indexer.search import foreign
from indexer.search.approximate import open_faiss
from indexer.search.kinds import KindSpec, check_bounds, create
from indexer.versions.published import is_recorded, record_folder
from seqdata.errors import ContractError
from tests.support.indexes import make_places

SIZE = 8


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A published version of inverted lists over 300 vectors."""
    vectors = np.random.default_rng(0).normal(size=(300, SIZE)).astype(np.float32)
    return indexer.build(
        tmp_path / "town",
        blocks=iter([vectors]),
        places=make_places(300),
        transform=None,
        inputs={"data": "test"},
        kind=KindSpec(factory="IVF4,Flat"),
    )


def forget() -> None:
    shutil.rmtree(record_folder(), ignore_errors=True)


def damage(version: Path, data: bytes, **facts: Any) -> None:
    """Put other bytes under the name, and make the manifest agree with them, as a stranger would."""
    (version / "index.faiss").write_bytes(data)
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"]["index.faiss"] = {"bytes": len(data), "xxh3": xxhash.xxh3_128_hexdigest(data)}
    (version / "manifest.json").write_text(json.dumps({**manifest, **facts}))
    (version / "manifest.sha256").unlink(missing_ok=True)


@pytest.mark.parametrize("change", ["size", "rows", "metric", "cut"])
def test_a_header_that_lies_is_refused_before_faiss_sees_the_file(
    version: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((version / "index.faiss").read_bytes())
    place = {"size": 4, "rows": 8, "metric": 33}.get(change, 0)
    data[place] ^= 1
    damage(version, bytes(data[:20] if change == "cut" else data))
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS has read it"))
    with pytest.raises(ContractError, match=r"index\.faiss: .*(header names|no FAISS index)"):
        open_faiss(version / "index.faiss", 300, SIZE, SIZE, "IVF4,Flat", {})


def test_what_was_published_here_is_opened_at_once_and_a_stranger_s_once_apart(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[Path] = []
    original = foreign.try_file
    monkeypatch.setattr("indexer.place_index.try_file", lambda *facts: trials.append(facts[0]) or original(*facts))
    assert is_recorded(indexer.open(version).manifest.files["index.faiss"])
    assert trials == []
    forget()
    queries = np.eye(SIZE, dtype=np.float32)
    rows = indexer.open(version).search(queries, 3)[1]
    assert len(trials) == 1
    assert (indexer.open(version, check=False).search(queries, 3)[1] == rows).all()
    assert len(trials) == 1


def test_a_file_that_ends_the_process_is_one_line(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(foreign, "PROGRAM", crash)
    with pytest.raises(ContractError, match=r"index\.faiss: FAISS does not survive this file \(SIGSEGV\)"):
        indexer.open(version)
    assert not record_folder().exists() or not list(record_folder().iterdir())


def test_a_file_that_takes_too_long_or_too_much_memory_is_one_line(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    bounded = "from indexer.search.foreign import _bound\n_bound(0)\n"
    monkeypatch.setattr(foreign, "CPU_SECONDS", 1)
    for program, reason in (
        ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass", "SIG(XCPU|KILL)"),
        (f"{bounded}bytearray(6 << 30)", "MemoryError"),
    ):
        monkeypatch.setattr(foreign, "PROGRAM", program)
        with pytest.raises(ContractError, match=rf"index\.faiss: .*{reason}"):
            indexer.open(version)


def test_mutated_files_end_in_answers_or_one_line(version: Path) -> None:
    """Numbers in the head of a file are replaced by great ones, which FAISS takes for sizes and counts."""
    whole = (version / "index.faiss").read_bytes()
    for position, value in ((33, 255), (45, 127), (53, 64), (100, 255), (len(whole) // 2, 255)):
        mutated = bytearray(whole)
        mutated[position : position + 7] = bytes([value]) * 7
        damage(version, bytes(mutated))
        start = time.process_time()
        try:
            indexer.open(version).search(np.eye(SIZE, dtype=np.float32), 5)
        except ContractError as error:
            assert "index.faiss" in str(error)
        assert time.process_time() - start < 60
    damage(version, whole[:-50])
    with pytest.raises(ContractError, match=r"index\.faiss"):
        indexer.open(version)


def test_the_working_folder_gives_a_trial_no_code(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "faiss", "indexer", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    forget()
    indexer.open(version)
    create("IVF4,Flat", SIZE, check=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "factory",
    [
        "IVF1048577,Flat",
        "PQ4x24",
        "IMI2x20,Flat",
        "IVF4" + ",Flat" * 40,
        "IVF99999999999999999999999,Flat",
        "Flat\x1b[2J",
    ],
)
def test_a_factory_string_is_bounded_before_it_is_built(version: Path, factory: str) -> None:
    with pytest.raises(ContractError, match="--factory"):
        check_bounds(factory)
    damage(version, (version / "index.faiss").read_bytes(), factory=factory, storage="factory")
    forget()
    with pytest.raises(ContractError, match="--factory"):
        indexer.open(version)


def test_factories_of_the_kinds_pass() -> None:
    for factory in ("Flat", "SQfp16", "IVF65536_HNSW32,PQ64x8", "IMI2x10,SQ8", "HNSW32", "OPQ32_128,IVF4096,PQ32x4fsr"):
        check_bounds(factory)

"""What is measured of models and searches: memory against a known one, matching against a slow loop."""

import errno
import io
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import indexer
from cli.training.profile import profile
from indexer.search import engines
from indexer.versions.manifest import read_manifest
from seqdata.errors import ContractError, OutputError
from tests.support.indexes import make_places
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.encoders.preprocess import Preprocess
from train.profiling import matching as match_profiling
from train.profiling import models as profiling
from train.profiling import vectors as match_vectors
from train.profiling.matching import BY_FRAME, ENGINES, matching
from train.profiling.vectors import draw_queries, free_memory, spooled, vector_blocks

MEGA = 1 << 20


class Hungry(SequenceModel):
    """Holds two arrays of 8 MB at once, then one of 4 MB after both are gone; 1 MB of weights."""

    def __init__(self) -> None:
        super().__init__(Preprocess((0.5,) * 3, (0.5,) * 3), {"name": "hungry"})
        self.weight = torch.nn.Parameter(torch.zeros(MEGA // 4))

    def descriptor_size(self, length: Any) -> Any:
        return 2

    def encode_frames(self, frames: Any) -> Any:
        first = torch.zeros(2 * MEGA)
        second = torch.ones(2 * MEGA)
        found = first[0] + second[0]
        del first, second
        return torch.zeros(MEGA)[:1] + found.expand(len(frames), 2)

    def fuse_rows(self, features: Any, rows: Any) -> Any:
        return features[rows].sum(1)


def test_peak_memory_is_the_most_that_is_held_at_once_and_the_weights() -> None:
    model = Hungry()
    windows = profiling.noise(model, 3, (16, 16), torch.device("cpu"))
    found = profiling.peak_memory(model, windows)
    assert MEGA <= profiling.weight_bytes(model) < MEGA + 100
    assert 17 * MEGA <= found < 17 * MEGA + (64 << 10)


def test_extraction_of_a_small_model() -> None:
    model = models.create("seqvlad-small", clusters=4)
    found = profiling.extraction(model, 3, device="cpu", repeats=3, size=(16, 24))
    assert (found.frames, found.size, found.descriptor) == (3, (16, 24), 4 * 64)
    assert 0 < found.fusion < found.p50 <= found.p95 and found.memory > found.weights
    assert json.loads(json.dumps(found.to_json()))["device"]
    again = profiling.extraction(model, 6, device="cpu", repeats=1, size=(16, 24))
    assert again.memory > found.memory and again.weights == found.weights


def generate(rows: Any, queries: Any, dimensions: Any, seed: Any, length: Any = 5) -> Any:
    vectors = np.concatenate(list(vector_blocks(rows, dimensions, seed)))
    return vectors, draw_queries(vectors, queries, length, seed)


@pytest.mark.parametrize("length", [1, 5, 15])
def test_aligned_matching_is_the_mean_distance_frame_by_frame(length: int) -> None:
    vectors, asked = generate(70, 4, 12, 3, length)
    halves = match_profiling._half_norms(vectors)
    for query in asked:
        apart = [np.linalg.norm(vectors[at : at + length] - query, axis=1).mean() for at in range(71 - length)]
        best = np.argsort(apart, kind="stable")[:10]
        assert np.array_equal(match_profiling._aligned_everywhere(vectors, halves, query), best)
        some = np.sort(best)[::2]
        ordered = some[np.argsort(np.array(apart)[some], kind="stable")]
        assert np.array_equal(match_profiling._aligned(vectors, query, some), ordered)
    assert matching("aligned", 70, 12, queries=2, length=length).length == length
    assert matching("flat", 70, 12, queries=2, length=length).length == 1


@pytest.mark.parametrize("engine", ["flat", "fp16", "aligned", "hvpr"])
def test_vectors_lie_in_a_file_and_never_whole_in_memory(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((match_vectors, "BLOCK_VALUES"), (match_profiling, "BLOCK_VALUES"), (engines, "WIDE_VALUES")):
        monkeypatch.setattr(module, name, 1 << 16)
    monkeypatch.setattr(match_profiling, "free_memory", lambda: 0)
    whole = 20_000 * 256 * 4
    tracemalloc.start()
    try:
        found = matching(engine, 20_000, 256, queries=2, folder=tmp_path / "new")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.agreement > 0.9 and peak < whole / 4
    assert list((tmp_path / "new").iterdir()) == []


def test_the_file_has_no_name_so_that_a_kill_leaves_nothing(tmp_path: Path) -> None:
    blocks = iter([np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)])
    mapped = spooled(blocks, (3, 3), np.float16, tmp_path)
    assert mapped.dtype == np.float16 and mapped.tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3]
    assert list(tmp_path.iterdir()) == [] and not mapped.flags.writeable


def test_a_full_disk_is_named_before_and_while_vectors_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

    blocks = [np.ones((2, 4), np.float32)]
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="no space left"):
        patch.setattr("tempfile.TemporaryFile", lambda **_: Full())
        spooled(blocks, (2, 4), np.float32, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        spooled(blocks, (2, 4), np.float32, tmp_path / "file")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 69, 31))
    with pytest.raises(ContractError, match="GB on the disk"):
        spooled(blocks, (2, 4), np.float32, tmp_path)


def test_only_what_faiss_holds_must_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match_profiling, "free_memory", lambda: 24e9)
    match_profiling._check_memory("ivf", 1_000_000, 4096)
    match_profiling._check_memory("pq", 1_000_000, 4096)
    monkeypatch.setattr(match_profiling, "free_memory", lambda: 16.4e9)
    for kind in ("ivf", "imi", "hnsw"):
        with pytest.raises(ContractError, match=f"{kind} over 1,000,000 vectors of 4096 dim.* GB of memory"):
            match_profiling._check_memory(kind, 1_000_000, 4096)
    with pytest.raises(ContractError, match="GB of memory"):
        matching("hnsw", 10**9, 4096)


def test_memory_that_only_keeps_files_at_hand_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       100 kB\nMemFree:          7 kB\nMemAvailable:    20 kB\n")
    monkeypatch.setattr(match_vectors, "MEMINFO", tmp_path / "meminfo")
    assert free_memory() == 20 * 1024
    monkeypatch.setattr(match_vectors, "MEMINFO", tmp_path / "none")
    assert free_memory() > 1 << 20


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_built_searched_and_compared(engine: Any) -> None:
    found = matching(engine, 600, 16, queries=10)
    assert found.ms > 0 and found.megabytes > 0 and 0 <= found.agreement <= 1 and found.database == 600
    if engine in ("flat", "aligned"):
        assert found.agreement == 1.0
    if engine in ("fp16", "hnsw", "ivf", "imi"):
        assert found.agreement > 0.9


@pytest.mark.parametrize("kind", [each for each in ENGINES if each not in BY_FRAME])
def test_kinds_are_those_that_an_index_of_the_same_vectors_has(kind: str, tmp_path: Path) -> None:
    found = matching(kind, 600, 16, queries=2, seed=7)
    stored = generate(604, 2, 16, 7)[0][:600]
    built = indexer.build(
        tmp_path / "town", blocks=iter([stored]), places=make_places(600), transform=None, inputs={}, kind=kind
    )
    facts = read_manifest(built)
    assert found.factory == facts.factory
    assert found.search == ", ".join(f"{name} {value}" for name, value in facts.search.items())
    file = (built / "index.faiss").stat().st_size
    assert file - 2000 < 1e6 * found.megabytes <= file


def test_generated_vectors_are_unit_seeded_and_queries_lie_near_their_own_row() -> None:
    vectors, asked = generate(300, 20, 64, seed=1)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and asked.shape == (20, 5, 64)
    assert np.array_equal(vectors, generate(300, 20, 64, seed=1)[0])
    assert not np.array_equal(vectors, generate(300, 20, 64, seed=2)[0])
    rows = (asked[:, 0] @ vectors.T).argmax(1)
    assert np.array_equal((asked[:, 1] @ vectors.T).argmax(1), rows + 1)


def test_half_precision_halves_memory_and_what_does_not_fit_is_refused() -> None:
    flat, half = matching("flat", 400, 64, queries=2), matching("fp16", 400, 64, queries=2)
    assert half.megabytes == pytest.approx(flat.megabytes / 2, rel=0.01)
    with pytest.raises(ContractError, match="GB are free"):
        matching("flat", 10**9, 4096)
    with pytest.raises(ContractError, match="no engine 'lsh'"):
        matching("lsh", 100, 16)


def test_the_command() -> None:
    app = typer.Typer()
    app.command()(profile)
    small = ["--model", "seqvlad-small", "--option", "size=[16,24]", "--repeats", "1", "--dimensions", "16"]
    found = CliRunner().invoke(app, [*small, "--database", "200", "--engine", "flat", "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["extraction"]["seqvlad-small"]["size"] == [16, 24] and answer["matching"][0]["database"] == 200
    text = CliRunner().invoke(app, [*small, "--database", "0"]).stdout
    assert "seqvlad-small" in text and "agreement" not in text
    wrong = CliRunner().invoke(app, ["--model", "seqvlad-smal"]).exception
    assert isinstance(wrong, ContractError)

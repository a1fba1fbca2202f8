"""What is measured of models and searches: memory against a known one, matching against a slow loop."""

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import indexer
from cli.profiling import profile
from indexer.kinds import KINDS
from indexer.manifest import read_manifest
from seqdata.errors import ContractError
from tests.indexer.helpers import make_places
from train import match_profiling, models, profiling
from train.match_profiling import ENGINES, generate, matching
from train.preprocess import Preprocess
from train.sequence_model import SequenceModel

MEGA = 1 << 20


class Hungry(SequenceModel):
    """Holds two arrays of 8 MB at once, then one of 4 MB after both are gone; 1 MB of weights."""

    def __init__(self):
        super().__init__(Preprocess((0.5,) * 3, (0.5,) * 3), {"name": "hungry"})
        self.weight = torch.nn.Parameter(torch.zeros(MEGA // 4))

    def descriptor_size(self, length):
        return 2

    def encode_frames(self, frames):
        first = torch.zeros(2 * MEGA)
        second = torch.ones(2 * MEGA)
        found = first[0] + second[0]
        del first, second
        return torch.zeros(MEGA)[:1] + found.expand(len(frames), 2)

    def fuse_rows(self, features, rows):
        return features[rows].sum(1)


def test_peak_memory_is_the_most_that_is_held_at_once_and_the_weights():
    model = Hungry()
    windows = profiling.noise(model, 3, (16, 16), torch.device("cpu"))
    found = profiling.peak_memory(model, windows)
    assert MEGA <= profiling.weight_bytes(model) < MEGA + 100
    assert 17 * MEGA <= found < 17 * MEGA + (64 << 10)


def test_extraction_of_a_small_model():
    model = models.create("seqvlad-small", clusters=4)
    found = profiling.extraction(model, 3, device="cpu", repeats=3, size=(16, 24))
    assert (found.frames, found.size, found.descriptor) == (3, (16, 24), 4 * 64)
    assert 0 < found.fusion < found.p50 <= found.p95 and found.memory > found.weights
    assert json.loads(json.dumps(found.to_json()))["device"]
    again = profiling.extraction(model, 6, device="cpu", repeats=1, size=(16, 24))
    assert again.memory > found.memory and again.weights == found.weights


def test_aligned_matching_is_the_mean_distance_frame_by_frame():
    vectors, asked = generate(60, 4, 12, seed=3)
    norms = np.square(vectors).sum(1)
    for query in asked:
        apart = [np.linalg.norm(vectors[at : at + 5] - query, axis=1).mean() for at in range(56)]
        best = np.argsort(apart, kind="stable")[:10]
        assert np.array_equal(match_profiling._aligned(vectors, norms, query, np.arange(56)), best)
        some = np.sort(best)[::2]
        assert match_profiling._aligned(vectors, norms, query, some)[0] == some[np.argmin(np.array(apart)[some])]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_built_searched_and_compared(engine):
    found = matching(engine, 600, 16, queries=10)
    assert found.ms > 0 and found.megabytes > 0 and 0 <= found.agreement <= 1 and found.database == 600
    if engine in ("flat", "aligned"):
        assert found.agreement == 1.0
    if engine in ("fp16", "hnsw", "ivf", "imi"):
        assert found.agreement > 0.9


@pytest.mark.parametrize("kind", [each for each in ENGINES if each in KINDS])
def test_kinds_are_those_that_an_index_of_the_same_vectors_has(kind, tmp_path):
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


def test_generated_vectors_are_unit_seeded_and_queries_lie_near_their_own_row():
    vectors, asked = generate(300, 20, 64, seed=1)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and asked.shape == (20, 5, 64)
    assert np.array_equal(vectors, generate(300, 20, 64, seed=1)[0])
    assert not np.array_equal(vectors, generate(300, 20, 64, seed=2)[0])
    rows = (asked[:, 0] @ vectors.T).argmax(1)
    assert np.array_equal((asked[:, 1] @ vectors.T).argmax(1), rows + 1)


def test_half_precision_halves_memory_and_what_does_not_fit_is_refused():
    flat, half = matching("flat", 400, 64, queries=2), matching("fp16", 400, 64, queries=2)
    assert half.megabytes == pytest.approx(flat.megabytes / 2, rel=0.01)
    with pytest.raises(ContractError, match="GB are free"):
        matching("flat", 10**9, 4096)
    with pytest.raises(ContractError, match="no engine 'lsh'"):
        matching("lsh", 100, 16)


def test_the_command():
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

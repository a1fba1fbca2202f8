"""The CUDA paths where there is a card: the CPU's numbers, repeatable when set so, and an end when it is full."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from indexer.search.exact import ExactVectors, nearest_rows
from indexer.search.gpu_engines import AutoEngine, TorchEngine, current_cuda
from tests.support.fake_dataset import FakeDataset, write_protocol
from tests.train.loop.test_fit import settings
from train.data.frames import FrameSource
from train.devices import arithmetic
from train.loop.step import StepModel, compiled
from train.models import registry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
SMALL = {"encoder": "resnet10t", "cut": "layer1", "size": None, "trainable": "all"}
MODELS: dict[str, dict[str, Any]] = {
    "seqvlad-small": {**SMALL, "clusters": 4},
    "gem-cat-small": SMALL,
    "seqvlad-cct224": {"clusters": 4},
    "sta": {},
    "timesformer": {},
}


@pytest.fixture
def data() -> FakeDataset:
    return FakeDataset()


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [loss for line in lines for loss in line.get("losses", [])]


@pytest.mark.parametrize("name", MODELS)
def test_descriptors_are_those_of_the_cpu(data: FakeDataset, name: str) -> None:
    """In whole float32 to 1e-4; rounded ones point the same way and find the same neighbours."""
    model = registry.create(name, weights="random", **MODELS[name])
    table = data.sequences(length=5)[:40]
    cpu = train.describe(model, data, table, device="cpu")
    for precision, error in (("fp32", 1e-4), ("tf32", 2e-2), ("bf16", 1e-1)):
        card = train.describe(model, data, table, device="cuda", precision=precision)
        assert np.linalg.norm(card - cpu) <= error * np.linalg.norm(cpu), precision
        if precision == "fp32":
            cosines = (card * cpu).sum(1) / np.linalg.norm(card, axis=1) / np.linalg.norm(cpu, axis=1)
            assert cosines.min() > 0.99999
            agreement = nearest_rows(card, card, 10, engine="cpu")[1] == nearest_rows(cpu, cpu, 10, engine="cpu")[1]
            assert agreement.mean() > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_a_deterministic_step_repeats_to_the_bit(name: str) -> None:
    """Three steps, twice, of every family of models, also those with attention."""
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = registry.create(name, weights="random", seed=1, **MODELS[name]).cuda().train()
        step, optimizer = StepModel(model, FrameSource(FakeDataset())), torch.optim.Adam(model.parameters(), fused=True)
        generator = torch.Generator().manual_seed(0)
        size = model.size or (32, 48)
        with arithmetic(torch.device("cuda"), "tf32", deterministic=True):
            for _ in range(3):
                frames = torch.randint(0, 256, (12, 3, *size), dtype=torch.uint8, generator=generator).cuda()
                loss = step(frames, torch.arange(10, device="cuda").view(2, 5)).var(0).sum()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        results.append(torch.cat([value.detach().flatten().float() for value in model.state_dict().values()]).cpu())
    assert torch.equal(*results)


def test_a_deterministic_run_repeats_and_resumes(data: FakeDataset, tmp_path: Path) -> None:
    protocol = write_protocol(tmp_path)
    fields = {"device": "cuda", "deterministic": True, "mirror": True, "shift": 0.1}
    whole = train.fit(data, settings(protocol, **fields), tmp_path / "whole")
    again = train.fit(data, settings(protocol, **fields), tmp_path / "again")
    train.fit(data, settings(protocol, **{**fields, "epochs": 1}), tmp_path / "part")
    part = train.fit(data, settings(protocol, **fields), tmp_path / "part", resume=True)
    assert losses(whole) == losses(again) == losses(part)
    model = train.load_model(whole)
    assert np.isfinite(train.describe(model, data, data.sequences(length=3)[:5], device="cpu")).all()


@pytest.mark.parametrize("fields", [{"amp": True}, {"compile": True}, {"checkpointing": 8}])
def test_savings_of_time_and_memory_train_to_like_losses(data: FakeDataset, tmp_path: Path, fields: Any) -> None:
    protocol = write_protocol(tmp_path)
    runs = {}
    for name, more in {"plain": {"amp": False}, "saving": {"amp": False, **fields}}.items():
        chosen = settings(protocol, **{"device": "cuda", "epochs": 1, **more})
        runs[name] = losses(train.fit(data, chosen, tmp_path / name))
    np.testing.assert_allclose(runs["saving"], runs["plain"], rtol=0.1, atol=0.02)


def test_a_run_goes_on_from_a_cpu_to_a_card_and_back(data: FakeDataset, tmp_path: Path) -> None:
    protocol = write_protocol(tmp_path)
    for epochs, device in ((1, "cpu"), (2, "cuda"), (3, "cpu")):
        run = train.fit(data, settings(protocol, device=device, epochs=epochs), tmp_path / "run", resume=epochs > 1)
    assert np.isfinite(losses(run)).all()


def test_few_graphs_are_compiled(data: FakeDataset) -> None:
    torch._dynamo.reset()
    model = registry.create("seqvlad-small", weights="random", **MODELS["seqvlad-small"]).cuda()
    step = compiled(StepModel(model, FrameSource(data)), True)
    torch._dynamo.utils.counters.clear()
    for frames, windows in ((19, 4), (16, 3), (30, 6), (41, 7)):
        rows = torch.arange(windows * 5, device="cuda").view(windows, 5) % frames
        step(torch.zeros(frames, 3, 32, 48, dtype=torch.uint8, device="cuda"), rows)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_a_search_leaves_a_full_card(caplog: pytest.LogCaptureFixture) -> None:
    """Another program fills the card between opening and searching: the answer comes from the CPU."""
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.standard_normal((4000, 64)).astype(np.float32),
        rng.standard_normal((9, 64)).astype(np.float32),
    )
    engine = AutoEngine(vectors, current_cuda())
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    hog = [torch.empty(max(1, free - (64 << 20)), dtype=torch.uint8, device="cuda")]
    hog += [torch.empty(1 << 20, dtype=torch.uint8, device="cuda") for _ in range(40)]
    many = np.repeat(queries, 200_000 // 9, axis=0)
    expected = ExactVectors(vectors, "cpu").nearest(queries, 5)[1]
    np.testing.assert_array_equal(ExactVectors(vectors, engine).nearest(many, 5)[1][:1], expected[:1])
    del hog


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("resident", [True, False])
def test_search_on_the_card_is_exact(dtype: Any, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resident and streamed through two pinned buffers, in many blocks."""
    monkeypatch.setattr("indexer.search.gpu_engines.COPY_VALUES", 1 << 14)
    monkeypatch.setattr("indexer.search.gpu_engines.SCORE_VALUES", 1 << 14)
    monkeypatch.setattr("indexer.search.gpu_engines.fits", lambda vectors, device: resident)
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((3000, 96)) + 3).astype(dtype)
    queries = (rng.standard_normal((70, 96)) + 3).astype(np.float32)
    for rows in (None, rng.permutation(3000)[:900]):
        ours = ExactVectors(vectors, TorchEngine(vectors, current_cuda())).nearest(queries, 12, rows)
        theirs = ExactVectors(vectors, "cpu").nearest(queries, 12, rows)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)

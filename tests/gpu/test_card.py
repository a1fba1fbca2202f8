"""The CUDA paths where there is a card: the CPU's numbers, repeatable when set so, and an end when it is full."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import train
from indexer.pca.exact_product import exact_product, round_to_grid
from indexer.pca.transform import Transform
from indexer.search import gpu_training, kinds
from indexer.search.exact import ExactVectors, nearest_rows
from indexer.search.gpu_engines import AutoEngine, TorchEngine, current_cuda
from seqdata.errors import ContractError, DivergedError
from seqdata.frames.decode import decode_image
from tests.benchmarks.street import pictures
from tests.support.fake_dataset import FakeDataset, write_protocol
from tests.train.loop.test_fit import settings
from train.data.describe import describe_in_place
from train.data.device_frames import _torchcodec
from train.data.frames import FrameSource
from train.data.upload import Upload
from train.devices import arithmetic
from train.loop.step import StepModel, compiled
from train.losses.contrastive import ContrastiveLoss
from train.losses.multi_similarity import PlaceLoss
from train.models import registry

pytestmark = [
    pytest.mark.card,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
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


def test_mined_descriptors_stay_on_the_card(data: FakeDataset) -> None:
    model = registry.create("seqvlad-small", weights="random", **MODELS["seqvlad-small"])
    table = data.sequences(length=5)[:40][::-1]
    in_place = describe_in_place(model, data, table, device="cuda", precision="fp32")
    assert in_place.is_cuda
    host = train.describe(model, data, table, device="cuda", precision="fp32")
    np.testing.assert_allclose(in_place.cpu().numpy(), host, atol=1e-5)


def test_projections_on_the_card_have_the_bits_of_the_cpu() -> None:
    rng = np.random.default_rng(3)
    rows, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((300, 4097), (65, 4097)))
    transform = Transform(rows[0], matrix, np.ones(65), 0.5, "gram", 9)
    expected = exact_product(rows - transform.mean, round_to_grid(matrix))
    projections = transform.apply_on_device(torch.from_numpy(rows).cuda())
    assert projections.is_cuda
    np.testing.assert_array_equal(projections.cpu().numpy().view(np.uint32), expected.view(np.uint32))


def test_mining_picks_the_tuples_of_the_cpu(data: FakeDataset, tmp_path: Path) -> None:
    """In whole float32, from the same weights: a run on a card is comparable to one on a CPU."""
    rounds = {}
    for device in ("cpu", "cuda"):
        chosen = settings(
            write_protocol(tmp_path), device=device, epochs=1, precision="fp32", amp=False, kmeans_frames=0, rounds=1
        )
        run = train.fit(data, chosen, tmp_path / device)
        (file,) = (run / "mined").iterdir()
        rounds[device] = pl.read_parquet(file)
    assert rounds["cpu"].height and rounds["cpu"].equals(rounds["cuda"])


def test_a_step_that_does_not_fit_names_a_batch_that_does(
    data: FakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's memory is cut down to what a step of one triplet needs."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1 << 40))
    original, calls = StepModel.forward, []

    def full(self: StepModel, frames: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        calls.append(len(rows))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, frames, rows)

    monkeypatch.setattr(StepModel, "forward", full)
    with pytest.raises(ContractError, match=r"does not fit into the card's memory; batch=\d+ would fit"):
        train.fit(data, settings(write_protocol(tmp_path), device="cuda", epochs=1), tmp_path / "run")


def test_a_loss_that_is_not_finite_ends_the_run(
    data: FakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read some steps later, and before any weights are written."""
    original = StepModel.forward
    monkeypatch.setattr(StepModel, "forward", lambda *values: original(*values) * float("nan"))
    with pytest.raises(DivergedError, match="epoch 1"):
        train.fit(data, settings(write_protocol(tmp_path), device="cuda", epochs=1), tmp_path / "run")


def test_a_step_waits_for_nothing(data: FakeDataset) -> None:
    """No copy or read makes the host wait for the card between two updates (PyTorch's own check)."""
    model = registry.create("seqvlad-small", weights="random", **MODELS["seqvlad-small"]).cuda().train()
    step, upload = StepModel(model, FrameSource(data)), Upload(torch.device("cuda"))
    pixels = upload.receive(upload.send(data.pixels[:12]))
    rows = upload.receive(upload.send(np.arange(10).reshape(2, 5)))
    same = torch.zeros(2, 2, dtype=torch.bool, device="cuda")
    for loss in (
        lambda x: x.var(0).sum(),
        lambda x: PlaceLoss()(x, ~same, same),
        lambda x: ContrastiveLoss()(x, ~same, same),
    ):
        loss(step(pixels, rows)).backward()  # allocations and cuDNN's choice wait the first time
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss(step(pixels, rows)).backward()
            # The check is on: what does wait is refused.
            with pytest.raises(RuntimeError, match="synchronizing"):
                pixels.sum().item()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_jpegs_decoded_by_the_card_are_near_those_of_the_cpu() -> None:
    """Chroma is spread in another way at edges, so means are compared."""
    pytest.importorskip("torchcodec")
    images = list(islice(pictures((64, 48)), 8))
    decoded = _torchcodec(torch.device("cuda"))(images)
    for image, pixels in zip(images, decoded, strict=True):
        ours = decode_image(image).astype(float)
        assert pixels.is_cuda and np.abs(pixels.permute(1, 2, 0).cpu().numpy() - ours).mean() < 4


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,PQ8x4"])
def test_lists_trained_on_the_card_find_what_those_of_the_cpu_find(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faiss = pytest.importorskip("faiss")
    if not gpu_training.has_faiss_gpu():
        pytest.skip("FAISS without a GPU")
    vectors = np.random.default_rng(0).standard_normal((4000, 32)).astype(np.float32)
    errors = []
    for has_gpu in (True, False):
        monkeypatch.setattr(gpu_training, "has_faiss_gpu", lambda has_gpu=has_gpu: has_gpu)
        index = kinds.create(factory, 32)
        kinds.train(index, vectors, 0, factory)
        index.add(vectors)
        index.nprobe = 16
        errors.append(float(index.search(vectors[:500], 1)[0].mean()))
    assert isinstance(index, faiss.IndexIVF) and errors[0] == pytest.approx(errors[1], rel=0.02, abs=1e-3)

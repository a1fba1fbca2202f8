"""What an update does: rates by group and schedule, accumulation, checkpointing, and losses that must not move."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import train
from seqdata.errors import ContractError, DivergedError
from tests.support.fake_dataset import FakeDataset
from tests.train.loop.test_fit import OPTIONS, settings
from train.data.frames import FrameSource
from train.loop import optimizers as optimisers
from train.loop.step import StepModel, compiled
from train.loop.trainer import Trainer
from train.losses.triplet import TripletLoss
from train.models import registry as models
from train.recipes import RECIPES
from train.runs import checkpoint
from train.runs.checkpoint import read_tensors
from train.settings import TrainSettings

SMALL = {
    "model": "seqvlad-small", "options": OPTIONS, "weights": "random", "device": "cpu", "kmeans_frames": 10,
    "epochs": 2,
}  # fmt: skip
PINNED = {
    "p1-triplet": (
        # With the cap that the recipe had when these numbers were stored.
        {"lr": 1e-3, "round_queries": 6, "rounds": 2, "negatives": 2, "batch": 3, "positives_cap": 10},
        [0.05669414, 0.09441528, 0.09169453, 0.08364790, 0.08003489, 0.05818325, 0.05696741, 0.06414665],
    ),
    "places-scratch": (
        {"places": 4, "run": 2, "steps": 4},
        [1.55313301, 1.08409703, 1.68750739, 0.15280609, 2.24514771, 0.86435229, 1.50627530, 0.98161995],
    ),
    "places-finetune": (
        {"places": 4, "windows": 2, "steps": 4},
        [0.91743118, 0.92841822, 0.84324056, 0.91305631, 0.92380750, 0.88118869, 0.79984814, 0.88032728],
    ),
}


def entries(run: Any) -> Any:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Any) -> Any:
    return read_tensors(run / "checkpoints" / "last.safetensors")


@pytest.mark.parametrize("recipe", PINNED)
def test_recipes_keep_their_numbers(data: FakeDataset, protocol_file: Path, tmp_path: Path, recipe: Any) -> None:
    """Losses on the fake dataset since VLAD words start from tokens drawn in each frame."""
    fields, expected = PINNED[recipe]
    run = train.fit(data, TrainSettings.create(recipe, protocol=protocol_file, **SMALL, **fields), tmp_path / "run")
    found = [loss for entry in entries(run) for loss in entry.get("losses", [])]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_every_recipe_is_valid() -> None:
    for name in RECIPES:
        assert TrainSettings.create(name, protocol="own").regime in ("triplet", "places", "joint")
    seqnet, sta = (TrainSettings.create(name, protocol="own") for name in ("seqnet", "p2-sta"))
    assert seqnet.margin**2 == pytest.approx(0.1) and seqnet.violating_only and seqnet.negatives == 10
    assert sta.round_queries / sta.batch == 1000 == sta.negative_cache


PAPERS = ("seqvlad-triplet", "sta-triplet", "sta-seqvlad", "seqnet", "seqmatchnet")


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_train_in_float32_among_all_positives(name: str) -> None:
    recipe = TrainSettings.create(name, protocol="own")
    assert (recipe.positives_cap, recipe.amp, recipe.precision) == (None, False, "fp32")


def test_the_seqvlad_that_sta_is_compared_with_is_trained_as_sta() -> None:
    sta, seqvlad, earlier = (TrainSettings.create(n, protocol="own") for n in ("p2-sta", "sta-seqvlad", "p1-triplet"))
    for field in ("lr", "batch", "round_queries", "negative_cache", "epochs"):
        assert getattr(seqvlad, field) == getattr(sta, field)
    assert (seqvlad.model, seqvlad.lr, seqvlad.lr_groups) == ("seqvlad-cct384-four", 1e-4, {})
    assert (earlier.lr, earlier.epochs, earlier.patience) == (1e-5, 100, 5)


def test_settings_of_an_earlier_run_keep_their_meaning() -> None:
    """A record without the newer fields: ten positives, as many candidates as queries, all negatives in the mean."""
    newer = ("negative_cache", "violating_only")
    stored = TrainSettings(protocol="own", positives_cap=10).model_dump(mode="json")
    settings = TrainSettings.create(None, {key: value for key, value in stored.items() if key not in newer})
    assert (settings.positives_cap, settings.negative_cache, settings.violating_only) == (10, None, False)


def test_groups_get_their_rates_and_only_theirs(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    """After one SGD step without momentum a parameter has moved by its own rate times its gradient."""
    moved = {}
    for name, groups in {"one": {}, "two": {"pooling": 1e-1, "pooling.centres": 1e-4}}.items():
        fields = {"optimizer": "sgd", "momentum": 0.0, "rounds": 1, "round_queries": 3, "epochs": 1, "lr": 1e-2}
        run = train.fit(data, settings(protocol_file, lr_groups=groups, **fields), tmp_path / name)
        start = train.fit(data, settings(protocol_file, epochs=0), tmp_path / f"{name}-start")
        moved[name] = {key: value - weights(start)[key] for key, value in weights(run).items()}
        assert entries(run)[1]["rates"] == {"base": 1e-2, **groups}
    factors = {"pooling.assignment": 10.0, "pooling.centres": 0.01}
    trained = [key for key, value in moved["one"].items() if value.abs().max() > 0]
    assert {*factors} < {*trained}
    for key in trained:
        factor = factors.get(key, 1.0)
        rounding = 1e-6 * float(weights(start)[key].abs().max()) * max(factor, 1.0)
        assert (moved["two"][key] - factor * moved["one"][key]).abs().max() <= rounding + 1e-9, key


def test_rates_have_bounds() -> None:
    for fields in ({"lr": 1e38}, {"lr": float("inf")}, {"lr_groups": {"pooling": 11.0}}, {"weight_decay": 1e38}):
        with pytest.raises(ContractError, match=next(iter(fields))):
            TrainSettings.create(protocol="own", **fields)
    assert TrainSettings.create(protocol="own", lr=10.0, lr_groups={"pooling": 10.0}).lr == 10.0


def test_the_largest_gradient() -> None:
    first, second, third = (torch.nn.Parameter(torch.zeros(3)) for _ in range(3))
    optimizer = torch.optim.SGD([{"params": [first, second]}, {"params": [third]}], lr=1.0)
    assert optimisers.largest_gradient(optimizer) == 0.0
    first.grad, third.grad = torch.tensor([1.0, -7.0, 2.0]), torch.tensor([3.0, 0.0, 1e30])
    assert optimisers.largest_gradient(optimizer) == pytest.approx(1e30)
    for wrong in (float("nan"), float("-inf")):
        first.grad[1] = wrong
        assert not np.isfinite(float(optimisers.largest_gradient(optimizer)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_names_its_own_batch(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: Any
) -> None:
    """The loss stays finite; the root of nothing has no slope."""
    real, calls = TripletLoss.forward, []

    def forward(self: Any, query: Any, positive: Any, negatives: Any) -> Any:
        calls.append(len(query))
        root = (query - query.detach()).square().sum().sqrt() if len(calls) == 3 else 0.0
        return real(self, query, positive, negatives) + root

    monkeypatch.setattr(TripletLoss, "forward", forward)
    chosen = settings(protocol_file, round_queries=12, accumulate=accumulate)
    at = 3 if accumulate == 2 else 2
    with pytest.raises(DivergedError, match=rf"gradient is nan at epoch 1, step {at}, on sequences query-[ab]\["):
        train.fit(data, chosen, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert record["gradient"] == "nan" and len(record["sequences"]) == 12 * accumulate
    monkeypatch.undo()
    batches = []
    kept = Trainer._backward
    monkeypatch.setattr(
        Trainer, "_backward",
        lambda self, loaded, *rest: (
            batches.append(self.data.sequence_ids(loaded.step.windows)), kept(self, loaded, *rest)),
    )  # fmt: skip
    train.fit(data, settings(protocol_file, round_queries=12, epochs=1, accumulate=accumulate), tmp_path / "sound")
    assert record["sequences"] == [name for batch in batches[2 : 2 + accumulate] for name in batch]


def test_sta_trains_its_two_branches_at_p2s_rates() -> None:
    model = models.create(
        "sta-small", **{"encoder": "resnet10t", "size": (16, 32), "clusters": 3, "window": 2, "stride": 1}
    )
    chosen = TrainSettings.create("p2-sta", protocol="own", model="sta-small")
    base, temporal = optimisers.create(model, chosen).param_groups
    assert (base["lr"], temporal["lr"]) == (1e-4, 1e-3)
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(names[id(parameter)].startswith("temporal.") for parameter in temporal["params"])
    assert not any(names[id(parameter)].startswith("temporal.") for parameter in base["params"])
    assert len(base["params"]) + len(temporal["params"]) == len(names)


def test_rates_are_halved_by_epoch_and_warmed_up() -> None:
    chosen = TrainSettings(protocol="own", lr=1.0, lr_groups={"a": 0.5}, schedule="halve", halve_every=5, warmup=4)
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]}, {"params": []}], lr=9.0)
    seen = []
    for epoch, step in [(1, 0), (1, 3), (5, 0), (6, 0), (11, 2)]:
        optimisers.set_rates(optimizer, chosen, epoch, step, 10)
        seen.append(tuple(optimisers.rates(optimizer, chosen).values()))
    assert seen == [(0.25, 0.125), (1.0, 0.5), (1.0, 0.5), (0.5, 0.25), (0.25, 0.125)]


def test_unknown_groups_and_nothing_to_train_are_named(tiny: Any) -> None:
    with pytest.raises(ContractError, match="trains nothing called 'temporal', but encoder, pooling"):
        optimisers.create(tiny(), TrainSettings(protocol="own", lr_groups={"temporal": 1e-3}))
    with pytest.raises(ContractError, match="trains nothing called 'pool', but"):
        optimisers.create(tiny(), TrainSettings(protocol="own", lr_groups={"pool": 1e-3}))
    frozen = tiny("mean-small", trainable="none")
    with pytest.raises(ContractError, match="nothing to train"):
        optimisers.create(frozen, TrainSettings(protocol="own"))
    assert optimisers.create(frozen, TrainSettings(protocol="own", epochs=0))


def test_accumulated_steps_equal_one_larger_batch(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    """Triplets are a mean over the batch, so 3 × 2 is 6, and what is left at a round's end is an update of its own."""
    fields = {"optimizer": "sgd", "lr": 0.02, "rounds": 2, "round_queries": 8, "epochs": 1, "light": 0.0, "shift": 0.0}
    whole = train.fit(data, settings(protocol_file, batch=4, **fields), tmp_path / "whole")
    parts = train.fit(data, settings(protocol_file, batch=2, accumulate=2, **fields), tmp_path / "parts")
    one, two = entries(whole)[1]["losses"], entries(parts)[1]["losses"]
    np.testing.assert_allclose(np.reshape(two, (-1, 2)).mean(1), one, rtol=1e-4)
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[key], value, rtol=1e-4, atol=1e-6, msg=key)
    odd = {**fields, "round_queries": 6}
    short = train.fit(data, settings(protocol_file, batch=2, accumulate=2, **odd), tmp_path / "odd")
    assert len(entries(short)[1]["losses"]) == 6


def test_a_stop_waits_for_the_update(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    from tests.train.loop.test_resume import at_event

    chosen = settings(protocol_file, rounds=1, round_queries=6, batch=1, accumulate=4, epochs=1)
    whole = train.fit(data, chosen, tmp_path / "whole")
    with pytest.raises(train.loop.fit.Interrupted, match="after 4 of 6 steps"):
        train.fit(data, chosen, tmp_path / "run", progress=at_event(("train", 2)))
    run = train.fit(data, chosen, tmp_path / "run", resume=True)
    assert entries(run)[1]["losses"] == entries(whole)[1]["losses"]
    assert all(torch.equal(value, weights(whole)[key]) for key, value in weights(run).items())


@pytest.mark.parametrize(
    ("name", "options"),
    [("seqvlad-small", {}), ("sta-small", {"size": (16, 32), "clusters": 3, "window": 2, "stride": 1})],
)
def test_checkpointing_changes_no_gradient(data: FakeDataset, name: str, options: Any) -> None:
    found = {}
    rows = torch.tensor([[0, 1, 2], [1, 2, 3], [7, 8, 9], [4, 5, 6]])
    frames = torch.from_numpy(data.pixels[:10]).float()
    for kept in (0, 1, 4, 100):
        options = {"encoder": "resnet10t", "clusters": 4, **options}
        model = models.create(name, **options)
        torch.manual_seed(0)
        out = StepModel(model, FrameSource(data), kept)(frames, rows)
        out.square().mul(torch.arange(out.numel()).view_as(out) % 7).sum().backward()
        found[kept] = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert found[0]
    for kept, tolerance in {1: 1e-4, 4: 1e-4, 100: 0.0}.items():
        assert found[kept].keys() == found[0].keys()
        for key, value in found[0].items():
            assert (found[kept][key] - value).abs().max() <= tolerance * value.abs().max(), key


def test_checkpointing_holds_fewer_activations(data: FakeDataset, tiny: Any) -> None:
    """Bytes that autograd keeps between forward and backward."""
    frames, rows = torch.from_numpy(data.pixels[:12]).float(), torch.arange(12).view(4, 3)
    held = {}
    for kept in (0, 3):
        model, seen = tiny().train(), []
        note = lambda tensor: seen.append(tensor.numel()) or tensor  # noqa: B023, E731
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            StepModel(model, FrameSource(data), kept)(frames, rows)
        held[kept] = sum(seen)
    assert held[3] < held[0] / 3


def test_compile_is_off_unless_asked(tiny: Any, data: FakeDataset) -> None:
    module = StepModel(tiny(), FrameSource(data))
    assert compiled(module, False) is module and not TrainSettings(protocol="own").compile
    assert compiled(module, True) is not module


def test_a_run_compiles_once_whatever_the_number_of_frames(tiny: Any, data: FakeDataset) -> None:
    """The number of distinct frames is another one at nearly every step; each graph would take a minute.

    From 16 frames on: a CPU's convolutions take another memory layout below.
    """
    torch._dynamo.reset()
    counter = CompileCounter()
    module = StepModel(tiny(), FrameSource(data))
    step = compiled(module, True, backend=counter)
    graphs = []
    for frames, windows in ((19, 4), (16, 3), (30, 6)):
        rows = torch.arange(windows * 5).reshape(windows, 5) % frames
        pixels = torch.randint(0, 255, (frames, 3, 32, 32), dtype=torch.uint8)
        torch.testing.assert_close(step(pixels, rows), module(pixels, rows), rtol=1e-4, atol=1e-5)
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1, graphs


def test_a_state_saved_on_a_card_goes_on_with_this_devices_kernels(tmp_path: Path) -> None:
    """Adam saved with its fused CUDA kernel; here it is PyTorch's choice again, and the steps are the same."""
    models = [nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    plain, restored = (torch.optim.Adam(model.parameters(), lr=0.1) for model in models)
    saved = torch.optim.Adam(models[0].parameters(), lr=0.1, fused=True)
    models[0](torch.ones(1, 3)).sum().backward()
    saved.step()
    checkpoint.save_optimizer(tmp_path / "last", saved, {})
    models[1].load_state_dict(models[0].state_dict())
    for optimizer in (plain, restored):
        checkpoint.load_optimizer(tmp_path / "last", optimizer)
        assert optimizer.param_groups[0]["fused"] is None
    for model, optimizer in zip(models, (plain, restored), strict=True):
        model.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(models[1].weight, models[0].weight, rtol=0, atol=0)

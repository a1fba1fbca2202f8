"""Names of devices, and what is set on CUDA for a precision and for repeatable kernels, with a card that is faked."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqdata.errors import ContractError, MissingDependencyError
from train.devices import (
    arithmetic,
    autocast,
    has_bfloat16,
    or_on_cpu,
    pick_device,
    pick_precision,
    repeatable,
    resize_by_products,
)
from train.models import registry

CUDA = torch.device("cuda", 0)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two CUDA devices, as far as names go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def state() -> list[Any]:
    """All that `arithmetic` changes."""
    cudnn = torch.backends.cudnn
    precisions = [torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision]  # type: ignore[attr-defined]
    memory = torch.utils.deterministic.fill_uninitialized_memory
    attention = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    return [*precisions, cudnn.deterministic, cudnn.benchmark, torch.get_deterministic_debug_mode(), memory, attention]


def test_names_are_checked() -> None:
    assert pick_device("cpu").type == "cpu"
    for name in ("tpu", "cuda:", "cuda:x", "CUDA"):
        with pytest.raises(ContractError, match="auto, cpu, cuda"):
            pick_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependencyError, match="--device cpu"):
            pick_device("cuda:0")


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_is_not_there_is_one_line() -> None:
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ContractError, match="has 2 CUDA devices; cuda:0 to cuda:1 are there"):
        pick_device("cuda:9")


@pytest.mark.usefixtures("two_cards")
def test_processes_of_torchrun_take_a_card_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device by number would put all of them on one, which NCCL answers with a traceback."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(pick_device("auto")) == str(pick_device("cuda")) == "cuda:1"
    assert str(pick_device("cpu")) == "cpu"
    with pytest.raises(ContractError, match="give --device cuda"):
        pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ContractError, match="start at most 2 processes a machine"):
        pick_device("cuda")


def test_a_cpu_is_left_alone() -> None:
    before = state()
    with arithmetic(torch.device("cpu"), "fp32", deterministic=True):
        assert state() == before
    with autocast(torch.device("cpu"), "bf16"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("precision", "inside"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_computes_as_it_is_set_and_is_left_as_it_was(precision: Any, inside: str, deterministic: bool) -> None:
    before = state()
    with pytest.raises(KeyboardInterrupt), arithmetic(CUDA, precision, deterministic=deterministic):
        products, convolutions, *repeatable, memory, attention = state()
        assert (products, convolutions) == (inside, inside)
        if deterministic:
            assert repeatable == [True, False, 2], "an operation without a repeatable kernel must be an error"
            assert memory is False and attention == (False, False)
        else:
            assert [*repeatable, memory, attention] == before[2:]
        raise KeyboardInterrupt
    assert state() == before


def test_what_does_not_fit_is_computed_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def compute(device: torch.device) -> int:
        seen.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 7

    assert or_on_cpu(compute, CUDA) == 7 and seen == ["cuda", "cpu"]
    assert "the memory of cuda:0 is full" in caplog.text


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_emulated_bfloat16_is_not_used(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has: bool) -> None:
    """PyTorch counts cards that emulate it, slower than float32, and asks the first card instead of the one in use."""
    seen = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: seen.append(device) or capability)
    assert has_bfloat16(torch.device("cuda", 1)) is has
    assert seen == [torch.device("cuda", 1)]
    assert not has_bfloat16(torch.device("cpu"))


@pytest.mark.usefixtures("two_cards")
def test_a_precision_is_one_of_three_and_does_something() -> None:
    assert (pick_precision(None, "cpu"), pick_precision("bf16", "cuda")) == ("tf32", "bf16")
    with pytest.raises(ContractError, match="expected fp32, tf32, bf16"):
        pick_precision("fp64", "cuda")
    with pytest.raises(ContractError, match="leave it out"):
        pick_precision("bf16", "cpu")


def test_an_operation_without_a_repeatable_kernel_is_one_line() -> None:
    """PyTorch's words as of 2.14; other errors pass through."""
    before = state()
    words = "upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but you set"
    with (
        pytest.raises(ContractError, match="upsample_bicubic2d_backward_out_cuda has no repeatable kernel"),
        arithmetic(CUDA, "tf32", deterministic=True),
    ):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="another"), arithmetic(CUDA, "tf32", deterministic=True):
        raise RuntimeError("another")
    assert state() == before


SIZES = {"bicubic": (7, 4), "bilinear": (3, 9), "nearest": (8, 2), "linear": 8}


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", SIZES)
def test_resizing_by_products_is_pytorchs_and_has_its_gradient(mode: str, antialias: bool) -> None:
    """Up and down, in float32 to rounding; the gradient against PyTorch's in float64."""
    antialias = antialias and mode in ("bicubic", "bilinear")
    shape = (2, 5, 6) if mode == "linear" else (2, 5, 6, 4)
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    options: Any = {"size": SIZES[mode], "mode": mode, "antialias": antialias}
    ours, theirs = resize_by_products(values, **options), F.interpolate(values, **options)
    assert ours.dtype == torch.float32 and float((ours - theirs).abs().max().detach()) <= 1e-6
    exact = values.detach().double().requires_grad_()
    pulls = torch.randn(*theirs.shape, generator=torch.Generator().manual_seed(1))
    (F.interpolate(exact, **options) * pulls).sum().backward()
    gradients = []
    for _ in range(2):
        values.grad = None
        (resize_by_products(values, **options) * pulls).sum().backward()
        gradients.append(values.grad)
    torch.testing.assert_close(gradients[0], exact.grad.float(), rtol=0, atol=1e-6)
    assert torch.equal(*gradients)


def graph_names(output: Tensor) -> set[str]:
    """Names of all operations whose gradients a backward pass would take."""
    seen: set[Any] = set()
    left = [output.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return {type(node).__name__ for node in seen}


POSITIONED: dict[str, dict[str, Any]] = {
    "seqvlad-cct224": {"size": (64, 96), "clusters": 2, "trainable": "all", "cut": "blocks.0"},
    "seqvlad-vit": {
        "size": (64, 96),
        "trainable": "all",
        "encoder": "vit_tiny_patch16_224",
        "clusters": 2,
        "encoder_options": {"dynamic_img_size": True, "depth": 1},
    },
    "timesformer": {
        "encoder": "vit_tiny_patch16_224",
        "size": (32, 32),
        "length": 3,
        "time_resize": "linear",
        "encoder_options": {"depth": 1},
    },
}


@pytest.mark.parametrize("name", POSITIONED)
def test_a_deterministic_step_trains_resized_positions(name: str) -> None:
    """In the place of kernels that PyTorch refuses on CUDA; forward and backward as without, to rounding."""
    model = registry.create(name, weights="random", **POSITIONED[name]).eval()
    frames = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    results = []
    for context in (nullcontext(), repeatable()):
        model.zero_grad()
        with context:
            output = model.fuse_rows(model.encode_frames(frames), torch.tensor([[0, 1], [1, 0]]))
            names = graph_names(output)
            output.square().sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append((output.detach(), torch.cat(gradients), any(n.startswith("Upsample") for n in names)))
    (plain, plain_gradient, was_refused), (ours, gradient, is_refused) = results
    assert (was_refused, is_refused) == (True, False)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-3, atol=1e-4)

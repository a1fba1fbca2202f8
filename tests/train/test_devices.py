"""Names of devices, and what is set on CUDA for a precision and for repeatable kernels, with a card that is faked."""

from typing import Any

import pytest
import torch

from seqdata.errors import ContractError, MissingDependencyError
from train.devices import arithmetic, autocast, has_bfloat16, pick_device, pick_precision

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

"""The optimiser of the settings, and its learning rates, by group, at every update."""

import math

import torch
from torch import Tensor, nn

from seqdata.errors import ContractError
from train.settings import TrainSettings

BASE, CLASSES = "base", "classes"


def create(model: nn.Module, settings: TrainSettings, head: nn.Module | None = None) -> torch.optim.Optimizer:
    """Create Adam, AdamW or SGD over the trained parameters: group `base`, one for each of `lr_groups`, and `classes`.

    A parameter belongs to the longest prefix of its name; `classes` are those of `head`, which a loss trains beside the
    model.

    Raises:
        ContractError: If a prefix names no trained parameter, or nothing is trained at all though there are epochs.
    """
    groups = grouped(model, settings)
    if not any(groups.values()):
        if settings.epochs:
            raise ContractError(f"model {settings.model} has nothing to train; set epochs to 0, or trainable")
        # An optimiser needs a parameter; a run of 0 epochs never steps it.
        groups[BASE] = [nn.Parameter(torch.zeros(1))]
    rates = {BASE: settings.lr, **settings.lr_groups}
    listed = [{"params": parameters, "lr": rates[name]} for name, parameters in groups.items()]
    if head is not None:
        listed.append({"params": list(head.parameters()), "lr": settings.class_lr})
    if settings.optimizer == "sgd":
        return torch.optim.SGD(listed, momentum=settings.momentum, weight_decay=settings.weight_decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(listed, weight_decay=settings.weight_decay, fused=is_fused(groups[BASE]))


def is_fused(parameters: list[nn.Parameter]) -> bool | None:
    """True on CUDA, where one kernel updates all parameters; None leaves the choice to PyTorch."""
    return True if any(parameter.is_cuda for parameter in parameters) else None


def grouped(model: nn.Module, settings: TrainSettings) -> dict[str, list[nn.Parameter]]:
    """Sort the trained parameters into groups.

    Raises:
        ContractError: For a prefix that names none.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (BASE, *settings.lr_groups)}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in trained:
        fitting = [prefix for prefix in settings.lr_groups if f"{name}.".startswith(f"{prefix}.")]
        groups[max(fitting, key=len, default=BASE)].append(parameter)
    for prefix in settings.lr_groups:
        if not groups[prefix]:
            parts = ", ".join(sorted({name.partition(".")[0] for name, _ in trained})) or "nothing"
            raise ContractError(f"lr_groups: model {settings.model} trains nothing called '{prefix}', but {parts}")
    return groups


def set_rates(optimizer: torch.optim.Optimizer, settings: TrainSettings, epoch: int, step: int, steps: int) -> None:
    """Set every group's learning rate for step `step` (from 0) of the `steps` of epoch `epoch` (from 1)."""
    s = settings
    progress = (epoch - 1 + step / max(1, steps)) / s.epochs
    halvings = (epoch - 1) // s.halve_every
    bases = (s.lr, *s.lr_groups.values(), s.class_lr)[: len(optimizer.param_groups)]
    for group, base in zip(optimizer.param_groups, bases, strict=True):
        group["lr"] = rate(base, s.schedule, progress, (epoch - 1) * steps + step, s.warmup, halvings)


def largest_gradient(optimizer: torch.optim.Optimizer) -> Tensor:
    """Find the largest entry (1,) of all gradients by size; NaN where one is NaN, 0 where there are none."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(1)
    # One kernel for all parameters; it stays on the device, so that nothing waits for it.
    return torch.stack(torch._foreach_norm(gradients, float("inf"))).max().view(1)


def rates(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> dict[str, float]:
    """List the present learning rate of every group by name."""
    names = (BASE, *settings.lr_groups, CLASSES)[: len(optimizer.param_groups)]
    return {name: float(group["lr"]) for name, group in zip(names, optimizer.param_groups, strict=True)}


def rate(base: float, schedule: str, progress: float, step: int, warmup: int, halvings: int = 0) -> float:
    """Compute the learning rate at share `progress` (0…1) of training and absolute `step`.

    A linear warm-up, then the schedule.

    "none" stays, "cosine" falls to zero at `progress` 1, "halve" is `base` · 0.5^`halvings`.
    """
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "cosine":
        return base * rising * (0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    return base * rising * (0.5**halvings if schedule == "halve" else 1.0)

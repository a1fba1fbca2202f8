"""What to do when a card's memory is full: how many triplets or places of a step would fit."""

from collections.abc import Callable

import torch

from seqdata.errors import ContractError

MARGIN = 0.9
"""Share of the memory that a step may plan with: blocks of other sizes leave holes, and frames share less at times."""


def full_memory(setting: str, count: int, peak: Callable[[int], float], available: float) -> ContractError:
    """Make the error of a step that does not fit.

    Memory grows by the same amount with each triplet or place, so that small steps tell of large ones.

    Args:
        setting: Name of the setting that counts them: "batch" or "places".
        count: Its value.
        peak: Gives the greatest bytes in use during a step of so many.
        available: Bytes that the card gives this process.
    """
    one, two = peak(1), peak(2)
    most = MARGIN * available
    fitting = 0 if one > most else 1 if two > most else int((most - one) / max(two - one, 1e-9)) + 1
    fitting = min(fitting, count - 1)
    if fitting < 1:
        advice = "not even one fits: choose a smaller model or image size"
    else:
        advice = f"{setting}={fitting} would fit (with accumulate, updates stay as large), or {setting}={count} with "
        advice += "checkpointing=16"
    return ContractError(f"a step of {setting}={count} does not fit into the card's memory; {advice}")


def cuda_peak(action: Callable[[], object], device: torch.device) -> float:
    """Greatest bytes that PyTorch held on a card during an action; infinite where it does not fit either."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        action()
    except torch.OutOfMemoryError:
        return float("inf")
    return float(torch.cuda.max_memory_allocated(device))

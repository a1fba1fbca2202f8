"""Losses of place batches by name: a new one is one module and one entry here.

A loss is called with descriptors `(B, D)` and two pair masks, bool `(B, B)` (positive, negative), and gives a scalar.
"""

from collections.abc import Callable

from torch import nn

from seqdata.errors import UsageError
from train.losses.contrastive import ContrastiveLoss
from train.losses.multi_similarity import PlaceLoss

# Each entry makes its loss of the settings' `temperature`; a loss that has none ignores it.
PAIR_LOSSES: dict[str, Callable[[float], nn.Module]] = {
    "multi-similarity": lambda temperature: PlaceLoss(),
    "contrastive": ContrastiveLoss,
}


def create_pair_loss(name: str, temperature: float) -> nn.Module:
    """Make the loss `name`.

    Raises:
        ContractError: For a name that is not in `PAIR_LOSSES`.

    Example:
        >>> create_pair_loss("contrastive", temperature=0.1).temperature
        0.1
    """
    if name not in PAIR_LOSSES:
        raise UsageError(f"no loss '{name}' for place batches; choose one of {', '.join(PAIR_LOSSES)}")
    return PAIR_LOSSES[name](temperature)

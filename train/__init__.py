"""Floor 4: encoders, pooling, fusion, losses, mining, the training loop and descriptor extraction.

Importing `train` is light: `train.models`, `train.describe` and the rest need torch and are loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train import checkpoint, describing, loop, models, settings
    from train.checkpoint import load_model
    from train.describing import describe, describe_blocks
    from train.loop import fit
    from train.settings import TrainSettings

__all__ = [
    "TrainSettings",
    "checkpoint",
    "describe",
    "describe_blocks",
    "describing",
    "fit",
    "load_model",
    "loop",
    "models",
    "settings",
]

_FUNCTIONS = {
    "TrainSettings": "train.settings",
    "describe": "train.describing",
    "describe_blocks": "train.describing",
    "fit": "train.loop",
    "load_model": "train.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Load a public function or submodule on first use."""
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"train.{name}")
    raise AttributeError(f"module 'train' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)

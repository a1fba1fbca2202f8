"""Floor 4: encoders, pooling, fusion, losses, mining, the training loop and descriptor extraction.

Importing `train` is light: `train.models`, `train.describe` and the rest need torch and are loaded on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from train import models as models
    from train.data.describe import describe as describe
    from train.data.describe import describe_blocks as describe_blocks
    from train.loop.fit import fit as fit
    from train.runs.checkpoint import load_model as load_model
    from train.settings import TrainSettings as TrainSettings

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["models"],
    submod_attrs={
        "data.describe": ["describe", "describe_blocks"],
        "loop.fit": ["fit"],
        "runs.checkpoint": ["load_model"],
        "settings": ["TrainSettings"],
    },
)

"""Models of sequences `(B, L, 3, H, W) -> (B, D)`: registry, encoders, pooling, fusion, presets."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from train.models.base import SequenceModel as SequenceModel
    from train.models.frame_model import FrameModel as FrameModel
    from train.models.fusion.basic import Fusion as Fusion
    from train.models.registry import create as create
    from train.models.registry import names as names

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "registry": ["create", "names"],
        "base": ["SequenceModel"],
        "frame_model": ["FrameModel"],
        "fusion.basic": ["Fusion"],
    },
)

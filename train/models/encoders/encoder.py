"""Frame encoders: any timm backbone, cut at a named stage, giving local features (tokens) of each frame."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from timm.data.config import resolve_model_data_config
from timm.models.vgg import VGG
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqdata.errors import ContractError
from train.models.encoders.weights import create_backbone

BatchNormMode = Literal["eval", "train"]
Part = Literal["grid", "cls"]


class Encoder(nn.Module):
    """Local features of frames from a timm backbone: `(N, 3, H, W)` float32 → `(N, T, C)` float32.

    Convention: T runs over the feature grid row by row (top left first); prefix tokens (CLS, registers) are dropped.
    With `part="cls"` there is one token, the CLS.
    Source: methods, "Backbones"; BatchNorm stays in eval mode even in training, so that a descriptor never depends on
    its batch (`bn="train"` opts out). `made_for`: (height, width) in pixels that a backbone of fixed size is built for,
    None for others.
    """

    def __init__(
        self,
        name: str,
        *,
        cut: str | None = None,
        weights: str | Path = "random",
        seed: int = 0,
        bn: BatchNormMode = "eval",
        trainable: str = "all",
        part: Part = "grid",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Build the backbone `name`, cut after stage `cut` (None = its whole `forward_features`).

        `trainable` is "all", "none", or a stage: that stage and all after it are trained. `options` go to timm.
        Raises: ContractError for an unknown name, stage or mode, and what `create_backbone` raises.
        """
        super().__init__()
        if bn not in ("eval", "train"):
            raise ContractError(f"bn '{bn}': choose eval or train")
        self.backbone = create_backbone(name, weights, seed, **(options or {}))
        data = cast(dict[str, Any], resolve_model_data_config(self.backbone))  # type: ignore[no-untyped-call]
        self.mean: tuple[float, ...] = tuple(data["mean"])
        self.std: tuple[float, ...] = tuple(data["std"])
        self.name = name
        self.made_for = _made_for(data["input_size"], self.backbone, options or {})
        self.bn = bn
        self.part = part
        self.stage, self.channels = _cut(self.backbone, name, cut)
        if part == "cls" and not (getattr(self.backbone, "num_prefix_tokens", 0) and cut is None):
            raise ContractError(f"encoder '{name}' has no CLS token at its end; choose another pooling, or no cut")
        _freeze(self.backbone, name, trainable)
        self.backbone.to(memory_format=torch.channels_last)  # convolutions are a quarter faster on a CPU
        self.train(self.training)

    def train(self, mode: bool = True) -> "Encoder":
        """Set training mode, leaving BatchNorm in eval mode unless `bn="train"`."""
        super().train(mode)
        if self.bn == "eval":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def pop_attention_pool(self) -> nn.Linear | None:
        """Take away the backbone's own attention pooling, `C → 1`, where it has one (CCT)."""
        pool = getattr(self.backbone, "attention_pool", None)
        if not isinstance(pool, nn.Linear):
            return None
        del self.backbone.attention_pool
        return pool

    def forward(self, frames: Tensor) -> Tensor:
        """`(N, 3, H, W)` normalised float32 → tokens `(N, T, C)`."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        if self.stage is None:
            return self._tokens(_method(self.backbone, "forward_features")(frames))
        maps = _method(self.backbone, "forward_intermediates")(
            frames, indices=[self.stage], stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return cast(Tensor, maps[0]).flatten(2).transpose(1, 2)

    def _tokens(self, features: Tensor) -> Tensor:
        """Tokens of a whole backbone's output: `(N, C, H, W)`, `(N, H, W, C)` or `(N, P+T, C)` → `(N, T, C)`."""
        if not isinstance(features, Tensor):
            raise ContractError(f"encoder '{self.name}' ends in several feature maps; choose another, or a cut")
        if self.part == "cls":
            return features[:, :1]
        if features.dim() == 3:
            return features[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :]
        if features.dim() == 4 and features.shape[1] != self.channels and features.shape[-1] == self.channels:
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)


def _made_for(usual: Sequence[int], backbone: nn.Module, options: dict[str, Any]) -> tuple[int, int] | None:
    if not getattr(backbone, "pretrained_cfg", {}).get("fixed_input_size"):
        return None
    sides = options.get("img_size", tuple(usual)[1:])
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def stages(backbone: nn.Module) -> list[str]:
    """The names at which a backbone can be cut, in order (timm's `feature_info`)."""
    return [str(info["module"]) for info in _feature_info(backbone)]


def _feature_info(backbone: nn.Module) -> list[dict[str, Any]]:
    info = getattr(backbone, "feature_info", None) or []
    return [dict(entry) for entry in info]


def _cut(backbone: nn.Module, name: str, cut: str | None) -> tuple[int | None, int]:
    """Prune what lies behind the cut; returns the stage's number (None = whole) and its channels."""
    if cut is None:
        return None, int(cast(int, backbone.num_features))
    if isinstance(backbone, VGG):
        return None, _cut_vgg(backbone, name, cut)
    names = stages(backbone)
    if cut not in names or not hasattr(backbone, "forward_intermediates"):
        raise ContractError(f"encoder '{name}' has no stage '{cut}'; it can be cut at {', '.join(names) or 'no stage'}")
    stage = names.index(cut)
    channels = int(_feature_info(backbone)[stage]["num_chs"])
    _method(backbone, "prune_intermediate_layers")([stage], prune_norm=True, prune_head=True)
    return stage, channels


def _cut_vgg(backbone: VGG, name: str, cut: str) -> int:
    """Cut a VGG after any of its layers: P1 wants conv5_3 before its ReLU, a place that timm does not list."""
    layers = [f"features.{i}" for i in range(len(backbone.features))]
    if cut not in layers:
        raise ContractError(f"encoder '{name}' has no stage '{cut}'; it can be cut at {layers[0]} … {layers[-1]}")
    backbone.features = backbone.features[: layers.index(cut) + 1]
    for unused in ("pre_logits", "head"):
        setattr(backbone, unused, nn.Identity())
    return [layer.out_channels for layer in backbone.features if isinstance(layer, nn.Conv2d)][-1]


def _freeze(backbone: nn.Module, name: str, trainable: str) -> None:
    """Leave gradients on only from stage `trainable` on ("all", "none" or a module's name)."""
    named = list(backbone.named_parameters())
    first = {"all": 0, "none": len(named)}.get(trainable)
    if first is None:
        starts = [i for i, (key, _) in enumerate(named) if key.startswith(f"{trainable}.")]
        if not starts:
            raise ContractError(
                f"encoder '{name}': nothing named '{trainable}' to train; choose all, none or a stage left by the cut"
            )
        first = starts[0]
    for i, (_, parameter) in enumerate(named):
        parameter.requires_grad_(i >= first)


def _method(module: nn.Module, name: str) -> Callable[..., Any]:
    """A method that only the concrete timm class declares."""
    return cast(Callable[..., Any], getattr(module, name))

"""Frame encoders: any timm backbone, cut at a named stage, giving local features (tokens) of each frame."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from timm.data.config import resolve_model_data_config
from timm.models.vgg import VGG
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqdata.errors import ContractError
from train.models.encoders.facets import Facet, end_in_facet
from train.models.encoders.weights import create_backbone

BatchNormMode = Literal["eval", "train"]
Part = Literal["grid", "cls", "all"]


class Output(NamedTuple):
    """What an encoder gives of its last block.

    Attributes:
        part: "grid" for the tokens of the feature grid, "cls" for the CLS token alone, "all" for both.
        facet: The block's output ("token"), or the queries, keys or values of its attention.
    """

    part: Part = "grid"
    facet: Facet = "token"


WHOLE_GRID = Output()


class Encoder(nn.Module):
    """Local features of frames from a timm backbone: `(N, 3, H, W)` float32 → `(N, T, C)` float32.

    BatchNorm stays in eval mode even in training, so that a descriptor never depends on the other windows of its batch
    (`bn="train"` opts out). docs/methods.md#encoders lists the cuts of the papers.

    Convention:
        T runs over the feature grid row by row, top left first; prefix tokens (CLS, registers) are dropped. With
        part "cls" there is one token, the CLS, with part "all" it stands before those of the grid.

    Attributes:
        channels: C.
        mean, std: Pixel statistics of each channel, 0…1, that timm's data gives for the backbone.
        made_for: (height, width) in pixels that a backbone of fixed size is built for, None for others.
    """

    def __init__(
        self,
        name: str,
        *,
        cut: str | None = None,
        final_norm: bool = False,
        freeze_ends: bool = False,
        weights: str | Path = "random",
        seed: int = 0,
        bn: BatchNormMode = "eval",
        trainable: str = "all",
        output: Output = WHOLE_GRID,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Build a backbone, cut it, and freeze what is not trained.

        Args:
            name: A timm name.
            cut: Stage after which it ends; None for its whole `forward_features`.
            final_norm: Apply the backbone's last LayerNorm behind the cut too, frozen unless all is trained. The
                papers' programs do so: they cut the stack, and the classifier's forward pass still ends in the norm.
            freeze_ends: Freeze the last LayerNorm, and the attention that SeqPool starts from, unless all is trained.
            weights: "random", "pretrained" or a file, see `train.models.encoders.weights.create_backbone`.
            seed: Seed of random weights.
            bn: Mode of BatchNorm in training, "eval" or "train".
            trainable: "all", "none", or a stage: that stage and all after it are trained.
            output: Which tokens it gives, and what of them.
            options: Options of timm's model.

        Raises:
            ContractError: For an unknown name, stage or mode, or weights that do not fit.
            InputError, MissingDependencyError: As `create_backbone`.
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
        self.part = part = output.part
        self.final_norm = final_norm and cut is not None
        self.stage, self.channels = _cut(self.backbone, name, cut, self.final_norm)
        if output.facet != "token":
            end_in_facet(self.backbone, name, output.facet, is_cut=cut is not None)
        has_class_token = getattr(self.backbone, "cls_token", None) is not None
        if part != "grid" and not (has_class_token and (cut is None or part == "all")):
            raise ContractError(
                f"encoder '{name}' has no CLS token at its end; choose another pooling, or no cut (SALAD: "
                'pooling_options={"global_from":"mean"})'
            )
        _freeze(self.backbone, name, trainable)
        frozen = (("norm",) if self.final_norm or freeze_ends else ()) + (("attention_pool",) if freeze_ends else ())
        for end in frozen if trainable != "all" else ():
            # A backbone that is cut without its norm has an empty layer in its place.
            cast(nn.Module, getattr(self.backbone, end, nn.Identity())).requires_grad_(False)
        # Measured on a CPU: convolutions are a quarter faster with channels last. Tokens come out the same.
        self.backbone.to(memory_format=torch.channels_last)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Encoder":
        """Set training mode, but leave BatchNorm in eval mode unless `bn="train"`."""
        super().train(mode)
        if self.bn == "eval":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def pop_attention_pool(self) -> nn.Linear | None:
        """Take the backbone's own attention pooling, `C → 1`, out of it, where it has one (CCT).

        Left inside it would be a parameter without a gradient, which stops several processes that train together.
        """
        pool = getattr(self.backbone, "attention_pool", None)
        if not isinstance(pool, nn.Linear):
            return None
        del self.backbone.attention_pool
        return pool

    def forward(self, frames: Tensor) -> Tensor:
        """Compute tokens `(N, T, C)` of normalised frames `(N, 3, H, W)` float32."""
        frames = frames.contiguous(memory_format=torch.channels_last)
        if self.stage is None:
            return self._tokens(_method(self.backbone, "forward_features")(frames))
        maps = _method(self.backbone, "forward_intermediates")(
            frames,
            indices=[self.stage],
            norm=self.final_norm,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
            **({"return_prefix_tokens": True} if self.part == "all" else {}),
        )
        if self.part == "all":
            grid, prefix = maps[0]
            return torch.cat([prefix[:, :1], cast(Tensor, grid).flatten(2).transpose(1, 2)], dim=1)
        return cast(Tensor, maps[0]).flatten(2).transpose(1, 2)

    def _tokens(self, features: Tensor) -> Tensor:
        """Tokens of a whole backbone's output: `(N, C, H, W)`, `(N, H, W, C)` or `(N, P+T, C)` → `(N, T, C)`."""
        if not isinstance(features, Tensor):
            raise ContractError(f"encoder '{self.name}' ends in several feature maps; choose another, or a cut")
        if self.part == "cls":
            return features[:, :1]
        if features.dim() == 3:
            grid = features[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :]
            return torch.cat([features[:, :1], grid], dim=1) if self.part == "all" else grid
        # Swin and other hierarchical transformers of timm give channels last.
        if features.dim() == 4 and features.shape[1] != self.channels and features.shape[-1] == self.channels:
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)


def _made_for(usual: Sequence[int], backbone: nn.Module, options: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) that a backbone of fixed size is built for: timm's usual, or the option `img_size`."""
    if not getattr(backbone, "pretrained_cfg", {}).get("fixed_input_size"):
        return None
    sides = options.get("img_size", tuple(usual)[1:])
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def _feature_info(backbone: nn.Module) -> list[dict[str, Any]]:
    """The stages at which a backbone can be cut, in order, as timm records them."""
    info = getattr(backbone, "feature_info", None) or []
    return [dict(entry) for entry in info]


def _cut(backbone: nn.Module, name: str, cut: str | None, final_norm: bool) -> tuple[int | None, int]:
    """Prune what lies behind the cut; returns the stage's number (None = whole) and its channels."""
    if cut is None:
        return None, int(cast(int, backbone.num_features))
    if final_norm:
        _final_norm(backbone, name)
    if isinstance(backbone, VGG):
        return None, _cut_vgg(backbone, name, cut)
    infos = _feature_info(backbone)
    names = [str(info["module"]) for info in infos]
    if cut not in names or not hasattr(backbone, "forward_intermediates"):
        raise ContractError(f"encoder '{name}' has no stage '{cut}'; it can be cut at {', '.join(names) or 'no stage'}")
    stage = names.index(cut)
    channels = int(infos[stage]["num_chs"])
    _method(backbone, "prune_intermediate_layers")([stage], prune_norm=not final_norm, prune_head=True)
    return stage, channels


def _final_norm(backbone: nn.Module, name: str) -> nn.LayerNorm:
    """The LayerNorm at a backbone's end. Raises: ContractError where there is none."""
    norm = getattr(backbone, "norm", None)
    if not isinstance(norm, nn.LayerNorm):
        raise ContractError(f"encoder '{name}' has no LayerNorm at its end; leave final_norm unset")
    return norm


def _cut_vgg(backbone: VGG, name: str, cut: str) -> int:
    """Cut a VGG after any of its layers: the papers end after conv5_3, before its ReLU, a stage timm does not list."""
    layers = [f"features.{i}" for i in range(len(backbone.features))]
    if cut not in layers:
        raise ContractError(f"encoder '{name}' has no stage '{cut}'; it can be cut at {layers[0]} … {layers[-1]}")
    backbone.features = backbone.features[: layers.index(cut) + 1]
    for unused in ("pre_logits", "head"):
        setattr(backbone, unused, nn.Identity())
    return [layer.out_channels for layer in backbone.features if isinstance(layer, nn.Conv2d)][-1]


def _freeze(backbone: nn.Module, name: str, trainable: str) -> None:
    """Leave gradients on only from stage `trainable` on ("all", "none" or a module's name)."""
    # timm registers modules in the order of the forward pass, so "from this stage on" is a suffix of the parameters.
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

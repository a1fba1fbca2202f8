"""Weights of a backbone: seeded random, timm's download, or a file; never silently random."""

import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqdata.errors import ContractError, MissingDependencyError
from train.models.encoders import cct
from train.models.encoders.public_names import to_timm
from train.models.encoders.weight_files import check_values, read_parts

logger = logging.getLogger(__name__)

# File names under which the hub's cache holds a model's weights.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# Options of timm that choose which files are read or what kind of model comes back.
NOT_OPTIONS = ("cache_dir", "checkpoint_path", "features_only", "num_classes")
# Prefixes that DDP, torch.compile, Lightning and most training programs put before a model's own keys.
WRAPPERS = ("module", "_orig_mod", "model", "backbone")


def create_backbone(name: str, weights: str | Path, seed: int, **options: Any) -> nn.Module:
    """Make a timm model without classifier and give it weights.

    Args:
        name: Name of a timm model, or of one registered with timm.
        weights: "random" (drawn from `seed`), "pretrained" (timm's download) or a file, see `load_file`.
        seed: Seed of random weights.
        **options: Options of the architecture, for timm.

    Raises:
        ContractError: For an unknown name, an option that is not the architecture's (a configuration from somebody
            else must not choose what is read), or weights that do not fit.
        InputError: For an unreadable file.
        MissingDependencyError: When a download is impossible.
    """
    if not timm.is_model(name.split(".")[0]):
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:8]) or "see timm.list_models()"
        raise ContractError(f"encoder '{name}': no such timm model; near it: {close}")
    refused = sorted(key for key in options if key in NOT_OPTIONS or key.startswith("pretrained"))
    if refused:
        raise ContractError(f"encoder '{name}': encoder_options may not set '{refused[0]}'; weights come by --weights")
    if str(weights) == "pretrained":
        return _download(name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create(name, options)
    if str(weights) == "random":
        _open_residuals(model)
    else:
        load_file(model, Path(weights))
    return model


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    """An untrained timm model. Raises: ContractError when it does not know an option, or cannot be made with it."""
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ContractError(f"encoder '{name}': {reason[0]}") from error
    return model


@torch.no_grad()
def _open_residuals(model: nn.Module) -> None:
    """Set all-zero BatchNorm scales to one.

    Some backbones start residual branches at zero and rely on training BatchNorm to open them. Ours stays in eval mode,
    and from random weights such branches learn very slowly (on Nordland .32 against .48 R@1 after equal time).
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.weight is not None and not bool(module.weight.any()):
            module.weight.fill_(1.0)


def _download(name: str, options: dict[str, Any]) -> nn.Module:
    """The weights that timm downloads, or one clear line."""
    try:
        _need_hub(name)
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to a user
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingDependencyError(
            f"pretrained weights of '{name}' could not be downloaded ({reason[0][:160]}); "
            "give a file with --weights FILE, or train from scratch with --random-init"
        ) from error
    return model


def _need_hub(name: str) -> None:
    """Give up at once where the weights lie on a server that cannot be reached.

    The hub's own retries take half a minute, and the download from a URL prints a line before it fails.
    Raises: OSError when there is neither a connection, nor a proxy, nor a cached file.
    """
    source = timm.get_pretrained_cfg(name)
    # Behind a proxy a direct connection says nothing.
    if source is None or urllib.request.getproxies():
        return
    if source.hf_hub_id:
        home = source.hf_hub_id
        address = huggingface_hub.constants.ENDPOINT
        cached = any(isinstance(huggingface_hub.try_to_load_from_cache(home, file), str) for file in HUB_FILES)
    else:
        address = str(source.url or "")
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlsplit(address).path).name).is_file()
    host = urllib.parse.urlsplit(address)
    if host.hostname and not cached:
        default_port = 80 if host.scheme == "http" else 443
        socket.create_connection((host.hostname, host.port or default_port), timeout=5).close()


def load_file(model: nn.Module, path: Path) -> None:
    """Load a file of weights into a classifier-free model.

    The file may be a state dict or a training checkpoint; of a checkpoint the first part that fits is taken, and of a
    state dict the keys below the first prefix that fits ("module.", "model.backbone.", …). Classifier weights are
    left out; within the prefix every other key must fit in name and shape. What is taken is logged.

    Raises:
        InputError: When the file cannot be read.
        ContractError: Naming the missing, unexpected and wrongly shaped keys, or a tensor that is not finite.
    """
    own = model.state_dict()
    fits = [
        Fit(part, prefix, state, _faults(own, state))
        for part, tensors in read_parts(path).items()
        for prefix, state in _below_prefixes(model, tensors)
    ]
    # min() takes the first of equal ones, so the order of parts and prefixes decides between those that fit.
    best = min(fits, key=lambda fit: tuple(map(len, fit.faults.values())))
    if any(best.faults.values()):
        faults = "; ".join(f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in best.faults.items() if keys)
        raise ContractError(f"{path}: weights do not fit {type(model).__name__}{best.source}: {faults}")
    check_values(path, best.state)
    if best.source:
        logger.warning("%s: weights taken%s", path, best.source)
    model.load_state_dict(best.state, strict=False)


@dataclass(frozen=True)
class Fit:
    """How well the tensors below `prefix` in a `part` of a file fit a model: `faults` are keys by kind of fault."""

    part: str
    prefix: str
    state: dict[str, Tensor]
    faults: dict[str, list[str]]

    @property
    def source(self) -> str:
        """Where in the file the tensors lie, in words; empty for a bare state dict."""
        part = f" from its part '{self.part}'" if self.part else ""
        return part + (f" under '{self.prefix}'" if self.prefix else "")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file's best part, without a prefix that all its keys share.

    Raises:
        InputError: When the file is missing or unreadable.
        ContractError: When it holds no state dict.
    """
    tensors = next(iter(read_parts(path).values()))
    return below(tensors, _shared_prefix(tensors))


def _below_prefixes(model: nn.Module, tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """State dicts of the model that a file may mean, with their prefix in it: the keys as they are come first.

    A prefix ends where the name of the model's first parameter starts, or its name in the public files of CCT; the
    prefix that all keys share is among them, so that a message names the keys of another model without it.
    """
    first = cct.PUBLIC_FIRST if isinstance(model, cct.Cct) else next(iter(model.state_dict()))
    ends = (first, next(iter(model.state_dict())))
    prefixes = [key.removesuffix(end) for end in ends for key in tensors if key.endswith(f".{end}")]
    for prefix in dict.fromkeys(["", *prefixes, _shared_prefix(tensors)]):
        state = below(tensors, prefix)
        yield prefix, _without_head(model, to_timm(model, state))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose keys start with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _shared_prefix(tensors: Mapping[str, Tensor]) -> str:
    """The wrapper's prefix that all keys share, such as that of DDP, torch.compile or Lightning; empty for none."""
    prefix = ""
    while True:
        names = {key.removeprefix(prefix).partition(".")[0] for key in tensors}
        if len(names) != 1 or not names <= {*WRAPPERS}:
            return prefix
        prefix += f"{names.pop()}."


def _faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Keys that keep a state dict from fitting, by kind."""
    return {
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "of another shape": [key for key in state if key in own and state[key].shape != own[key].shape],
        "unexpected": [key for key in state if key not in own],
    }


def _without_head(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the classifier's weights, by the name that timm's data gives it."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    own = model.state_dict()
    return {k: v for k, v in state.items() if k in own or not any(k.startswith(f"{n}.") for n in names)}


def _some(keys: list[str], limit: int = 4) -> str:
    """The first keys, for messages."""
    return ", ".join(keys[:limit]) + (", …" if len(keys) > limit else "")

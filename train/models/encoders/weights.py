"""Weights of a backbone: seeded random, timm's download, or a file; never silently random."""

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqdata.errors import ContractError, InputError, MissingDependencyError
from train.models.encoders import cct

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
NOT_OPTIONS = ("cache_dir", "checkpoint_path", "features_only", "num_classes")
WRAPPERS = ("state_dict", "state_dict_ema", "model")


def create_backbone(name: str, weights: str | Path, seed: int, **options: Any) -> nn.Module:
    """A timm model without classifier, with `weights` = "random" (seeded), "pretrained" or a file.

    Source: timm names and weights; `.pth` files are read without pickle's code (`weights_only=True`).
    Raises: ContractError for an unknown name, an option that is not the architecture's (a file from somebody else must
    not choose what is read), or keys that do not fit, InputError for an unreadable file,
    MissingDependencyError when a download is impossible.
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
    """Give up at once where what is wanted lies on a server that cannot be reached.

    The hub's own retries take half a minute, and the download from a URL prints a line before it fails.
    Raises: OSError when there is neither a connection, nor a proxy, nor a cached file.
    """
    known = timm.get_pretrained_cfg(name)
    if known is None or urllib.request.getproxies():
        return
    if known.hf_hub_id:
        home = known.hf_hub_id
        address = huggingface_hub.constants.ENDPOINT
        cached = any(isinstance(huggingface_hub.try_to_load_from_cache(home, file), str) for file in HUB_FILES)
    else:
        address = str(known.url or "")
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlsplit(address).path).name).is_file()
    host = urllib.parse.urlsplit(address)
    if host.hostname and not cached:
        usual = 80 if host.scheme == "http" else 443
        socket.create_connection((host.hostname, host.port or usual), timeout=5).close()


def load_file(model: nn.Module, path: Path) -> None:
    """Load a state dict from `path` (.safetensors, .pth, .pt) into a classifier-free model.

    Classifier weights in the file are left out; every other key must fit in name and shape.
    Raises: InputError, ContractError naming the missing, unexpected and wrongly shaped keys.
    """
    read = read_state(path)
    state = _without_head(model, cct.rename_public(read) if isinstance(model, cct.Cct) else read)
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    faults = {"missing": missing, "unexpected": extra, "of another shape": shapes}
    if any(faults.values()):
        said = "; ".join(f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in faults.items() if keys)
        raise ContractError(f"{path}: weights do not fit {type(model).__name__}: {said}")
    model.load_state_dict(dict(state), strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by key from a file; wrappers (`state_dict`, `model`) and a `module.` prefix are taken off.

    Raises: InputError when the file is missing or unreadable, ContractError when it holds no state dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give --weights FILE or --random-init")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and safetensors errors share no base class
        raise InputError(f"{path}: not readable as weights ({type(error).__name__}: {error})") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = (
        {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
        if (isinstance(content, Mapping))
        else {}
    )
    if not tensors:
        raise ContractError(f"{path}: holds no state dict of tensors")
    return tensors


def _without_head(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the classifier's weights, by the name that timm's data gives it."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    own = model.state_dict()
    return {k: v for k, v in state.items() if k in own or not any(k.startswith(f"{n}.") for n in names)}


def _some(keys: list[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (", …" if len(keys) > limit else "")

"""Checkpoints without pickle: tensors as safetensors, everything else as JSON beside them."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor, nn

from seqdata.errors import ContractError, InputError
from seqdata.storage.files import atomic_path, read_json, write_json_atomic
from train.models import registry as models
from train.models.base import SequenceModel
from train.models.encoders.weight_files import check_values
from train.runs.folder import checkpoint_stem

FORMAT = 1
OPTIMIZER, HEAD = ".optimizer", ".head.safetensors"


def save_model(stem: Path, model: SequenceModel, details: dict[str, Any]) -> None:
    """Write `<stem>.safetensors` and, last, `<stem>.json` (format, model config, `details`).

    Raises:
        OutputError: When it cannot be written.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_tensors(_with(stem, ".safetensors"), state)
    write_json_atomic(_with(stem, ".json"), {"format": FORMAT, "model": model.config, **details})


def load_model(path: str | Path, model_from: str | None = None) -> SequenceModel:
    """Load the model of a checkpoint.

    A checkpoint that names a `package.module:factory` is opened only when `model_from` names the same: a file from
    someone else must not choose what code runs.

    Args:
        path: A run folder (its best checkpoint), a checkpoint's stem, or either of its two files.
        model_from: The `package.module:factory` that may make the model.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        InputError: If nothing is there.
        ContractError: If the JSON or the tensors do not fit.
    """
    stem = checkpoint_stem(path)
    details = read_details(stem)
    config = dict(details["model"])
    if ":" in str(config.get("name")) and config["name"] != model_from:
        raise ContractError(
            f"{stem}.json: its model is made by '{config['name']}'; if you trust that code, add --model-from "
            f"{config['name']}"
        )
    # Random weights: the checkpoint's follow, and a pretrained file would only be downloaded to be overwritten.
    model = models.restore({**config, "weights": "random"})
    model.config = config
    fill(model, read_tensors(_with(stem, ".safetensors")), _with(stem, ".safetensors"))
    return model.eval()


def read_details(stem: Path) -> dict[str, Any]:
    """Read the JSON of a checkpoint.

    Raises:
        InputError: When it is absent or cannot be read.
        ContractError: When it is of another format or has no model.
    """
    details = read_json(_with(stem, ".json"))
    if not isinstance(details, dict) or not isinstance(details.get("model"), dict):
        raise ContractError(f"{stem}.json: not a checkpoint of this program (no field 'model')")
    if details.get("format") != FORMAT:
        raise ContractError(f"{stem}.json: checkpoint format {details.get('format')}, this program reads {FORMAT}")
    return details


def fill(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Load tensors into a module, key for key.

    Raises:
        ContractError: Naming tensors that do not fit, or one that holds NaN, infinity or a negative variance.
    """
    own = module.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) + [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if wrong:
        raise ContractError(f"{file}: {len(wrong)} tensors do not fit the model, such as {', '.join(wrong[:4])}")
    check_values(file, state)
    module.load_state_dict(state)


def save_optimizer(
    stem: Path, optimizer: torch.optim.Optimizer, details: dict[str, Any], head: nn.Module | None = None
) -> None:
    """Write the optimiser's tensors, those of `head`, and, last, its numbers and `details` as JSON.

    Args:
        stem: Path without endings.
        optimizer: The optimiser.
        details: Further values of the JSON.
        head: What a loss trains beside the model.

    Raises:
        OutputError: When it cannot be written.
    """
    state = optimizer.state_dict()
    flat: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    # safetensors holds tensors alone: what else an optimiser keeps (counts of steps, an empty momentum) goes into the
    # JSON.
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                flat[f"{index}.{key}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{index}.{key}"] = value
    path = _with(stem, OPTIMIZER)
    write_tensors(_with(path, ".safetensors"), flat)
    if head is not None:
        write_tensors(_with(stem, HEAD), {key: value.detach().cpu() for key, value in head.state_dict().items()})
    write_json_atomic(
        _with(path, ".json"), {"format": FORMAT, "groups": state["param_groups"], "numbers": numbers, **details}
    )


def read_optimizer(stem: Path) -> dict[str, Any]:
    """Read the JSON that `save_optimizer` wrote.

    Raises:
        InputError: When it is absent or cannot be read.
    """
    details: dict[str, Any] = read_json(_with(_with(stem, OPTIMIZER), ".json"))
    return details


def load_optimizer(stem: Path, optimizer: torch.optim.Optimizer, head: nn.Module | None = None) -> None:
    """Restore what `save_optimizer` wrote, `head` with it.

    Raises:
        InputError: When it is absent or cannot be read.
        ContractError: When groups differ.
    """
    if head is not None:
        fill(head, read_tensors(_with(stem, HEAD)), _with(stem, HEAD))
    path = _with(stem, OPTIMIZER)
    details = read_optimizer(stem)
    entries: dict[int, dict[str, Any]] = {}
    for name, value in [*read_tensors(_with(path, ".safetensors")).items(), *details["numbers"].items()]:
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    for group, present in zip(details["groups"], optimizer.param_groups, strict=False):
        # Which kernel updates belongs to the device in use, not to the one that the state was saved on.
        group |= {key: present[key] for key in ("fused", "foreach") if key in present}
    try:
        optimizer.load_state_dict({"state": entries, "param_groups": details["groups"]})
    except (ValueError, KeyError) as error:
        raise ContractError(f"{path}.json: the optimiser's state does not fit this model ({error})") from error


def weights_hash(model: nn.Module) -> str:
    """Compute XXH3 (128 bit, hex) over names and bytes of a model's tensors."""
    digest = xxhash.xxh3_128()
    # Sorted, so that the order in which modules were registered is no part of the hash.
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all.

    Raises:
        OutputError: When it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: When missing.
        ContractError: When damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the checkpoint is incomplete")
    try:
        return safetensors.torch.load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ContractError(f"{path}: damaged safetensors file ({error})") from error


def _with(stem: Path, ending: str) -> Path:
    """Append an ending (not replace a suffix: stems may hold dots)."""
    return stem.parent / f"{stem.name}{ending}"

"""Files of weights as people have them: named as what they are, read without running code, and searched for tensors.

Read are safetensors and torch.save files: bare state dicts and training checkpoints with the weights under any of the
usual keys. What a file holds beside tensors is not looked at.
"""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from seqdata.errors import ContractError, InputError

# Names under which training programs keep weights, best first: a moving average is what its author evaluated.
PARTS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params", "weights"),
)
DEPTH = 3  # a checkpoint nests its weights under at most two keys in all programs that were looked at

# First bytes of files that people give by mistake.
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull, or download it again"),
    (b"<", "an HTML or XML page, probably of a download that failed; open its address in a browser"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras); convert it to a PyTorch state dict"),
    (b"\x93NUMPY", "a NumPy array, not a PyTorch state dict"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GGUF", "a GGUF file; convert it to a PyTorch state dict"),
)


class _Unread:
    """Takes the place of an object beside the tensors: it is made of anything, and holds nothing of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


# Classes of plain values that checkpoints hold beside their tensors. None of them is used: an inert class (a plain
# dictionary for those that are filled like one) is built instead, so that reading a file runs no code of theirs.
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_NUMPY = ("scalar", "_reconstruct")
_PLAIN: dict[str, type] = {
    "argparse.Namespace": _Unread,
    **{f"{home}.{name}": _Unread for home in ("pathlib", "pathlib._local") for name in _PATHS},
    **{f"{home}.multiarray.{name}": _Unread for home in ("numpy.core", "numpy._core") for name in _NUMPY},
    **{f"numpy.{name}": _Unread for name in ("dtype", "ndarray")},
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
}


def read_parts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read every state dict of a file.

    Args:
        path: A safetensors file or a torch.save file, whatever its suffix.

    Returns:
        Tensors by key, by the part of the file that holds them ("" for the file itself, "state_dict", …), best first.

    Raises:
        InputError: When the file is missing, is something else, is damaged, or holds objects of other classes.
        ContractError: When it holds no state dict.
    """
    content = _read(path)
    parts = dict(_parts(content, ""))
    if not parts:
        raise ContractError(f"{path}: holds no state dict of tensors")
    ranks = {name: PARTS.index(name.split(".")[-1]) for name in parts if name.split(".")[-1] in PARTS}
    return dict(sorted(parts.items(), key=lambda part: ranks.get(part[0], len(PARTS))))


def check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that give descriptors which are no numbers.

    Raises:
        ContractError: Naming the first tensor that holds NaN or infinity, or a running variance below zero.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if not bool(tensor.isfinite().all()):
            fault = f"{int((~tensor.isfinite()).sum()):,} of {tensor.numel():,} values are NaN or infinite"
        elif name.endswith("running_var") and bool((tensor < 0).any()):
            fault = "a variance is negative"
        else:
            continue
        raise ContractError(f"{path}: weights of '{name}' cannot be used: {fault}; take another checkpoint")


def _read(path: Path) -> Any:
    """The content of a file: tensors, and inert objects in place of all else."""
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give --weights FILE or --random-init")
    with path.open("rb") as file:
        head = file.read(512)
    kind = _other_kind(path, head)
    if kind is not None:
        raise InputError(f"{path}: not readable as weights: it is {kind}")
    try:
        # A safetensors file starts with the length of its JSON header in eight bytes, whatever its suffix says.
        if head[8:9] == b"{":
            return safetensors.torch.load_file(path)
        plain = torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _PLAIN.items()])
        with plain, warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # PyTorch warns of old formats and of odd pickles in several lines
            # An open file, because torch.load takes a path that ends in .safetensors for one.
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and safetensors errors share no base class
        raise InputError(f"{path}: not readable as weights: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    """Why a file cannot be read, in a line of our own: PyTorch's text advises to switch its safety off."""
    text = str(error)
    name = re.search(r"GLOBAL (\S+)|`?([\w.]+)`? was not an allowed global|whose module (\S+) is blocked", text)
    if name is not None:
        class_name = next(group for group in name.groups() if group).rstrip(".")
        return (
            f"it holds objects of {class_name} beside its tensors, and no code of a file is run; "
            "where it comes from, save the weights alone: torch.save(model.state_dict(), FILE)"
        )
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    return f"it is damaged, cut short or of another kind ({path.stat().st_size:,} bytes); download it again"


def _other_kind(path: Path, head: bytes) -> str | None:
    """What a file is that is no weights file, in words; None where it may be one."""
    if not head:
        return "an empty file; download it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    if head.startswith(b"PK"):
        return _other_archive(path)
    if start[:1] in (b"{", b"["):
        return "a JSON file; a sharded checkpoint's index names its parts, which have to be joined into one file"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    # Pickles start with byte 0x80, safetensors with a length whose upper bytes are zero: neither is text.
    if not any(byte < 9 or byte > 126 for byte in head):
        return "a text file"
    return None


def _other_archive(path: Path) -> str | None:
    """What a zip archive is that torch.save did not write, in words."""
    try:
        names = zipfile.ZipFile(path).namelist()
    except zipfile.BadZipFile:
        return "a damaged archive, cut short perhaps; download it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; save the state dict of the model that it was made of"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive, not a PyTorch state dict"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive; unpack it first, or name the weights file in it"
    return None


def _parts(content: Any, name: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of a file that holds tensors, with the dotted keys that lead to it."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    if name.count(".") + 1 < DEPTH:
        for key, value in content.items():
            yield from _parts(value, f"{name}.{key}" if name else str(key))

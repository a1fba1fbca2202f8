"""Exported programs (torch.export, .pt2): opened without the code that made them, and looked through first.

torch's own loader unpickles what an archive asks it to, and calls functions by name. Here an archive with a pickle,
with a symbolic expression or with a call outside PyTorch's tensor operators is refused before torch sees it. Hashes
find damage, this finds foreign things; still, open packs of people you trust.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdata.errors import ContractError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor

Program = Callable[["Tensor"], "Tensor"]

# Members that torch.export writes here; the sample inputs must be empty (see `_members`).
_MEMBERS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
)
# Operators on tensors alone; `from_file`, `save` and `load` would touch files.
_TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|load)[a-z_]\w*\.\w+|torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)"
    r"|_operator\.getitem"
)
_GRAPH = "models/model.json"


def load_program(path: Path) -> Program:
    """Open the program of a .pt2 file on the CPU, after looking through it.

    Args:
        path: The file.

    Returns:
        A callable from tensor to tensor.

    Raises:
        InputError: If there is no such file.
        ContractError: If it is damaged, of another kind, or asks for more than tensor operators.
        MissingDependencyError: If PyTorch is not installed.
    """
    # Before torch is imported: a refused file never meets its loader.
    check_program(path)
    try:
        import torch  # heavy: the rest of the index floor works without it
    except ImportError as error:
        raise MissingDependencyError("a pack needs PyTorch to run: pip install torch") from error
    try:
        program: Program = torch.export.load(str(path)).module()
    except Exception as error:  # the loader raises whatever a strange archive leads it to
        reason = str(error).strip().splitlines()[:1]
        raise ContractError(
            f"{path}: PyTorch {torch.__version__} cannot open it ({type(error).__name__} {' '.join(reason)}); pack "
            "again with this version"
        ) from error
    return program


def check_program(path: Path) -> None:
    """Look through a .pt2 file without running or unpickling anything.

    Raises:
        InputError: If there is no such file.
        ContractError: If it holds anything but the graph and the tensors of an exported program.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the pack is incomplete")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            documents = {name: json.loads(archive.read(info)) for name, info in members.items() if name[-5:] == ".json"}
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError, NotImplementedError) as error:
        raise ContractError(f"{path}: not an exported program, or damaged ({error})") from error
    if _GRAPH not in documents:
        raise ContractError(f"{path}: not an exported program of PyTorch (no {_GRAPH})")
    for key, value in (pair for document in documents.values() for pair in _fields(document)):
        _check_field(path, key, value)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members by name below the archive's one folder. Raises: ContractError for one that no exported program has."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.partition("/")[2]
        if _MEMBERS.fullmatch(name) is None or name in members or info.compress_type != zipfile.ZIP_STORED:
            raise ContractError(f"{path}: holds '{info.filename}', which no exported program of this toolkit has")
        if name.endswith(".pt") and info.file_size:
            raise ContractError(f"{path}: holds a pickle ('{info.filename}'), which is never opened here")
        members[name] = info
    return members


def _check_field(path: Path, key: str, value: Any) -> None:
    """Raise ContractError for a field by which PyTorch's loader would unpickle, evaluate or call something."""
    if key == "use_pickle" and value:
        raise ContractError(f"{path}: asks for a pickle, which is never opened here")
    if key in ("expr_str", "guards_code") and value:
        raise ContractError(f"{path}: has symbolic sizes or guards in code, which packs do not use")
    if key == "target" and not (isinstance(value, str) and _TARGETS.fullmatch(value)):
        raise ContractError(f"{path}: calls {value!r}, which is no tensor operator")


def _fields(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a JSON document with its value, at any depth."""
    # A stack instead of recursion: a hostile archive may nest deeper than Python recurses.
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield from node.items()
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)

"""ONNX files from strangers: their bytes are looked through before ONNX Runtime sees them.

An ONNX file may name other files on the disk (external data) and operators that a library brings. What a pack needs is
tensors and operators of the standard alone, so every message of the file is walked and anything else is refused.

Source: the messages of `onnx.proto`, Open Neural Network Exchange, https://onnx.ai/onnx/api/classes.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seqdata.errors import ContractError

# Wire types of protocol buffers: a number, eight bytes, bytes with their length, four bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_DEEPEST = 32
"""Graphs in attributes of nodes of graphs: exported models reach four."""

# Field number → message that it holds; None: a value that may stand there. Absent numbers are refused: external
# data (13, 14 of a tensor), functions (25), training (20) and whatever newer versions bring.
_MESSAGES: dict[str, dict[int, str | None]] = {
    "model": {**dict.fromkeys((1, 2, 3, 5, 6, 14)), 7: "graph", 8: "opset"},
    "opset": {1: None, 2: None},
    "graph": {**dict.fromkeys((2, 10, 11, 12, 13, 16)), 1: "node", 5: "tensor", 15: "sparse"},
    "node": {**dict.fromkeys((1, 2, 3, 4, 6, 7, 9)), 5: "attribute"},
    "attribute": {
        **dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20)),
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    },
    "sparse": {1: "tensor", 2: "tensor", 3: None},
    "tensor": dict.fromkeys((1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 16)),
}
_REASONS = {
    ("tensor", 13): "keeps weights in another file (external data)",
    ("tensor", 14): "keeps weights in another file (external data)",
    ("model", 20): "holds a training graph",
    ("model", 25): "holds functions of its own",
}
_DOMAINS = (b"", b"ai.onnx")
_DOMAIN_FIELDS = {"node": 7, "opset": 1}


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, and its bytes or its number."""

    number: int
    value: memoryview | int


def check_onnx(data: bytes, path: Path) -> int:
    """Look through the bytes of an ONNX file.

    Args:
        data: The whole file.
        path: Its name, for messages.

    Returns:
        The version of the operator set that it uses.

    Raises:
        ContractError: If it is no ONNX file, names other files, or uses operators outside the standard's own domain.

    Example:
        >>> check_onnx(b"hello", Path("frames.onnx"))
        Traceback (most recent call last):
        ...
        seqdata.errors.ContractError: frames.onnx: has a field 13 in a model, which no pack of this toolkit does
    """
    opset = 0
    graphs = 0
    # A stack instead of recursion: a hostile file may nest deeper than Python recurses.
    stack: list[tuple[str, memoryview, int]] = [("model", memoryview(data), 0)]
    while stack:
        message, content, depth = stack.pop()
        if depth > _DEEPEST:
            raise ContractError(f"{path}: graphs are nested more than {_DEEPEST} deep, which no model needs")
        for field in _fields(content, path):
            _check_field(message, field, path)
            inner = _MESSAGES[message][field.number]
            if inner is not None:
                if isinstance(field.value, int):
                    raise _damaged(path)
                stack.append((inner, field.value, depth + (inner == "graph")))
                graphs += inner == "graph"
            elif message == "opset" and isinstance(field.value, int):
                opset = max(opset, field.value)
    if not graphs or not opset:
        raise _damaged(path)
    return opset


def _check_field(message: str, field: _Field, path: Path) -> None:
    """Raise ContractError for a field that no pack has, or a domain that is not the standard's own."""
    if field.number not in _MESSAGES[message]:
        reason = _REASONS.get((message, field.number), f"has a field {field.number} in a {message}")
        raise ContractError(f"{path}: {reason}, which no pack of this toolkit does")
    if _DOMAIN_FIELDS.get(message) == field.number:
        domain = b"" if isinstance(field.value, int) else bytes(field.value)
        if domain not in _DOMAINS:
            name = domain.decode("utf-8", "replace")
            raise ContractError(f"{path}: uses operators of {name!r}; only those of ONNX itself are run")


def _fields(content: memoryview, path: Path) -> Iterator[_Field]:
    """Yield the fields of one message. Raises: ContractError where the bytes are none."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position, path)
        wire = key & 7
        if wire == _VARINT:
            value, position = _varint(content, position, path)
            yield _Field(key >> 3, value)
            continue
        length = {_EIGHT: 8, _FOUR: 4}.get(wire, 0)
        if wire == _BYTES:
            length, position = _varint(content, position, path)
        # Wire types 3 and 4 (groups) have no length; ONNX has none.
        elif not length:
            raise _damaged(path)
        if position + length > len(content):
            raise _damaged(path)
        yield _Field(key >> 3, content[position : position + length])
        position += length


def _varint(content: memoryview, position: int, path: Path) -> tuple[int, int]:
    """A number of seven bits a byte, and the position behind it. Raises: ContractError at its cut end."""
    value = 0
    # Ten bytes hold 64 bits; a longer number is no protocol buffer.
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _damaged(path)


def _damaged(path: Path) -> ContractError:
    return ContractError(f"{path}: not an ONNX file, or damaged; pack again")

"""Protocols: what a number means, as small versioned files with a hash.

The shipped files stand in `schemas/protocols/`; a user's own `.toml` is named by its path. Two numbers are comparable
only when their protocols' hashes are equal.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seqdata.contracts.protocol import (
    Count,
    Cut,
    Protocol,
    Rule,
    Split,
    TrainRule,
    Unit,
)
from seqdata.contracts.records import Frozen, describe_first
from seqdata.contracts.toml_files import read_toml, schema_root
from seqdata.errors import ContractError

__all__ = [
    "Cut",
    "Frozen",
    "Protocol",
    "Rule",
    "Split",
    "TrainRule",
    "Unit",
    "agrees",
    "load",
    "names",
    "parse",
    "variant_of",
]
_VARIANT = re.compile(r"(?P<base>.+?)(-L(?P<length>\d+))?(-s(?P<stride>\d+))?(-(?P<spacing>\d+(\.\d+)?)m)?")


def agrees(count: int | None, expected: Count) -> bool:
    """Compare a count with the published one.

    Args:
        count: The count, None where it is unknown.
        expected: A number, or a rounded text such as "5.2k", which holds for whatever rounds to it.

    Example:
        >>> agrees(5249, "5.2k"), agrees(5251, "5.2k")
        (True, False)
    """
    if count is None or isinstance(expected, int):
        return count == expected
    digits = expected.removesuffix("k")
    # Half of the last digit that the text shows: 50 for 5.2k, 500 for 5k.
    half = 500 / 10 ** len(digits.partition(".")[2])
    return bool(abs(count - 1000 * float(digits)) <= half)


def variant_of(name: str, find: Callable[[str], Protocol | None]) -> Protocol | None:
    """Derive the variant that a name such as `msls-seqvlad-L10` means.

    Args:
        name: Name with marks of length (-L10), stride (-s2) or spacing (-2m).
        find: Looks up the protocol by the name before the marks.

    Returns:
        The variant; None where the name has no marks or no such protocol exists.
    """
    match = _VARIANT.fullmatch(name)
    base = find(match["base"]) if match else None
    if match is None or base is None or match["base"] == name:
        return None
    change: dict[str, Any] = {field: match[field] and float(match[field]) for field in ("length", "stride", "spacing")}
    return base.variant(
        **{field: int(value) if value and field != "spacing" else value for field, value in change.items()}
    )


def names() -> list[str]:
    """List the names of the shipped protocols, sorted.

    Example:
        >>> names()[:2]
        ['msls-seqvlad', 'msls-seqvlad-melbourne']
    """
    return sorted(path.stem for path in (schema_root() / "protocols").glob("*.toml"))


def load(protocol: str | Path | Protocol) -> Protocol:
    """Load a protocol.

    Args:
        protocol: Name of a shipped protocol, also of a variant (`msls-seqvlad-L10`), or path of a `.toml` file; a
            protocol is returned as it is.

    Raises:
        InputError: If the file is missing.
        ContractError: If a field is wrong or the name is unknown.

    Example:
        >>> load("own").radius
        25.0
        >>> load("msls-seqvlad-L10").length
        10
    """
    if isinstance(protocol, Protocol):
        return protocol
    loaded = parse(read_toml(protocol), protocol) if Path(protocol).suffix == ".toml" else _shipped(str(protocol))
    loaded = loaded or variant_of(str(protocol), _shipped)
    if loaded is None:
        raise ContractError(
            f"no protocol '{protocol}'; shipped are {', '.join(names())}, or name a .toml file of your own"
        )
    return loaded


def _shipped(name: str) -> Protocol | None:
    """The shipped protocol of exactly this name."""
    path = schema_root() / "protocols" / f"{name}.toml"
    return parse(read_toml(path), path) if name in names() else None


def parse(data: dict[str, Any], file: str | Path) -> Protocol:
    """Check the fields of a protocol.

    Args:
        data: Content of a protocol file.
        file: Its path, for errors.

    Raises:
        ContractError: At the first wrong field.
    """
    try:
        return Protocol.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"{file}: {describe_first(error)}") from error

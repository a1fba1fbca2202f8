"""Protocols: what a number means, as small versioned files with a hash.

The shipped files stand in `schemas/protocols/`; a user's own `.toml` is named by its path. Two numbers are comparable
only when their protocols' hashes are equal.
"""

import itertools
import re
from collections.abc import Callable
from functools import partial
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
from seqdata.errors import ContractError, UsageError

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
    "shipped_versions",
    "variant_of",
]
_EARLIER = re.compile(r"\.v(?P<version>\d+)$")
"""Ends the names of files that hold earlier versions, such as `msls-sta.v1.toml`."""
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
    # A mark that the name lacks gives None, by which `variant` leaves the protocol's own value.
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
    stems = (path.stem for path in (schema_root() / "protocols").glob("*.toml"))
    return sorted(stem for stem in stems if not _EARLIER.search(stem))


def load(protocol: str | Path | Protocol) -> Protocol:
    """Load a protocol.

    Args:
        protocol: Name of a shipped protocol, also of a variant (`msls-seqvlad-L10`), or path of a `.toml` file; a
            protocol is returned as it is. `NAME@HASH`, as it stands beside numbers, names an earlier version too.

    Raises:
        InputError: If the file is missing.
        ContractError: If a field is wrong or the name is unknown.

    Example:
        >>> load("own").radius
        25.0
        >>> load("msls-seqvlad-L10").length
        10
        >>> load("msls-seqvlad@278498bb7dcc").version
        1
    """
    if isinstance(protocol, Protocol):
        return protocol
    # The suffix decides, not whether a file exists: no file or folder in the current one can hide a shipped protocol.
    if Path(protocol).suffix == ".toml":
        return parse(read_toml(protocol), protocol)
    name, _, digest = str(protocol).partition("@")
    versions = shipped_versions(name)
    for loaded in versions:
        if digest in ("", loaded.hash):
            return loaded
    choice = ", ".join([loaded.label for loaded in versions] or names())
    raise UsageError(f"no protocol '{protocol}'; shipped are {choice}, or name a .toml file of your own")


def shipped_versions(name: str) -> list[Protocol]:
    """Load every shipped version of a protocol, or of a variant, the present one first; none for an unknown name.

    Example:
        >>> [protocol.version for protocol in shipped_versions("msls-sta")]
        [2, 1]
    """
    versions: list[Protocol] = []
    for age in itertools.count():
        find = partial(_shipped, age=age)
        loaded = find(name) or variant_of(name, find)
        if loaded is None:
            return versions
        versions.append(loaded)
    return versions


def _shipped(name: str, age: int) -> Protocol | None:
    """The shipped protocol of exactly this name: the present one at age 0, then earlier versions, newest first."""
    if name not in names():
        return None
    folder = schema_root() / "protocols"
    earlier = {int(path.stem.rpartition(".v")[2]): path for path in folder.glob(f"{name}.v*.toml")}
    paths = [folder / f"{name}.toml", *(earlier[version] for version in sorted(earlier, reverse=True))]
    return parse(read_toml(paths[age]), paths[age]) if age < len(paths) else None


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

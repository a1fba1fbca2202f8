"""Names of files in manifests: the one check that a name from a stranger stays inside its folder and is no link."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator

from seqdata.errors import ContractError

LONGEST = 255
"""Characters of one part of a name: the limit of Linux's, macOS's and Windows's file systems."""


def check_name(name: str) -> str:
    r"""Check that a name leads to a file inside the folder that it is relative to.

    Args:
        name: Parts joined by `/`.

    Returns:
        The name itself.

    Raises:
        ValueError: If it is empty, absolute or climbs, or has a part that some file system refuses or reads otherwise.

    Example:
        >>> check_name("shards/part-000000.tar")
        'shards/part-000000.tar'
        >>> check_name("../seqdata.toml")
        Traceback (most recent call last):
        ...
        ValueError: '../seqdata.toml' names a file outside the folder, or none
    """
    parts = name.split("/")
    # A backslash and a drive are harmless on Linux and lead elsewhere on Windows. Control characters would reach a
    # terminal; a lone surrogate, as Python reads a byte that is no UTF-8, cannot stand in JSON.
    is_plain = "\\" not in name and not PureWindowsPath(name).drive
    is_text = not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    if not (is_plain and is_text) or any(part in ("", ".", "..") or len(part) > LONGEST for part in parts):
        raise ValueError(f"{name!r} names a file outside the folder, or none")
    return name


def check_flat_name(name: str) -> str:
    """Check that a name is that of a file or folder directly in its folder.

    Errors are those of `check_name`.
    """
    if "/" in name:
        raise ValueError(f"{name!r} names a file outside the folder, or none")
    return check_name(name)


FileName = Annotated[str, AfterValidator(check_name)]
"""A field of a manifest that names a file below its folder."""
FlatName = Annotated[str, AfterValidator(check_flat_name)]
"""A field of a manifest that names a file directly in its folder, or a part of such a name."""


def refuse_links(folder: Path, names: Iterable[str], manifest: Path) -> None:
    """Refuse listed files that are links, or lie behind one: what they show is not in the folder.

    Args:
        folder: What the names are relative to; it may be a link itself.
        names: The listed files; absent ones are passed over.
        manifest: What lists them, for the message.

    Raises:
        ContractError: Which file.
    """
    listed = set(names)
    inner = {str(parent) for name in listed for parent in PurePosixPath(name).parents} - {"."}
    linked = {name for name in inner if (folder / name).is_symlink()}
    # One listing a folder instead of one call a file: a dataset may have thousands of shards.
    for place in {str(PurePosixPath(name).parent) for name in listed}:
        if (folder / place).is_dir():
            with os.scandir(folder / place) as entries:
                linked |= {str(PurePosixPath(place) / entry.name) for entry in entries if entry.is_symlink()}
    for name in sorted(linked & (listed | inner)):
        raise ContractError(f"{folder / name}: is a link, and {manifest} lists files of its own folder; copy it here")

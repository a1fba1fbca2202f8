"""The kinds of raw dump, by name: their modules, default protocols, and opening one."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from seqdata.errors import ContractError, InputError
from seqdata.sources.base import Source

_MODULES = {
    "folder": "seqdata.sources.folder.reader",
    "msls": "seqdata.sources.msls.reader",
    "nordland": "seqdata.sources.nordland.reader",
    "robotcar": "seqdata.sources.robotcar.reader",
}


def source_names() -> list[str]:
    """Kinds of raw dumps that can be built."""
    return sorted(_MODULES)


def default_protocol(kind: str) -> str:
    """Name of the protocol whose tables a build of `kind` writes when the user names none. Raises: ContractError."""
    name: str = _module(kind).DEFAULT_PROTOCOL
    return name


def _module(kind: str) -> ModuleType:
    if kind not in _MODULES:
        raise ContractError(f"no source '{kind}'; there are {', '.join(source_names())}")
    return import_module(_MODULES[kind])


def open_source(kind: str, raw: str | Path, options: Mapping[str, str]) -> Source:
    """The source of `kind` at `raw`; `options` are the source's own settings as text.

    Raises: ContractError for an unknown kind or option, InputError when the folder is missing or is another dump.
    """
    module = _module(kind)
    if not Path(raw).is_dir():
        what = "a file; name the folder that it lies in" if Path(raw).exists() else "no such folder"
        raise InputError(f"{raw}: {what}, as --raw FOLDER")
    source: Source = module.open(Path(raw), dict(options))
    return source

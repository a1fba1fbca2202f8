"""Versioned place indexes, exact search, recall with intervals, frame matching and report pages.

Nothing here imports torch, and faiss is imported at the first build, open or search only. Other teams may
use this package without `train` or `cli`.

Example::

    index = indexer.open("INDEX/city")
    distances, rows = index.search(descriptors, k=5)
    index.sequences[rows[0]]
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.adding import append
    from indexer.bundle import build, find_version, version_id
    from indexer.kinds import KindSpec
    from indexer.localizer import Localizer, Place
    from indexer.reading import PlaceIndex
    from indexer.reading import open_index as open

__all__ = ["KindSpec", "Localizer", "Place", "PlaceIndex", "append", "build", "find_version", "open", "version_id"]

_HOMES = {
    "KindSpec": ("indexer.kinds", "KindSpec"),
    "Localizer": ("indexer.localizer", "Localizer"),
    "Place": ("indexer.localizer", "Place"),
    "PlaceIndex": ("indexer.reading", "PlaceIndex"),
    "append": ("indexer.adding", "append"),
    "build": ("indexer.bundle", "build"),
    "find_version": ("indexer.bundle", "find_version"),
    "open": ("indexer.reading", "open_index"),
    "version_id": ("indexer.bundle", "version_id"),
}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use (PEP 562), so that the import itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'indexer' has no attribute '{name}'")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Versioned place indexes, exact search, recall with intervals, frame matching and report pages.

Nothing here imports torch, and faiss is imported at the first build, open or search only. Other teams may
use this package without `train` or `cli`.

Example::

    index = indexer.open("INDEX/city")
    distances, rows = index.search(descriptors, k=5)
    index.sequences[rows[0]]
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from indexer.builder.append import append as append
    from indexer.builder.build import build as build
    from indexer.builder.build import find_version as find_version
    from indexer.localizer.localizer import Localizer as Localizer
    from indexer.localizer.localizer import Place as Place
    from indexer.place_index import PlaceIndex as PlaceIndex
    from indexer.place_index import open as open
    from indexer.search.kinds import KindSpec as KindSpec
    from indexer.versions.manifest import version_id as version_id

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "builder.append": ["append"],
        "builder.build": ["build", "find_version"],
        "localizer.localizer": ["Localizer", "Place"],
        "place_index": ["PlaceIndex", "open"],
        "search.kinds": ["KindSpec"],
        "versions.manifest": ["version_id"],
    },
)

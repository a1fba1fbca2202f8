"""From a raw dump to a dataset: plan, shards, finished tables."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from seqdata.build.builder import build as build
    from seqdata.build.builder import build_range as build_range
    from seqdata.build.builder import merge as merge
    from seqdata.build.request import BuildRequest as BuildRequest

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"builder": ["build", "build_range", "merge"], "request": ["BuildRequest"]}
)

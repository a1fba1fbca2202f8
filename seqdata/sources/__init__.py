"""Raw dumps: each module reads one kind and yields the one frame record; nothing else knows a dump's layout."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from seqdata.sources.base import Listing as Listing
    from seqdata.sources.base import Source as Source
    from seqdata.sources.registry import open_source as open_source
    from seqdata.sources.registry import source_names as source_names

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"base": ["Listing", "Source"], "registry": ["open_source", "source_names"]}
)

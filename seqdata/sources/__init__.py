"""Raw dumps: each module reads one kind and yields the one frame record; nothing else knows a dump's layout."""

from seqdata.sources.base import Listing, Source, open_source, source_names

__all__ = ["Listing", "Source", "open_source", "source_names"]

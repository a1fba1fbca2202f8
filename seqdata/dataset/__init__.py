"""A built dataset: open, describe, verify, repair, append and withdraw, audit leakage, export."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from seqdata.dataset.dataset import Dataset as Dataset
    from seqdata.dataset.dataset import open as open

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"dataset": ["Dataset", "open"]})

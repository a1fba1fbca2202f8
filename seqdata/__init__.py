"""Raw street-level drives to sharded frames, windows and ground truth for sequence-based visual place recognition.

    import seqdata
    ds = seqdata.open("dataset")
    queries = ds.sequences(protocol="msls-seqvlad", split="test", role="query")

    stage = seqdata.windows(5)  # for plain webdataset: see seqdata.streaming.webdataset

Names load on first use, so that `import seqdata` costs nothing and never pulls in torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

from seqdata.contracts.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from seqdata import protocols as protocols
    from seqdata.dataset.dataset import Dataset as Dataset
    from seqdata.dataset.dataset import open as open
    from seqdata.streaming.webdataset import windows as windows

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["protocols"],
    submod_attrs={"dataset.dataset": ["Dataset", "open"], "streaming.webdataset": ["windows"]},
)

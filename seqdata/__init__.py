"""Raw street-level drives to sharded frames, windows and ground truth for sequence-based visual place recognition.

    import seqdata
    ds = seqdata.open("dataset")
    queries = ds.sequences(protocol="msls-seqvlad", split="test", role="query")

    stage = seqdata.windows(5)  # for plain webdataset: see seqdata.pipeline

Names load on first use, so that `import seqdata` costs nothing and never pulls in torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqdata import protocols, windows
    from seqdata.dataset import Dataset, open

__all__ = ["Dataset", "open", "protocols", "windows"]
_MODULES = ("protocols", "windows")  # both can be called: seqdata.protocols(), seqdata.windows(length)


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"seqdata.{name}")
    if name in ("open", "Dataset"):
        return getattr(import_module("seqdata.dataset"), name)
    raise AttributeError(f"module 'seqdata' has no attribute '{name}'")

"""A new folder that appears whole: every dump is written beside its place and renamed at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqdata.errors import OutputError
from seqdata.storage.files import atomic_folder


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` at the end; after an error nothing of it is left.

    Raises:
        OutputError: If `out` exists and is not empty, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: not empty; name a new folder for the synthetic dump, or remove it")
    with atomic_folder(out) as folder:
        yield folder

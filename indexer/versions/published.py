"""The user's record of index files that were published or tried on this machine: an empty file for each hash.

FAISS was not written for files from strangers: a mutated one can end the process. A file that is not in the record is
opened in a process of its own first (see `indexer.search.foreign`).
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from indexer.versions.manifest import FileRecord


def record_folder() -> Path:
    """Folder of the record: below `$XDG_STATE_HOME`, else `~/.local/state`.

    Source: the XDG base directory specification, by which a relative `XDG_STATE_HOME` does not count.
    """
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "seqdata" / "indexes"


def is_recorded(file: FileRecord) -> bool:
    """Whether a file of this hash was published, or survived its trial, on this machine."""
    return _is_hash(file.xxh3) and (record_folder() / file.xxh3).is_file()


def remember(file: FileRecord) -> None:
    """Add a file to the record; where the home cannot be written, it is tried again at each opening."""
    if _is_hash(file.xxh3):
        with suppress(OSError):
            record_folder().mkdir(parents=True, exist_ok=True)
            (record_folder() / file.xxh3).touch()


def _is_hash(text: str) -> bool:
    # It becomes a file name, and comes from a manifest that may be a stranger's.
    return re.fullmatch("[0-9a-f]{32}", text) is not None

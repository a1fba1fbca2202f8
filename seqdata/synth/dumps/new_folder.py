"""A new folder that appears whole: every dump is written beside its place and renamed at the end."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqdata.errors import OutputError
from seqdata.storage.files import explain_write_failure


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` at the end; after an error nothing of it is left.

    Raises:
        OutputError: If `out` exists and is not empty, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: not empty; name a new folder for the synthetic dump, or remove it")
    # On the same disk, so that the last step is a rename and a killed run leaves no half dump under the final name.
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(out)
    except OSError as error:
        explain_write_failure(out, error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

"""The file that a program's authors released, downloaded: weights alone, of which no code is run."""

import shutil
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import torch

from seqdata.errors import MissingDependencyError
from seqdata.storage.files import flush, rename_flushed, scratch_folder
from train.released.reading import Program

TIMEOUT = 10.0  # seconds without a byte until a server counts as out of reach


def download(kind: str, program: Program) -> Path:
    """Download a program's released file into torch.hub's folder, or find it there.

    Args:
        kind: Name of the program, for messages.
        program: Says where its file lies.

    Returns:
        Path of the file.

    Raises:
        MissingDependencyError: Where there is no address, or it is out of reach.
    """
    if not program.address:
        raise MissingDependencyError(
            f"import {kind}: its file has no address of its own; "
            + (f"get it as {program.page} says, and name it" if program.page else "name it")
            + f": seqdata import {kind} FILE --out RUN"
        )
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlsplit(program.address).path).name)
    if file.is_file():
        return file
    try:
        with urllib.request.urlopen(program.address, timeout=TIMEOUT) as answer:  # noqa: S310  (addresses of PROGRAMS)
            _store(answer, file)
    except (OSError, HTTPException) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingDependencyError(
            f"{program.address}: cannot be downloaded ({reason[0][:160]}); download it elsewhere, and name it: "
            f"seqdata import {kind} FILE --out RUN"
        ) from error
    return file


def _store(answer: HTTPResponse, file: Path) -> None:
    """Write an answer to a file that has its name only when it is whole. Raises: OSError."""
    with scratch_folder(file) as folder:
        temporary = folder / file.name
        with temporary.open("wb") as out:
            shutil.copyfileobj(answer, out)
        # Python takes a connection that ends early for the end of the answer.
        announced, size = answer.headers["Content-Length"], temporary.stat().st_size
        if announced is not None and size != int(announced):
            raise ConnectionError(f"the connection ended after {size:,} of {int(announced):,} bytes")
        flush(temporary)
        rename_flushed(temporary, file)

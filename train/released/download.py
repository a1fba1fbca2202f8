"""The file that a program's authors released, downloaded: weights alone, of which no code is run."""

import socket
import urllib.parse
import urllib.request
from pathlib import Path

import torch

from seqdata.errors import MissingDependencyError
from train.released.reading import Program

TIMEOUT = 5.0  # seconds until a server counts as out of reach


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
        # A direct connection says nothing behind a proxy; without one, the download itself would wait for minutes.
        if not urllib.request.getproxies():
            socket.create_connection((str(urllib.parse.urlsplit(program.address).hostname), 443), TIMEOUT).close()
        file.parent.mkdir(parents=True, exist_ok=True)
        # Writes beside it first, so that a download that breaks off leaves no file of that name.
        torch.hub.download_url_to_file(program.address, str(file), progress=False)
    except OSError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingDependencyError(
            f"{program.address}: cannot be downloaded ({reason[0][:160]}); download it elsewhere, and name it: "
            f"seqdata import {kind} FILE --out RUN"
        ) from error
    return file

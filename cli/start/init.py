"""`seqdata init`: the settings file of a new work folder."""

from pathlib import Path
from typing import Annotated

import typer

from cli.config import CONFIG_NAME, TEMPLATE
from cli.output import JsonFlag, emit
from seqdata.errors import OutputError
from seqdata.storage.files import write_bytes_atomic


def init(
    raw: Annotated[str, typer.Option(help="The raw dump's folder.")] = "raw",
    out: Annotated[str, typer.Option(help="Folder for outputs.")] = "seqdata-out",
    as_json: JsonFlag = False,
) -> None:
    """Write a commented seqdata.toml into the current folder."""
    path = Path(CONFIG_NAME)
    if path.exists():
        raise OutputError(f"{path}: already there; edit it, or remove it first")
    # Basic TOML strings know the backslash, as Windows paths do.
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in (("raw", raw), ("out", out))}
    write_bytes_atomic(path, TEMPLATE.format(**quoted).encode())
    emit({"path": str(path)}, f"wrote {path}", as_json=as_json)

"""`seqdata init` and `demo`: begin a work folder, or see the whole road once."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import note


def init(
    raw: Annotated[str, typer.Option(help="The raw dump's folder.")] = "raw",
    out: Annotated[str, typer.Option(help="Folder for outputs.")] = "seqdata-out",
) -> None:
    """Write a commented seqdata.toml into the current folder."""
    from cli.config import CONFIG_NAME, TEMPLATE
    from seqdata.errors import OutputError
    from seqdata.storage.files import write_bytes_atomic

    path = Path(CONFIG_NAME)
    if path.exists():
        raise OutputError(f"{path}: there is one already; edit it, or remove it first")
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in (("raw", raw), ("out", out))}
    write_bytes_atomic(path, TEMPLATE.format(**quoted).encode())
    note(f"wrote {path}; next: seqdata build msls")


def demo(out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("demo")) -> None:
    """Run every step on a synthetic city.

    The commands are those that a user would type; `make demo` runs it.
    """
    from cli.start.demo import run_demo

    run_demo(out)

"""`seqdata init`, `synth` and `demo`: begin a work folder, make test material, or see the whole road once."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import JsonFlag, emit, note, progress_bar


def init(
    raw: Annotated[str, typer.Option(help="The raw dump's folder.")] = "raw",
    out: Annotated[str, typer.Option(help="Folder for outputs.")] = "seqdata-out",
) -> None:
    """Write a commented seqdata.toml into the current folder."""
    from cli.config import CONFIG_NAME, TEMPLATE
    from seqdata.errors import OutputError
    from seqdata.storage import write_bytes_atomic

    path = Path(CONFIG_NAME)
    if path.exists():
        raise OutputError(f"{path}: there is one already; edit it, or remove it first")
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in (("raw", raw), ("out", out))}
    write_bytes_atomic(path, TEMPLATE.format(**quoted).encode())
    note(f"wrote {path}; next: seqdata build msls")


def synth(
    out: Annotated[Path, typer.Argument(help="New folder for the dump.")],
    seed: Annotated[int, typer.Option(help="Another seed is another city.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write a small synthetic city as a raw MSLS dump, with its protocol in protocol.toml."""
    from seqdata.synth import write_msls

    with progress_bar("frame") as bar:
        summary = write_msls(out, seed=seed, progress=lambda done, total: bar.to("render", done, total))
    result = {
        "root": str(summary.root),
        "protocol": str(summary.protocol),
        "frames": summary.frames,
        "trajectories": summary.trajectories,
    }
    emit(result, f"{summary.root}: {summary.frames} frames, protocol {summary.protocol}", as_json=as_json)


def demo(out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("demo")) -> None:
    """Run every step on a synthetic city, as a user would type it (what `make demo` runs)."""
    from cli.demo import run_demo

    run_demo(out)

"""What a command prints: results on stdout (text, or JSON with --json), everything else on stderr."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tqdm import tqdm

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="Settings file; default: ./seqdata.toml if there.", show_default=False)
]


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    typer.echo(text, err=True)


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result: `text` for people, or `result` as JSON, on stdout."""
    typer.echo(json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False, default=str) if as_json else text)


def size(count: float) -> str:
    """A number of bytes for people: 12.3 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def progress_bar(unit: str, label: str) -> "Iterator[tqdm[Any]]":
    """A progress bar on stderr, silent where stderr is no terminal."""
    import sys

    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar

"""What a command prints: results on stdout (text, or JSON with --json), everything else on stderr."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

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


class Bar:
    """A progress bar on stderr, silent where stderr is no terminal; `to` moves it and names the stage."""

    def __init__(self, unit: str) -> None:
        from tqdm import tqdm

        hidden = not sys.stderr.isatty()
        self._bar = tqdm(unit=unit, file=sys.stderr, disable=hidden, leave=False, miniters=1, dynamic_ncols=True)
        self._stage = ""

    def to(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Show `done` of `total` of `stage`, and `text`; the rate is that since the stage was entered."""
        bar = self._bar
        if bar.disable:
            return
        bar.total = total
        bar.set_postfix_str(text, refresh=False)
        if stage == self._stage and done >= bar.n:
            bar.update(done - bar.n)
            return
        self._stage = stage
        bar.set_description(stage, refresh=False)
        bar.reset(total)
        bar.initial = bar.n = bar.last_print_n = done  # done before: no work of this stage's clock
        bar.refresh()

    def note(self, text: str) -> None:
        """A line on stderr above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


@contextmanager
def progress_bar(unit: str) -> Iterator[Bar]:
    """A `Bar` that is removed at the end."""
    bar = Bar(unit)
    try:
        yield bar
    finally:
        bar.close()

"""What a command prints: results on stdout (text, or JSON with --json), everything else on stderr."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from seqdata.parallel import Progress

# All but line ends and tabs: C0, DEL, C1, marks that turn the direction of writing, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="Settings file; default: ./seqdata.toml if there.", show_default=False)
]


def plain(text: str) -> str:
    r"""Replace what would move the cursor, colour or rename a terminal, and what has no bytes in UTF-8.

    Names of drives, frames and models come from dumps and files of others.

    >>> plain("night" + chr(27) + "[2J")
    'night\\x1b[2J'
    """
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def note(text: str) -> None:
    """Print a line for the person at the terminal, on stderr."""
    typer.echo(plain(text), err=True)


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result on stdout: `text` for people, or `result` as JSON."""
    if as_json:
        text = json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        # JSON has escapes of its own; json.dumps leaves the second block of control characters as they are.
        typer.echo(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
        return
    typer.echo(plain(text))


class PlainFormatter(logging.Formatter):
    """Formats the lines of the log as `note` prints."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record without control characters."""
        return plain(super().format(record))


def size(count: float) -> str:
    """A number of bytes for people: 12.3 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Bar:
    """A progress bar on stderr, silent where stderr is no terminal; `update` moves it and names the stage."""

    def __init__(self, unit: str) -> None:
        from tqdm import tqdm  # takes as long to import as all of `seqdata --help`, and half of the commands show none

        is_hidden = not sys.stderr.isatty()
        self._bar = tqdm(unit=unit, file=sys.stderr, disable=is_hidden, leave=False, miniters=1, dynamic_ncols=True)
        self._stage = ""

    def update(self, stage: str, count: int, total: int, text: str = "") -> None:
        """Move the bar; the rate counts from the beginning of its stage.

        Args:
            stage: Name of the stage.
            count: Items of it that are finished.
            total: Items in all.
            text: Text behind the bar.
        """
        bar = self._bar
        if bar.disable:
            return
        bar.total = total
        bar.set_postfix_str(text, refresh=False)
        if stage == self._stage and count >= bar.n:
            bar.update(count - bar.n)
            return
        self._stage = stage
        bar.set_description(plain(stage), refresh=False)
        bar.reset(total)
        # What was finished before the bar saw the stage (a resumed run) took none of the bar's time: left out of the
        # rate, or the time that is still needed would look far too short.
        bar.initial = bar.n = bar.last_print_n = count
        bar.refresh()

    def stage(self, name: str) -> Progress:
        """A callback (items finished, items in all) that moves the bar through one stage."""
        return lambda count, total: self.update(name, count, total)

    def note(self, text: str) -> None:
        """Print a line on stderr above the bar."""
        self._bar.write(plain(text), file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


@contextmanager
def progress_bar(unit: str) -> Iterator[Bar]:
    """Yield a `Bar` that is removed at the end."""
    bar = Bar(unit)
    try:
        yield bar
    finally:
        bar.close()

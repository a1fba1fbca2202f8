"""What a command prints: results on stdout (text, or JSON with --json), everything else on stderr."""

import json
import logging
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from indexer.text import TEXT_COLUMNS
from seqdata.parallel.jobs import Progress
from seqdata.parallel.steps import ENDED, listening
from seqdata.storage.files import explain_write_failure

# All but line ends and tabs: C0, DEL, C1, marks that turn the direction of writing, and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="Settings file.", show_default="./seqdata.toml if there")
]


def plain(text: str) -> str:
    r"""Replace what would move the cursor, colour or rename a terminal, and what has no bytes in UTF-8.

    Names of drives, frames and models come from dumps and files of others.

    >>> plain("night" + chr(27) + "[2J")
    'night\\x1b[2J'
    """
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


@dataclass
class Console:
    """How this process talks on stderr, as the options -q, -v, --debug and --log-file set it."""

    is_quiet: bool = False
    is_verbose: bool = False
    is_debug: bool = False
    log_file: Path | None = None
    next: str | None = ""
    """Command that takes what this one made; "" takes the registry's, None prints no end at all."""

    def note(self, text: str) -> None:
        """Print a line, unless quiet, and write it to the log file."""
        if not self.is_quiet:
            typer.echo(fitted(plain(text), columns(sys.stderr)), err=True)
        self.log(text)

    def error(self, text: str) -> None:
        """Print a line even when quiet."""
        typer.echo(plain(text), err=True)
        self.log(text)

    def start_log(self, path: Path) -> None:
        """Write notes to a file, too.

        Raises:
            OutputError: If it cannot be written.
        """
        try:
            path.open("a", encoding="utf-8").close()
        except OSError as error:
            explain_write_failure(path, error)
        self.log_file = path

    def log(self, text: str) -> None:
        """Append a line with the time (UTC) to the log file, if there is one; a full disk there ends no command."""
        if self.log_file is None:
            return
        moment = datetime.now(tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(f"{moment} {plain(text)}\n")
        except OSError as error:
            path, self.log_file = self.log_file, None
            typer.echo(plain(f"{path}: nothing more is written there ({error.strerror or error})"), err=True)


console = Console()
"""The process's own: options that every command has are set before it runs."""


def note(text: str) -> None:
    """Print a line for the person at the terminal, on stderr."""
    console.note(text)


def next_step(command: str | None) -> None:
    """Say what to type after this command; None where it made nothing, so that its end needs no line."""
    console.next = command


def columns(stream: IO[str]) -> int | None:
    """Width of the terminal that a stream is, or what COLUMNS says; None elsewhere: logs and pipes get whole lines."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal():
        return int(stated)
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fitted(text: str, width: int | None) -> str:
    """Break long lines between words; their rest is indented. Lines that are commands stay whole, to be copied.

    >>> print(fitted("two drives of one street", 14))
    two drives of
      one street
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        if len(line) <= width or bare.startswith("seqdata "):
            lines.append(line)
            continue
        indent = " " * (len(line) - len(bare))
        # A name or path is never broken: it would be copied wrongly.
        lines += textwrap.wrap(
            line, width, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines)


def entry(name: str, text: str, indent: int = 4) -> str:
    """A name with a text below it, both within 80 columns.

    >>> print(entry("own", "A user's own drives"))
    own
        A user's own drives
    """
    margin = " " * indent
    return "\n".join([name, *textwrap.wrap(text, TEXT_COLUMNS, initial_indent=margin, subsequent_indent=margin)])


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result on stdout: `text` for people, or `result` as JSON."""
    if as_json:
        text = json.dumps(result, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        # JSON has escapes of its own; json.dumps leaves the second block of control characters as they are.
        typer.echo(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
        return
    typer.echo(fitted(plain(text), columns(sys.stdout)))


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


LINE_SECONDS = 5.0
"""Between two lines of progress where stderr is no terminal: a log of a day then has some thousand of them."""
BEAT_SECONDS = 20.0
"""Between two lines of a step that reports nothing new."""
FIRST_LINE_SECONDS = 2.0
"""What takes less says nothing."""


def _duration(seconds: float) -> str:
    """Time left as people read it: 42 s, 3:20 min, 5:07 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


class Bar:
    """Progress on stderr: a bar on a terminal, elsewhere (a pipe, a log) a line every few seconds."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._stage = ""
        self._bar: Any = None
        self._began = self._printed = time.monotonic()
        self._first = 0
        self._last: tuple[str, int, int, str, str] | None = None
        self._is_started = False
        self._ended = threading.Event()

    def update(self, stage: str, count: int, total: int, text: str = "", unit: str = "") -> None:
        """Move the bar; the rate counts from the beginning of its stage.

        Args:
            stage: Name of the stage.
            count: Items of it that are finished.
            total: Items in all; 0 where that is not known.
            text: Text behind the bar.
            unit: What an item is, where that is not the bar's own unit.
        """
        if not self._is_started:
            self._start()
        self._last = (stage, count, total, text, unit or self._unit)
        bar = self._bar
        if bar is None:
            self._line(*self._last)
            return
        bar.total = total or None
        bar.unit = unit or self._unit
        bar.set_postfix_str(text, refresh=False)
        if stage == self._stage and count >= bar.n:
            bar.update(count - bar.n)
            return
        self._stage = stage
        bar.set_description_str(plain(stage), refresh=False)
        # `reset` draws: with the start of the stage before it would show a negative rate.
        bar.initial = 0
        bar.reset(total or None)
        # What was finished before the bar saw the stage (a resumed run) took none of the bar's time: left out of the
        # rate, or the time that is still needed would look far too short.
        bar.initial = bar.n = bar.last_print_n = count
        bar.refresh()

    def _start(self) -> None:
        """Make what shows progress, when there is some: half of the commands have none."""
        self._is_started = True
        if sys.stderr.isatty() and not console.is_quiet:
            # Takes as long to import as all of `seqdata --help`.
            from tqdm import tqdm  # heavy

            self._bar = tqdm(unit=self._unit, file=sys.stderr, leave=False, miniters=1, dynamic_ncols=True)
        # A step that reports nothing for long still has a clock that runs.
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Show the time once a second while nothing else is reported."""
        while not self._ended.wait(1.0):
            if self._bar is not None:
                self._bar.refresh()
                continue
            # Another thread may end the step meanwhile.
            last = self._last
            if last is not None and (self._printed <= self._began or time.monotonic() - self._printed >= BEAT_SECONDS):
                self._line(*last)

    def _line(self, stage: str, count: int, total: int, text: str, unit: str) -> None:
        """Print where a stage is, at most every `LINE_SECONDS`, the first time after two."""
        now = time.monotonic()
        if stage != self._stage or count < self._first:
            self._stage, self._began, self._first = stage, now, count
        is_first = self._printed <= self._began
        if now - max(self._printed, self._began) < (FIRST_LINE_SECONDS if is_first else LINE_SECONDS):
            return
        self._printed = now
        rate = (count - self._first) / max(now - self._began, 1e-9)
        end = f"; {text}" if text else ""
        if rate == 0:
            note(f"{stage}: {_duration(now - self._began)} so far{end}")
            return
        left = f", {_duration((total - count) / rate)} left" if total > count else ""
        share = f" of {total:,}" if total else ""
        percent = f" ({count / total:.0%})" if total else ""
        note(f"{stage}: {count:,}{share} {unit}s{percent}, {rate:.3g} a second{left}{end}")

    def hear(self, name: str, count: int, total: int, unit: str) -> None:
        """Show a step that some function announces (see `seqdata.parallel.steps`)."""
        if count == ENDED:
            self._last = None
            return
        self.update(name, count, total, unit=unit)

    def stage(self, name: str) -> Progress:
        """A callback (items finished, items in all) that moves the bar through one stage."""
        return lambda count, total: self.update(name, count, total)

    def note(self, text: str) -> None:
        """Print a line on stderr above the bar."""
        if self._bar is None:
            note(text)
            return
        self._bar.write(plain(text), file=sys.stderr)
        console.log(text)

    def close(self) -> None:
        """Remove the bar, and stop its clock."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress_bar(unit: str) -> Iterator[Bar]:
    """Yield a `Bar` that is removed at the end; meanwhile it shows the steps that any function announces."""
    bar = Bar(unit)
    try:
        with listening(bar.hear):
            yield bar
    finally:
        bar.close()

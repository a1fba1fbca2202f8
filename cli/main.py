"""The program `seqdata`: its application, and the one handler that turns an error into a line and an exit code.

The module of a command is imported when the command is invoked or its help is shown, so that `seqdata --help` costs
little more than an empty Typer application and the imports of a command stand at the top of its file.
"""

import json
import logging
import sys
import traceback
from typing import Annotated

import typer

import seqdata
from cli.output import PlainFormatter, console, note
from cli.program.groups import HELP_NAMES, IndexGroup, LazyGroup
from seqdata.errors import BROKEN_PIPE, InputError, OutputError, SeqdataError, UsageError

app = typer.Typer(
    name="seqdata",
    cls=LazyGroup,
    help="Raw street-level drives in, a versioned, measured place index out.",
    no_args_is_help=True,
    context_settings=HELP_NAMES,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(
    typer.Typer(cls=IndexGroup, rich_markup_mode=None, context_settings=HELP_NAMES),
    name="index",
    help="Build a place index, or list, compare and tag its versions.",
)


def _print_version(is_given: bool) -> None:
    """Print the version and end; before a command is looked for."""
    if is_given:
        typer.echo(f"seqdata {seqdata.__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Raw street-level drives in, a versioned, measured place index out."""


def _check_words(words: list[str]) -> None:
    """Refuse words whose bytes are no UTF-8: no manifest, table or JSON could hold such a name. Raises: UsageError."""
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UsageError(f"'{word}' is not UTF-8; rename the file or folder, or name a link to it")


def _print_error(label: str, kind: str, message: str, code: int) -> None:
    """Print an error on stderr: a line for people, or under --json the object of schemas/cli/error.schema.json."""
    # News such as inputs in quarantine is no error, and stays a line beside the result.
    if "--json" in sys.argv and label == "error":
        console.error(json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}, ensure_ascii=False))
    else:
        console.error(f"{label}: {message}")


def run() -> None:
    """Run the program; a known error becomes one line on stderr and its exit code."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())
    try:
        _check_words(sys.argv[1:])
        app()
    except SeqdataError as error:
        if console.is_debug:
            traceback.print_exc()
        _print_error(error.label, type(error).__name__, str(error), error.exit_code)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Without this Python would try to write what is left in the buffer when it ends, and complain again.
        sys.stderr.close()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if console.is_debug:
            traceback.print_exc()
        text = f"{error.filename or 'storage'}: {error.strerror or error}"
        _print_error("error", OutputError.__name__, text, OutputError.exit_code)
        sys.exit(OutputError.exit_code)
    except ValueError as error:
        # What Python says of a path with a NUL, which a table or a settings file may hold.
        if "embedded null" not in str(error):
            raise
        note("error: a path holds a NUL character; look at the names in the files that were given")
        sys.exit(InputError.exit_code)


if __name__ == "__main__":
    run()

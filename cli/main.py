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
from typer.exceptions import TyperException

import seqdata
from cli.output import PlainFormatter, console
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


def _print_error(kind: str, message: str, code: int, label: str = "error") -> None:
    """Print an error on stderr: a line for people, or under --json the object of schemas/cli/error.schema.json."""
    # News such as inputs in quarantine is no error, and stays a line beside the result.
    if "--json" in sys.argv and label == "error":
        console.error(json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}, ensure_ascii=False))
    else:
        console.error(f"{label}: {message}")


def _usage_text(error: TyperException) -> str:
    """What is wrong with the command line, as one line that ends in the help to read."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    advice = f"; see {context.command_path} --help" if context is not None else ""
    return message[:1].lower() + message[1:] + advice


def run() -> None:
    """Run the program and end it; a known error becomes one line on stderr and its exit code."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())
    sys.exit(_run())


def _run() -> int:
    """Run the program and print the error that ends it, if there is one; returns the exit code."""
    try:
        _check_words(sys.argv[1:])
        # Otherwise Typer would print its own errors, in several lines and never as JSON.
        return int(app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
    except SeqdataError as error:
        _print_trace()
        _print_error(type(error).__name__, str(error), error.exit_code, error.label)
        return error.exit_code
    except TyperException as error:
        _print_error(UsageError.__name__, _usage_text(error), error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        # Without this Python would try to write what is left in the buffer when it ends, and complain again.
        sys.stderr.close()
        return BROKEN_PIPE
    except OSError as error:
        _print_trace()
        _print_error(
            OutputError.__name__, f"{error.filename or 'storage'}: {error.strerror or error}", OutputError.exit_code
        )
        return OutputError.exit_code
    except Exception as error:
        # What Python says of a path with a NUL, which a table or a settings file may hold.
        if "embedded null" in str(error):
            text = "a path holds a NUL character; look at the names in the files that were given"
            _print_error(InputError.__name__, text, InputError.exit_code)
            return InputError.exit_code
        # A defect of ours: people send the traceback, programs read an object.
        if "--json" not in sys.argv:
            raise
        _print_trace()
        _print_error(type(error).__name__, f"defect of seqdata: {error}; --debug prints the traceback", 1)
        return 1


def _print_trace() -> None:
    if console.is_debug:
        traceback.print_exc()


if __name__ == "__main__":
    run()

"""What all commands have in common: options, the handling of Ctrl-C and SIGTERM, and the line at the end."""

import functools
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from cli.flags import command_line
from cli.output import console, note, progress_bar
from cli.program.registry import Command
from seqdata.errors import Interrupted, QuarantineNotice, Terminated, Termination


def set_console(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print what libraries log, too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", help="Write notes and progress there, too.", metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """Set what is printed on stderr, and where else, by the options that every command has besides its own."""
    console.is_quiet, console.is_verbose, console.is_debug, console.log_file = quiet, verbose, debug, None
    console.next = ""
    if log_file is not None:
        console.start_log(log_file)
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")


COMMON = frozenset({*inspect.signature(set_console).parameters, "as_json", "config", "help"})
"""Names of the parameters that commands share: those above, --json, --config and --help."""

_CONTEXT = "typer_context"


def with_common_options(command: Command) -> Callable[..., None]:
    """Return the command's function with the common options behind its own; what stops it ends in an error with a hint.

    Raises:
        Interrupted: In place of KeyboardInterrupt; `Terminated` for SIGTERM.
    """
    function = command.function
    common = inspect.signature(set_console).parameters

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> None:
        set_console(**{name: options.pop(name, value.default) for name, value in common.items()})
        command_line.typed = _typed(options.pop(_CONTEXT))
        try:
            # Of the processes of torchrun the first one speaks.
            progress = progress_bar("item") if is_first_process() else nullcontext()
            with _sigterm_raises(), _print_at_end(command), progress:
                function(*arguments, **options)
        except Termination as error:
            raise Terminated(f"terminated; {command.after_interrupt}") from error
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted; {command.after_interrupt}") from error

    # Typer reads options from the signature: the common ones stand behind the command's own.
    own = inspect.signature(function)
    context = inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [*own.parameters.values(), *common.values(), context]
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {item.name: item.annotation for item in parameters}
    return call


def _typed(context: typer.Context) -> dict[str, str]:
    """The parameters that the command line gives, whatever their values: see `cli.flags.CommandLine`."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    names = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    return {item.name: _flag(item) for item in context.command.params if item.name in names}


def _flag(parameter: Any) -> str:
    """The long form of an option, or what the help calls an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return max(parameter.opts, key=len)  # type: ignore[no-any-return]


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _print_at_end(command: Command) -> Iterator[None]:
    """Print how long a command took and what to type next, where it makes something."""
    began = time.monotonic()
    try:
        yield
    except QuarantineNotice:
        # The dataset is whole all the same.
        _print_end(command, time.monotonic() - began)
        raise
    _print_end(command, time.monotonic() - began)


def _print_end(command: Command, seconds: float) -> None:
    has_end = (command.makes or console.next) and console.next is not None
    if has_end and is_first_process():
        following = console.next or command.next
        # On a line of its own where it is long: fitted lines break between words, and a command is to be copied.
        gap = "\n  " if len(following) > 60 else " "
        note(f"took {seconds:.1f} s" + (f"; next:{gap}{following}" if following else ""))


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Termination`; elsewhere than on the main thread Python has no signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Termination

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

"""The program `seqdata`: every command by name, and the one handler that turns an error into a line and an exit code.

The module of a command is imported when the command is invoked or its help is shown, so that `seqdata --help` costs
little more than an empty Typer application and the imports of a command stand at the top of its file.
"""

import functools
import inspect
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

import seqdata
from cli.output import PlainFormatter, console, note
from seqdata.errors import (
    BROKEN_PIPE,
    InputError,
    Interrupted,
    OutputError,
    QuarantineNotice,
    SeqdataError,
    Terminated,
    Termination,
    UsageError,
)


@dataclass(frozen=True)
class Command:
    """One command: where its function is, and what is said about it before that is imported."""

    target: str
    """Module and function, as `package.module:function`."""
    help: str
    """Line in the list of commands: the first line of the function's docstring."""
    epilog: str | None = None
    """Line below the command's own help."""
    hidden: bool = False
    """Whether the list of commands leaves it out."""
    after_interrupt: str = "run the same command again to continue"
    """What to do after Ctrl-C."""
    next: str = ""
    """Command that takes what this one made; where it stands, the time that this one took is printed, too."""

    @property
    def function(self) -> Callable[..., None]:
        """The function, its module imported."""
        module, _, name = self.target.partition(":")
        function: Callable[..., None] = getattr(import_module(module), name)
        return function


BUILD = "build"
INDEX_COMMANDS = {
    BUILD: Command(
        "cli.index.build:index",
        "Build a version of a place index from a run and a dataset.",
        epilog="Versions: seqdata index merge | append | list | show | diff | verify | tag | rollback | gc, each with "
        "--help.",
        next="seqdata eval",
    ),
    "merge": Command("cli.index.append:merge", "Join the parts that seqdata index --shard-range i/N wrote."),
    "append": Command("cli.index.append:append", "Add the new windows of a dataset to its index."),
    "list": Command("cli.index.versions:list_", "List the versions of an index, oldest first."),
    "show": Command("cli.index.versions:show", "Print the inputs of a version and what was measured on it."),
    "diff": Command("cli.index.versions:diff", "Print the differences between two versions."),
    "verify": Command("cli.index.versions:verify", "Check every file of a version, or of all, against its hash."),
    "tag": Command("cli.index.versions:tag", "Name a version; gc keeps what has a name."),
    "rollback": Command("cli.index.versions:rollback", "Make an earlier version the latest."),
    "gc": Command("cli.index.versions:gc", "Delete versions that are neither latest nor tagged."),
}
COMMANDS = {
    "init": Command("cli.start.init:init", "Write a commented seqdata.toml into the current folder."),
    "synth": Command("cli.start.synth:synth", "Write a small synthetic dump in a real dataset's layout."),
    "build": Command("cli.dataset.build:build", "Build a dataset from a raw dump.", next="seqdata train"),
    "info": Command("cli.dataset.inspect:info", "Print counts, spacing, sizes and protocol splits of a dataset."),
    "preview": Command("cli.dataset.preview:preview", "Write a self-contained HTML page about a dataset."),
    "verify": Command("cli.dataset.inspect:verify", "Check every byte of a dataset against its hashes."),
    "quarantine": Command("cli.dataset.inspect:quarantine", "List every input that a build left out, with its reason."),
    "protocols": Command("cli.dataset.sequences:protocols", "List the shipped protocols, or print one."),
    "sequences": Command("cli.dataset.sequences:sequences", "Add windows of other lengths, spacings or protocols."),
    "leakage": Command("cli.dataset.leakage:leakage", "Measure how much test ground lies near the training ground."),
    "export": Command("cli.dataset.export:export", "Write windows as tars or image folders for other programs."),
    "merge": Command("cli.dataset.versions:merge", "Seal a dataset whose shards were written by array jobs."),
    "append": Command("cli.dataset.versions:append", "Add new cities, laps or drives to a sealed dataset."),
    "withdraw": Command("cli.dataset.versions:withdraw", "Remove frames from a sealed dataset, as a new version."),
    "models": Command("cli.training.models:models", "List the models, show what one is made of, or get one as it is."),
    "describe": Command("cli.training.describe:describe", "Compute and store a descriptor of every frame."),
    "train": Command(
        "cli.training.train:train",
        "Train a sequence-descriptor model on a dataset.",
        after_interrupt="continue with seqdata train --resume",
        next="seqdata index",
    ),
    "import": Command(
        "cli.training.import_run:import_run", "Write a run from weights that a paper's program released."
    ),
    "eval": Command(
        "cli.evaluation.evaluate:evaluate",
        "Measure recall of an index, predictions or descriptors.",
        next="seqdata report",
    ),
    "baseline": Command(
        "cli.evaluation.baseline:baseline", "Measure recall of frame matching, without a sequence model."
    ),
    "compare": Command("cli.evaluation.compare:compare", "Compare the recall of two methods query by query."),
    "search": Command("cli.index.search:search", "Find the nearest places of images, videos or descriptors."),
    "pack": Command("cli.index.pack:pack", "Write an index and its model as one folder for a robot."),
    "localize": Command(
        "cli.index.localize:localize",
        "Localize a recording, frame by frame, and write its track.",
        after_interrupt="what was localized so far is in the track's folder; name another with --out to start again",
    ),
    "report": Command("cli.evaluation.report:report", "Write a self-contained HTML page about an index."),
    "experiment": Command(
        "cli.training.experiment:experiment", "Run one of the papers' experiments and print its table."
    ),
    "profile": Command("cli.training.profile:profile", "Measure time and memory of models and of search."),
    "doctor": Command("cli.start.doctor:doctor", "Check this machine and work folder, for a bug report."),
    "demo": Command("cli.start.demo:demo", "Run every step on a synthetic city."),
}


# The list of commands, in the order of the work; a command that stands in no group comes last.
GROUPS = {
    "Data": (
        "synth", "build", "info", "preview", "verify", "sequences", "leakage", "append", "withdraw", "compact", "gc",
        "export", "merge", "quarantine",
    ),
    "Models": ("models", "import", "describe", "train", "profile"),
    "Index": ("index", "search", "pack", "localize"),
    "Evidence": ("eval", "baseline", "compare", "report", "experiment", "protocols"),
    "Sharing": ("card", "push", "pull", "list"),
    "Workshop": ("init", "demo", "doctor"),
}  # fmt: skip
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def _set_console(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print what libraries log, too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", help="Write notes and progress there, too.", metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """The options that every command has besides its own: what is printed on stderr, and where else."""
    console.is_quiet, console.is_verbose, console.is_debug, console.log_file = quiet, verbose, debug, log_file
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")


# One line to paste for each command, below its help.
EXAMPLES = {
    "init": "seqdata init --raw raw --out .",
    "synth": "seqdata synth raw",
    "build": "seqdata build msls raw --protocol msls-seqvlad",
    "info": "seqdata info datasets/msls",
    "verify": "seqdata verify datasets/msls",
    "quarantine": "seqdata quarantine datasets/msls",
    "protocols": "seqdata protocols show nordland-sta",
    "sequences": "seqdata sequences datasets/msls --length 10",
    "leakage": "seqdata leakage datasets/msls",
    "export": "seqdata export datasets/msls --format folders --out images",
    "merge": "seqdata merge datasets/msls",
    "append": "seqdata append datasets/msls msls raw --cities paris",
    "withdraw": "seqdata withdraw datasets/msls KEY --reason privacy",
    "models": "seqdata models show seqvlad-r18",
    "describe": "seqdata describe datasets/msls --model mean-r18",
    "train": "seqdata train datasets/msls --model seqvlad-r18 --epochs 30",
    "eval": "seqdata eval indexes/seqvlad --full --by night",
    "baseline": "seqdata baseline datasets/msls --method seqslam",
    "compare": "seqdata compare indexes/seqvlad baselines/frame",
    "search": "seqdata search indexes/seqvlad drive/images -k 3",
    "pack": "seqdata pack indexes/seqvlad --out place.pack",
    "report": "seqdata report indexes/seqvlad --compare baselines/frame",
    "experiment": "seqdata experiment seqvlad-table3 --scale smoke",
    "profile": "seqdata profile --model seqvlad-r18",
    "demo": "seqdata demo --out demo",
    "doctor": "seqdata doctor",
}


class LazyGroup(TyperGroup):
    """A group that lists its commands by their registry and imports one when it is used."""

    registry: ClassVar[Mapping[str, Command]] = COMMANDS
    prefix: ClassVar[str] = ""

    def __init__(self, **attributes: Any) -> None:
        """Put a placeholder with name and help in the place of every command."""
        super().__init__(**attributes)
        # The list of commands, the search for a mistyped name and shell completion read these and nothing more.
        placeholders = {
            name: TyperCommand(name=name, help=command.help, hidden=command.hidden)
            for name, command in self.registry.items()
        }
        self.commands = {**placeholders, **self.commands}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their groups; each line is whole, and wrapped where a terminal is narrow."""
        rest = [name for name in self.commands if all(name not in names for names in GROUPS.values())]
        for title, names in {**GROUPS, "More": tuple(rest)}.items():
            rows = [
                (name, self.commands[name].help or "")
                for name in names
                if name in self.commands and not self.commands[name].hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the placeholder of the command that is invoked, or whose help is shown, by the command itself."""
        # Typer calls this once a command line, after it knows the command and before it reads the command's options.
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.registry:
            command = _load(name, self.registry[name])
        return name, command, rest


class IndexGroup(LazyGroup):
    """`seqdata index DATASET --pca 64` means `seqdata index build DATASET --pca 64`.

    A dataset folder that is called like a command is written as `./list`.
    """

    registry: ClassVar[Mapping[str, Command]] = INDEX_COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `build` before arguments that do not begin with a command.

        Raises:
            UsageError: For a mistyped one.
        """
        if (
            args
            and args[0] not in self.commands
            and not args[0].startswith("-")
            and "/" not in args[0]
            and not Path(args[0]).exists()
        ):
            # A word that is nearly a command was meant as one, and a dataset that is called so would be there.
            nearest = get_close_matches(args[0], list(self.commands), n=1)
            if nearest:
                raise UsageError(
                    f"index {args[0]}: no such command and no such folder; did you mean seqdata index {nearest[0]}?"
                )
        return super().parse_args(ctx, args if args and args[0] in self.commands else [BUILD, *args])


def _load(name: str, command: Command) -> Any:
    """Import a command and give it the form in which a group holds it."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    example = f"Example: {EXAMPLES[name]}" if COMMANDS.get(name) is command and name in EXAMPLES else None
    decorate = single.command(
        name, epilog=command.epilog or example, hidden=command.hidden, context_settings=HELP_NAMES
    )
    decorate(_interruptible(command))
    # A Typer application with one command and no callback becomes that command, without a group around it.
    return typer.main.get_command(single)


def _interruptible(command: Command) -> Callable[..., None]:
    """The command's function, with Ctrl-C and SIGTERM as errors of ours: else the program would end without a word."""
    function = command.function
    common = inspect.signature(_set_console).parameters

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        _set_console(**{name: options.pop(name, value.default) for name, value in common.items()})
        try:
            with _terminable(), _ended(command):
                function(*arguments, **options)
        except Termination as error:
            raise Terminated(f"terminated; {command.after_interrupt}") from error
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted; {command.after_interrupt}") from error

    # Typer reads options from the signature: the common ones stand behind the command's own.
    own = inspect.signature(function)
    guarded.__signature__ = own.replace(parameters=[*own.parameters.values(), *common.values()])  # type: ignore[attr-defined]
    guarded.__annotations__ = {**function.__annotations__, **_set_console.__annotations__}
    return guarded


@contextmanager
def _ended(command: Command) -> Iterator[None]:
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
    # Of the processes of torchrun the first one speaks.
    if command.next and os.environ.get("RANK", "0") == "0":
        note(f"took {seconds:.1f} s; next: {command.next}")


@contextmanager
def _terminable() -> Iterator[None]:
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

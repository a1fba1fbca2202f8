"""The program: every verb in one place, and the one handler that turns errors into a line and an exit code."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from cli.dataset import (
    build as building,
)
from cli.dataset import (
    export as exporting,
)
from cli.dataset import (
    inspect as inspecting,
)
from cli.dataset import (
    leakage,
    versions,
)
from cli.dataset import (
    sequences as tables,
)
from cli.evaluation import evaluate as evaluating
from cli.evaluation import report as reporting
from cli.index import group as index_group
from cli.index import pack as packing
from cli.index import search as searching
from cli.start import init as starting
from cli.start import synth as synthesis
from cli.training import (
    describe as describing,
)
from cli.training import (
    experiment as experiments,
)
from cli.training import (
    models,
)
from cli.training import (
    profile as profiling,
)
from cli.training import (
    train as training,
)
from seqdata.errors import Interrupted, QuarantineNotice, SeqdataError

app = typer.Typer(
    name="seqdata",
    help="Raw street-level drives in, a versioned, measured place index out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "init": starting.init,
    "synth": synthesis.synth,
    "build": building.build,
    "info": inspecting.info,
    "verify": inspecting.verify,
    "quarantine": inspecting.quarantine,
    "protocols": tables.protocols,
    "sequences": tables.sequences,
    "leakage": leakage.leakage,
    "export": exporting.export,
    "merge": versions.merge,
    "append": versions.append,
    "withdraw": versions.withdraw,
    "models": models.models,
    "describe": describing.describe,
    "train": training.train,
    "eval": evaluating.evaluate,
    "baseline": evaluating.baseline,
    "search": searching.search,
    "pack": packing.pack,
    "report": reporting.report,
    "experiment": experiments.experiment,
    "profile": profiling.profile,
    "demo": starting.demo,
}


def _interruptible(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command, with Ctrl-C as an error of ours: Typer would end the program without a word."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as error:
            hint = "seqdata train --resume goes on" if name == "train" else "the same command goes on"
            raise Interrupted(f"interrupted; {hint}") from error

    return guarded


for _name, _command in COMMANDS.items():
    app.command(_name, hidden=_name == "demo")(_interruptible(_name, _command))
index_group.add_to(app, _interruptible)


def run() -> None:
    """Run the program; a known error becomes one line on stderr and its exit code."""
    try:
        app()
    except SeqdataError as error:
        word = "note" if isinstance(error, (QuarantineNotice, Interrupted)) else "error"
        typer.echo(f"{word}: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'storage'}: {error.strerror or error}", err=True)
        sys.exit(5)


if __name__ == "__main__":
    run()

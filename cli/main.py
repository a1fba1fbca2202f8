"""The program: every verb in one place, and the one handler that turns errors into a line and an exit code."""

import sys

import typer

from cli import building, evaluating, indexing, inspecting, reporting, searching, starting, training
from seqdata.errors import QuarantineNotice, SeqdataError

app = typer.Typer(
    name="seqdata",
    help="Raw street-level drives in, a versioned, measured place index out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("init")(starting.init)
app.command("synth")(starting.synth)
app.command("demo", hidden=True)(starting.demo)
app.command("build")(building.build)
app.command("info")(inspecting.info)
app.command("verify")(inspecting.verify)
app.command("quarantine")(inspecting.quarantine)
app.command("protocols")(inspecting.protocols)
app.command("train")(training.train)
app.command("index")(indexing.index)
app.command("eval")(evaluating.evaluate)
app.command("baseline")(evaluating.baseline)
app.command("search")(searching.search)
app.command("report")(reporting.report)


def run() -> None:
    """Run the program; a known error becomes one line on stderr and its exit code, Ctrl-C becomes 130."""
    try:
        app()
    except SeqdataError as error:
        word = "note" if isinstance(error, QuarantineNotice) else "error"
        typer.echo(f"{word}: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'storage'}: {error.strerror or error}", err=True)
        sys.exit(5)


if __name__ == "__main__":
    run()

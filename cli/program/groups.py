"""The groups of commands: they list names and help from the registry, and import a command when it is used."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from cli.program.common import with_common_options
from cli.program.help import PanelCommand, markup_mode
from cli.program.parameters import dress
from cli.program.registry import BUILD, COMMANDS, GROUPS, INDEX_COMMANDS, Command
from seqdata.errors import UsageError

REST = "More"
"""Title of the commands that stand in no group."""
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """A group that lists its commands by their registry and imports one when it is used."""

    registry: ClassVar[Mapping[str, Command]] = COMMANDS

    def __init__(self, **attributes: Any) -> None:
        """Put a placeholder with name and help in the place of every command."""
        super().__init__(**attributes)
        # The list of commands, the search for a mistyped name and shell completion read these and nothing more.
        placeholders = {
            name: TyperCommand(name=name, help=command.help, hidden=command.hidden, rich_help_panel=_group(name))
            for name, command in self.registry.items()
        }
        self.commands = {**placeholders, **self.commands}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their groups; each line is whole, and wrapped where a terminal is narrow."""
        for title in (*GROUPS, REST):
            rows = [
                (name, self.commands[name].help or "")
                for name in self.list_commands(ctx)
                if _group(name) == title and not self.commands[name].hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands in the order of the work."""
        order = [name for names in GROUPS.values() for name in names]
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the placeholder of the command that is invoked, or whose help is shown, by the command itself."""
        # Typer calls this once a command line, after it knows the command and before it reads the command's options.
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.registry:
            command = load_command(name, self.registry[name])
        return name, command, rest


class IndexGroup(LazyGroup):
    """`seqdata index DATASET --pca 64` means `seqdata index build DATASET --pca 64`.

    A dataset folder that is called like a command is written as `./list`.
    """

    registry: ClassVar[Mapping[str, Command]] = INDEX_COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `build` before arguments that do not begin with a command. Raises: UsageError for a mistyped one."""
        if ctx.resilient_parsing and not args:
            # The shell completes the next word, which is a command or the first argument of `build`.
            return super().parse_args(ctx, args)
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


def _group(name: str) -> str:
    """The title under which the list has a command."""
    return next((title for title, names in GROUPS.items() if name in names), REST)


def load_command(name: str, command: Command) -> Any:
    """Import a command and give it the form in which a group holds it."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=markup_mode())
    # Blank lines keep click from joining the example and the lines below it.
    epilog = "\n\n".join([f"Example: {command.example}", *([command.epilog] if command.epilog else [])])
    decorate = single.command(name, cls=PanelCommand, epilog=epilog, hidden=command.hidden, context_settings=HELP_NAMES)
    function = with_common_options(command)
    dress(function)
    decorate(function)
    # A Typer application with one command and no callback becomes that command, without a group around it.
    return typer.main.get_command(single)

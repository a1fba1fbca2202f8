"""A command's help: arguments, then options in panels, plain or in Rich's frames."""

import os
import sys
from typing import Any, Literal

from typer.core import TyperArgument, TyperCommand

from cli.program.common import COMMON
from cli.program.parameters import COMMON_PANEL, PANELS

ARGUMENTS = "Arguments"
TITLES = (ARGUMENTS, "Options", *(title for title in PANELS if title != "Options"), COMMON_PANEL)
"""Panels in the order of the help."""


def markup_mode() -> Literal["markdown"] | None:
    """The help's form: frames and colour on a terminal, plain text elsewhere and where NO_COLOR is set."""
    # Markdown and not Rich's own markup, in which [a|b] would be a style.
    return "markdown" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else None


class PanelCommand(TyperCommand):
    """A command whose plain help has the panels that Rich's help has."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, a section a panel."""
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                # Typer writes the type behind the name of an argument, which is the word for its value already.
                name = parameter.metavar if isinstance(parameter, TyperArgument) and parameter.metavar else row[0]
                panels[_panel(parameter)].append((name, row[1]))
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_params(self, ctx: Any) -> Any:
        """List the parameters in the order of their panels, which Rich's help follows."""
        parameters = sorted(super().get_params(ctx), key=lambda parameter: TITLES.index(_panel(parameter)))
        # Typer makes --help itself, without a panel.
        parameters[-1].rich_help_panel = COMMON_PANEL  # type: ignore[attr-defined]
        return parameters


def _panel(parameter: Any) -> str:
    """Title of the panel that a parameter stands in."""
    if isinstance(parameter, TyperArgument):
        return ARGUMENTS
    if parameter.name in COMMON:
        return COMMON_PANEL
    title = getattr(parameter, "rich_help_panel", None)
    return title if title in TITLES else "Options"

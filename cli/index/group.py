"""`seqdata index` as it is typed: a verb on versions when the first word is one, else a build."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from cli.index import append as index_adding
from cli.index import build as indexing
from cli.index import versions as index_versions

BUILD = "build"
VERBS: dict[str, Callable[..., None]] = {
    BUILD: indexing.index,
    "merge": index_adding.merge,
    "append": index_adding.append,
    "list": index_versions.list_,
    "show": index_versions.show,
    "diff": index_versions.diff,
    "verify": index_versions.verify,
    "tag": index_versions.tag,
    "rollback": index_versions.rollback,
    "gc": index_versions.gc,
}


class BuildUnlessVerb(TyperGroup):
    """`seqdata index DATASET --pca 64` is `seqdata index build DATASET --pca 64`; a verb's namesake is ./list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `build` before arguments that begin with no verb."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [BUILD, *args])


def add_to(app: typer.Typer, guard: Callable[[str, Callable[..., None]], Callable[..., None]]) -> None:
    """Register `index` and its verbs; `guard(name, command)` wraps each."""
    group = typer.Typer(cls=BuildUnlessVerb, rich_markup_mode=None)
    for name, command in VERBS.items():
        epilog = f"Versions: seqdata index {' | '.join(list(VERBS)[1:])}, each with --help." if name == BUILD else None
        group.command(name, epilog=epilog)(guard(f"index {name}", command))
    app.add_typer(group, name="index", help=(indexing.index.__doc__ or "").splitlines()[0])

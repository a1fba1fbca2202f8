"""What the shell completes: datasets, runs, indexes, protocols, models, recipes, and the choices of a flag."""

from collections.abc import Callable
from pathlib import Path

from seqdata.errors import SeqdataError


def completer(value: str | None) -> Callable[[str], list[str]] | None:
    """The completion of a value by the word that the help has for it; None leaves it to the shell.

    Args:
        value: Word such as "DATASET", or choices such as "[cpu|cuda]".

    Example:
        >>> completer("[cpu|cuda|auto]")("c")
        ['cpu', 'cuda']
    """
    if value is None:
        return None
    if value.startswith("[") and "|" in value:
        choices = value.strip("[]").split("|")
        return _matching(lambda: choices)
    names = _NAMES.get(value)
    return None if names is None else _matching(names)


def _matching(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Complete by the names that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        # A shell shows what the program prints among its words: a broken settings file completes nothing.
        try:
            return [name for name in names() if name.startswith(incomplete)]
        except (SeqdataError, OSError):
            return []

    return complete


def _folders(kind: str, marker: str) -> Callable[[], list[str]]:
    """The folders of a kind below the work folder's outputs, the newest first."""

    def names() -> list[str]:
        from cli.config import load  # heavy
        from seqdata.storage.files import folders_by_age  # heavy

        return [str(path) for path in reversed(folders_by_age(load(None).out / kind, marker))]

    return names


def _protocols() -> list[str]:
    from seqdata import protocols  # heavy

    return [*protocols.names(), *(str(path) for path in sorted(Path().glob("*.toml")) if path.name != "seqdata.toml")]


def _models() -> list[str]:
    from train.models.catalogue import PRESETS, plugin_names  # heavy

    return sorted({*(name for presets in PRESETS.values() for name in presets), *plugin_names()})


def _recipes() -> list[str]:
    from train.recipes import RECIPES  # heavy

    return sorted(RECIPES)


_NAMES: dict[str, Callable[[], list[str]]] = {
    "DATASET": _folders("datasets", "manifest.json"),
    "RUN": _folders("runs", "run.json"),
    "INDEX": _folders("indexes", "latest"),
    "PROTOCOL": _protocols,
    "MODEL": _models,
    "RECIPE": _recipes,
}

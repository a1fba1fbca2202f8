"""Models of other packages: by an entry point of the group `seqdata.models`, or by `package.module:factory`.

A factory is called as `factory(weights=..., seed=..., **options)` and returns a `SequenceModel`. See docs/models.md.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from seqdata.errors import ContractError, MissingDependencyError
from train.models.base import SequenceModel
from train.models.catalogue import PLUGINS

Factory = Callable[..., SequenceModel]


def find_factory(name: str) -> Factory | None:
    """Find the factory that `name` stands for.

    Args:
        name: Name of an installed plug-in, or `package.module:factory`; the module may also lie in the working
            directory, and what is installed goes before it.

    Returns:
        The factory, or None where `name` is neither.

    Raises:
        MissingDependencyError: When its module cannot be imported.
        ContractError: When the module holds no such factory.

    Example:
        >>> find_factory("seqvlad-r18") is None
        True
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        with _working_directory_importable():
            return _imported(name, module, attribute)
    for point in entry_points(group=PLUGINS, name=name):
        return _imported(name, point.module, point.attr)
    return None


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Make the working directory the last place to import from: a console script does not look there."""
    # At the end of the path, because a user's folder may hold a train.py or a cli.py of its own.
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def _imported(name: str, module: str, attribute: str) -> Factory:
    """The function `attribute` of a module, for the model `name`."""
    try:
        factory = getattr(import_module(module), attribute, None)
    except ImportError as error:
        raise MissingDependencyError(
            f"model '{name}': '{module}' cannot be imported ({error}); install it where seqdata is"
        ) from error
    if not callable(factory):
        raise ContractError(f"model '{name}': '{module}' has no function '{attribute}'")
    return cast(Factory, factory)


def create_plugin(
    factory: Factory, name: str, weights: str | Path, seed: int, options: dict[str, Any]
) -> SequenceModel:
    """Make a plug-in's model, with a `config` that recreates it.

    Raises:
        ContractError: When the factory takes no such option, or returns something else.
    """
    # The signature is tried first, so that a TypeError of the factory's own code is not taken for a wrong option.
    try:
        inspect.signature(factory).bind(weights=weights, seed=seed, **options)
    except TypeError as error:
        raise ContractError(f"model '{name}': its factory refuses these options ({error})") from error
    model = factory(weights=weights, seed=seed, **options)
    if not isinstance(model, SequenceModel):
        raise ContractError(f"model '{name}': its factory returned {type(model).__name__}, not a SequenceModel")
    model.config = {"name": name, "weights": str(weights), "seed": seed, **options}
    return model

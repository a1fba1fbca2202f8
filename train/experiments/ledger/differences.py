"""What is known to differ between a cell and the paper's: settings that the cell records, and facts of a data file."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from seqdata.contracts.records import Frozen
from seqdata.contracts.toml_files import read_toml
from train.experiments import grid as grids
from train.experiments.grid import Method
from train.experiments.measure.cells import Cell
from train.experiments.measure.run_folders import model_differences
from train.experiments.measure.scale import resolve
from train.settings import TrainSettings

FILE = Path(__file__).parent / "differences.toml"
# Where a run computes and how it logs; the seed is the user's.
NO_DIFFERENCE = {"seed", "device", "save_every", "frame_batch", "cache_bytes", "decode_threads", "decode_device"}


class Facts(Frozen):
    """The data file: what differs wherever a method, recipe, protocol, quantity, experiment or row of one stands."""

    features: str
    methods: dict[str, str]
    recipes: dict[str, str]
    protocols: dict[str, str]
    quantities: dict[str, str]
    experiments: dict[str, str]
    rows: dict[str, dict[str, str]]


@cache
def facts() -> Facts:
    """Read the data file."""
    return Facts.model_validate(read_toml(FILE))


def known_differences(experiment: str, row: str, quantity: str, protocol: str | None, cell: Cell | None) -> list[str]:
    """List what is known to differ between a cell and the paper's.

    Args:
        experiment: Name of the experiment.
        row: Name of the row.
        quantity: What the value is, such as "r1" or "memory".
        protocol: Name of the paper's protocol of the cell, where it has one.
        cell: The measured cell, None where there is none.

    Returns:
        A sentence a difference.
    """
    catalogue = facts()
    sentences = [
        catalogue.experiments.get(experiment),
        catalogue.rows.get(experiment, {}).get(row),
        catalogue.quantities.get(quantity),
        catalogue.protocols.get(protocol or ""),
    ]
    if row in grids.methods():
        method = grids.method(row)
        sentences += [catalogue.methods.get(row), *_of_training(method, cell)]
    return [sentence for sentence in sentences if sentence]


def _of_training(method: Method, cell: Cell | None) -> Iterator[str | None]:
    """What differs in how the model came to be."""
    catalogue = facts()
    # A run that exists says itself how its model came to be, so nothing is assumed of the row's recipe.
    runs = [] if cell is None else cell.inputs.get("runs", [])
    for run in runs:
        yield _source_text(run)
        yield _changes_text("Options of the run's model", model_differences(run, method))
        if not run["imported"]:
            own = TrainSettings.model_validate(run["settings"]).model_dump(mode="json")
            recipe = TrainSettings.create(method.recipe, protocol=own["protocol"]).model_dump(mode="json")
            names = set(own) - NO_DIFFERENCE - {"options", "model", "weights", "features"}
            yield _changes_text("Training of the run", {n: (own[n], recipe[n]) for n in sorted(names)})
    if runs:
        return
    yield catalogue.recipes.get(method.recipe)
    if method.features:
        yield catalogue.features
    if cell is not None and "method" in cell.inputs:
        yield _changes_text("Settings", _against_full(cell.inputs["method"], method))


def _source_text(run: Mapping[str, Any]) -> str:
    imported = run["imported"]
    if imported:
        return f"Weights were imported from {imported['file']} ({imported['kind']}, SHA-256 {imported['sha256'][:12]})."
    return f"Weights are those of a run of seqdata train (XXH3-128 {run['weights'][:12]})."


def _against_full(inputs: Mapping[str, Any], method: Method) -> dict[str, tuple[Any, Any]]:
    """Settings of a cell's models that differ from the method's at full scale: the cell's value and the full one."""
    full, own = _flat(resolve(method, "full", "pretrained").inputs()), _flat(inputs)
    return {name: (value, full.get(name)) for name, value in own.items()}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; the model on whose vectors a head works comes second, as "frames"."""
    if isinstance(value, Mapping):
        items = ((f"{path}.{key}" if path else str(key), part) for key, part in value.items())
        return {name: leaf for key, part in items for name, leaf in _flat(part, key).items()}
    if path == "models":
        named = zip(("", "frames"), value, strict=False)
        return {name: leaf for head, part in named for name, leaf in _flat(part, head).items()}
    return {path: value}


def _changes_text(what: str, changes: Mapping[str, tuple[Any, Any]]) -> str | None:
    """The changes in one sentence, None without any."""
    # Sorted, because a stored cell has its settings in another order than one measured now.
    differing = {
        name.replace("options.", ""): pair
        for name, pair in sorted(changes.items())
        if pair[0] != pair[1] and name.rpartition(".")[2] not in NO_DIFFERENCE
    }
    if not differing:
        return None
    return f"{what}: {'; '.join(f'{name} {own} instead of {full}' for name, (own, full) in differing.items())}."

"""Runs that exist already, as `seqdata import` and `seqdata train` write them, in place of runs trained for a cell."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqdata.errors import ContractError, InputError
from train.experiments import grid as grids
from train.experiments.grid import Method
from train.models import registry as models
from train.runs.record import checkpoint_hash, run_record

SINGLE = "-single"
"""Ends the folder of the run whose frame vectors re-rank, for rows that need two (HVPR)."""
SAME_MODEL = ("model", "options", "recipe", "epochs", "features")
# What trains a model or names its file, and changes no descriptor.
NOT_OF_THE_MODEL = {"trainable", "freeze_ends", "fresh", "seed", "weights", "vlad_start", "drop_path"} | {
    "attention_dropout", "encoder_options"
}  # fmt: skip


@dataclass(frozen=True)
class RowRuns:
    """The run of a row, and the one whose single frames re-rank its first answers, where the row needs it."""

    run: Path
    single: Path | None = None

    def inputs(self) -> dict[str, Any]:
        """What of them decides numbers: weights by their bytes, the models, and where they come from."""
        folders = [folder for folder in (self.run, self.single) if folder is not None]
        return {"runs": [_facts(folder) for folder in folders]}


def find_runs(folder: Path, row: str, protocol: str) -> RowRuns:
    """Look up the run of a row below a folder of runs.

    Args:
        folder: Holds PROTOCOL/ROW for runs of one training protocol, and ROW for all others. Rows that share a model,
            such as `sta` and `sta-pca`, share the run.
        row: Name of a method.
        protocol: Name of the protocol that the cell's model is trained under.

    Returns:
        The row's runs.

    Raises:
        InputError: If there is none.
        ContractError: If it is of another model.
    """
    method = grids.method(row)
    # The row's own name goes first, so that a run for it alone is possible.
    names = [row, *(name for name, other in grids.methods().items() if name != row and _same_model(method, other))]
    run = _first(folder, names, protocol)
    _check_model(run, method)
    if method.match != "hvpr":
        return RowRuns(run)
    return RowRuns(run, _first(folder, [f"{name}{SINGLE}" for name in names], protocol))


def model_differences(run: dict[str, Any], method: Method) -> dict[str, tuple[Any, Any]]:
    """Compare the model of a run's facts with that of a row: option, what the run has, what the row has."""
    own, row = run["model"], models.resolve(method.model, method.options).model_dump(mode="json")
    return {
        option: (own[option], value)
        for option, value in row.items()
        if option in own and option not in NOT_OF_THE_MODEL and own[option] != value
    }


def _same_model(method: Method, other: Method) -> bool:
    return all(getattr(method, field) == getattr(other, field) for field in SAME_MODEL)


def _first(folder: Path, names: list[str], protocol: str) -> Path:
    """The first run folder of these names. Raises: InputError."""
    places = [folder / protocol / name for name in names] + [folder / name for name in names]
    for place in places:
        if (place / "run.json").is_file():
            return place
    raise InputError(f"no run of this row in {folder}; seqdata import KIND FILE --out {folder / names[0]}")


def _check_model(run: Path, method: Method) -> None:
    """Raise ContractError when a run is of another design than a method's."""
    own = run_record(run)["model"]
    row = models.resolve(method.model, method.options).model_dump(mode="json")
    parts = ("pooling", "fusion")
    is_same_design = all(part in own and own[part] == row.get(part) for part in parts)
    if own["name"] != method.model and not is_same_design:
        raise ContractError(f"{run}: its model is {own['name']}, the row's is {method.model}; put the row's run there")


def _facts(run: Path) -> dict[str, Any]:
    record = run_record(run)
    facts = {"weights": checkpoint_hash(run), "model": record["model"], "imported": record.get("imported")}
    return {**facts, "settings": record["settings"]}

"""How far a run has come, and the folders that hold it between two finished epochs.

`checkpoints/step-<epoch>-<round>-<step>/` is a run within an epoch, `checkpoints/epoch-<n>/` one whose epoch n is done
but not yet in the files `best` and `last`. Both are written under another name and renamed, so each is whole or not
there; a newer one replaces all older. When `last` is written the folder goes: what is furthest is always one whole
state.
"""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqdata.errors import ContractError, OutputError
from seqdata.storage.files import atomic_folder
from train.models.base import SequenceModel
from train.runs import checkpoint
from train.runs.best_epoch import is_better

STATE = "state"


@dataclass
class Course:
    """Epochs done, the best epoch with its recalls, epochs since."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] | None = None
    since_best: int = 0

    def note(self, epoch: int, recalls: dict[str, float] | None) -> bool:
        """Enter an epoch's recalls (None without validation); whether it is the best so far (see `best_epoch`)."""
        self.epoch = epoch
        # Patience looks at R@5 alone, the best epoch at R@1 too (see `train.runs.best_epoch`).
        is_gain = recalls is None or self.best is None or recalls["r5"] > self.best["r5"]
        self.since_best = 0 if is_gain else self.since_best + 1
        better = is_better(recalls, self.best)
        if better:
            self.best_epoch, self.best = epoch, recalls
        return better


@dataclass
class Position:
    """Where in an epoch a run stands: `step` steps of round `round` are done, and what the epoch has given so far.

    `losses`, `active` and `hardness` by step (see `train.sampling.regimes.Step`); `weights`: hash of those that the
    round's tuples were mined with; `mined_frames`: distinct frames described for mining; `replaced`: frames of
    windows that showed a neighbour, because their own bytes are damaged; `waited` and `trained`: seconds.
    """

    epoch: int = 1
    round: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    active: list[float] = field(default_factory=list)
    hardness: list[float] = field(default_factory=list)
    weights: str | None = None
    mined_frames: int = 0
    replaced: int = 0
    waited: float = 0.0
    trained: float = 0.0

    def next_round(self) -> None:
        """Go to the start of the next round."""
        self.round, self.step, self.weights = self.round + 1, 0, None

    @property
    def order(self) -> tuple[int, int, int]:
        """Rises with every step."""
        return self.epoch, self.round, self.step


@dataclass
class State:
    """A run between two steps: its course, its position, and the metrics of the epoch that was just finished."""

    course: Course
    position: Position
    entry: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The name of its folder, one for each state of a run."""
        return (
            f"epoch-{self.course.epoch:04d}" if self.entry else "step-{:04d}-{:02d}-{:06d}".format(*self.position.order)
        )


def save(
    folder: Path,
    state: State,
    model: SequenceModel,
    optimizer: torch.optim.Optimizer,
    head: nn.Module | None = None,
) -> None:
    """Save a state below `folder` as a whole, then remove older ones; `head` is what a loss trains beside the model.

    Raises:
        OutputError: When it cannot be written.
    """
    final = folder / state.name
    if not final.is_dir():
        # A rename is whole or not at all: no kill can leave half a state under the final name.
        with atomic_folder(final) as temporary:
            checkpoint.save_model(temporary / STATE, model, {"epoch": state.course.epoch})
            checkpoint.save_optimizer(temporary / STATE, optimizer, asdict(state), head)
    clear(folder, except_for=final)


def clear(folder: Path, except_for: Path | None = None) -> None:
    """Remove saved states, whole or begun, but one.

    Raises:
        OutputError: When it cannot be written.
    """
    for pattern in ("step-*", "epoch-*", ".step-*", ".epoch-*"):
        for old in folder.glob(pattern):
            if old != except_for and old.is_dir():
                try:
                    shutil.rmtree(old)
                except OSError as error:
                    raise OutputError(f"{old}: cannot be removed ({error.strerror or error})") from error


def has_saved_state(folder: Path) -> bool:
    """Whether there is a state below `folder` that `restore` would take."""
    return bool(_stems(folder))


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, head: nn.Module | None = None
) -> State | None:
    """Fill model, optimiser and `head` with the furthest state below `folder`.

    Returns:
        The state; None when no epoch was ever finished.

    Raises:
        ContractError: If its files are damaged or of another model.
    """
    stems = _stems(folder)
    if not stems:
        return None
    # `last` and a state within the next epoch usually lie there together; a kill before the removal of older ones adds
    # more.
    states = [(_read(stem), stem) for stem in stems]
    state, stem = max(states, key=lambda pair: (pair[0].position.order, pair[0].entry is not None))
    tensors = stem.parent / f"{stem.name}.safetensors"
    checkpoint.fill(model, checkpoint.read_tensors(tensors), tensors)
    checkpoint.load_optimizer(stem, optimizer, head)
    return state


def _stems(folder: Path) -> list[Path]:
    """Stems of all states below `folder`."""
    # step-… and epoch-… folders; unfinished ones begin with a dot and are passed over.
    stems = [path.parent / STATE for path in folder.glob(f"[se]*-*/{STATE}.optimizer.json")]
    return [*stems, folder / "last"] if (folder / "last.optimizer.json").is_file() else stems


def _read(stem: Path) -> State:
    """The state beside an optimiser; `last` alone says only which epoch it ends."""
    details = checkpoint.read_optimizer(stem)
    try:
        course = Course(**details["course"])
        position = Position(**details["position"]) if "position" in details else Position(epoch=course.epoch + 1)
    except (TypeError, KeyError) as error:
        raise ContractError(f"{stem}.optimizer.json: not the state of a run ({error})") from error
    return State(course, position, details.get("entry"))

"""Saved states of a run: the furthest is restored, a finished epoch before the step that it ends at, older ones go."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from seqdata.errors import ContractError
from train.runs import checkpoint, state
from train.runs.state import Course, Position, State


@pytest.fixture
def run(tiny: Any, tmp_path: Path) -> Any:
    """A model, its optimiser after one step, and the folder of their states."""
    model = tiny("mean-small")
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad])
    sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad).backward()
    optimizer.step()
    return model, optimizer, tmp_path / "checkpoints"


def within(epoch: int, round_number: int, step: int) -> State:
    return State(Course(epoch=epoch - 1), Position(epoch, round_number, step))


def finished(epoch: int) -> State:
    return State(Course(epoch=epoch), Position(epoch + 1), {"epoch": epoch})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def copy_beside(folder: Path, states: list[State], model: Any, optimizer: Any) -> None:
    """Save states so that none removes another, each with weights of its number."""
    for number, item in enumerate(states, start=1):
        with torch.no_grad():
            next(model.parameters()).fill_(number)
        alone = folder.parent / f"alone-{number}"
        state.save(alone, item, model, optimizer)
        (alone / item.name).rename(folder / item.name)


@pytest.mark.parametrize(
    ("states", "furthest"),
    [
        ([within(1, 0, 3), within(1, 0, 12)], 1),
        ([within(1, 2, 0), within(1, 1, 9)], 0),
        ([within(2, 0, 1), within(1, 9, 9)], 0),
        ([finished(1), within(2, 0, 0)], 0),
        ([within(2, 0, 0), finished(1)], 1),
        ([finished(1), within(2, 0, 1)], 1),
    ],
)
def test_the_furthest_state_is_restored(run: Any, states: list[State], furthest: int) -> None:
    model, optimizer, folder = run
    folder.mkdir()
    copy_beside(folder, states, model, optimizer)
    restored = state.restore(folder, model, optimizer)
    assert restored == states[furthest]
    assert (next(model.parameters()) == furthest + 1).all()


def test_a_saved_state_replaces_all_others_and_nothing_else(run: Any) -> None:
    model, optimizer, folder = run
    folder.mkdir()
    for other in ("step-0001-00-000001", "epoch-0001", ".step-0001-00-000002.tmp", ".epoch-0002.tmp", "best"):
        (folder / other).mkdir()
    (folder / "epoch-notes.txt").write_text("mine")
    assert not state.has_saved_state(folder)
    saved = within(1, 0, 4)
    state.save(folder, saved, model, optimizer)
    assert state.has_saved_state(folder)
    assert names(folder) == ["best", "epoch-notes.txt", saved.name]
    state.save(folder, saved, model, optimizer)
    assert names(folder) == ["best", "epoch-notes.txt", saved.name], "a state that is there stays"
    state.clear(folder)
    assert names(folder) == ["best", "epoch-notes.txt"]


def test_last_says_which_epoch_it_ends(run: Any) -> None:
    model, optimizer, folder = run
    assert state.restore(folder, model, optimizer) is None
    checkpoint.save_model(folder / "last", model, {"epoch": 3})
    checkpoint.save_optimizer(folder / "last", optimizer, {"course": {"epoch": 3, "since_best": 1}})
    restored = state.restore(folder, model, optimizer)
    assert restored == State(Course(epoch=3, since_best=1), Position(epoch=4))


def test_a_state_of_another_form_is_named(run: Any) -> None:
    model, optimizer, folder = run
    state.save(folder, within(1, 0, 4), model, optimizer)
    file = folder / "step-0001-00-000004" / "state.optimizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "course": {"era": 1}}))
    with pytest.raises(ContractError, match="not the state of a run"):
        state.restore(folder, model, optimizer)


def test_names_and_order_of_states() -> None:
    assert (within(1, 2, 3).name, finished(4).name) == ("step-0001-02-000003", "epoch-0004")
    position = Position(2, 1, 7, weights="hash")
    position.next_round()
    assert (position.order, position.weights) == ((2, 2, 0), None)


def test_a_course_counts_epochs_since_the_best_r5() -> None:
    course = Course()
    gains = [course.note(epoch, {"r1": r1, "r5": r5}) for epoch, (r1, r5) in enumerate([(0.1, 0.5), (0.2, 0.5)], 1)]
    assert gains == [True, True]
    assert (course.best_epoch, course.since_best, course.epoch) == (2, 1, 2)
    assert not course.note(3, {"r1": 0.9, "r5": 0.4})
    assert (course.best_epoch, course.since_best) == (2, 2)
    assert course.note(4, {"r1": 0.0, "r5": 0.6})
    assert (course.best_epoch, course.since_best) == (4, 0)


def test_a_run_starts_before_its_first_step() -> None:
    assert asdict(Course()) == {"epoch": 0, "best_epoch": 0, "best": None, "since_best": 0}
    start = asdict(Position())
    assert (start.pop("epoch"), start.pop("weights")) == (1, None)
    assert all(not value for value in start.values()), "nothing is done, lost or waited for"

"""What starting costs: commands that run no model, and errors that need none, end without PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import indexer
from seqdata.dataset.dataset import Dataset
from train.models import catalogue
from train.models.encoders.public_files import public_file

RUN = """
import sys
from typer.testing import CliRunner
from cli.main import app
for arguments, code in {commands!r}:
    ended = CliRunner().invoke(app, arguments)
    ended_with = getattr(ended.exception, "exit_code", ended.exit_code)
    assert ended_with == code, (arguments, ended_with, ended.output, repr(ended.exception))
    heavy = {{"torch", "timm", "torchvision"}} & sys.modules.keys()
    assert not heavy, (arguments, heavy)
"""


def assert_light(commands: list[tuple[list[str], int]], folder: Path) -> None:
    """Run commands in one process: each ends with its exit code, and PyTorch is not loaded by then."""
    program = [sys.executable, "-c", RUN.format(commands=commands)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def place(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of the dataset's windows by other vectors, one of which lies in a file."""
    folder = tmp_path_factory.mktemp("starts")
    windows = dataset.sequences("own", "test", "database")
    vectors = np.random.default_rng(0).normal(size=(windows.height, 8)).astype(np.float32)
    indexer.build(
        folder / "index", blocks=iter([vectors]), places=dataset.places(windows), transform=None, inputs={"by": "us"}
    )
    np.save(folder / "vectors.npy", vectors[:1])
    return folder


def test_commands_that_run_no_model_start_without_pytorch(place: Path, dataset: Dataset) -> None:
    data = str(dataset.path)
    assert_light(
        [
            (["models"], 0),
            (["protocols"], 0),
            (["info", data], 0),
            (["verify", data], 0),
            (["quarantine", data], 0),
            (["search", "index", "vectors.npy"], 0),
            (["index", "list", "--index", "index"], 0),
            (["train", "--settings"], 0),
        ],
        place,
    )


def test_errors_that_need_no_model_come_before_pytorch(place: Path, dataset: Dataset) -> None:
    data = str(dataset.path)
    assert_light(
        [
            (["models", "show", "seqvlad-r81"], 2),
            (["describe", data, "--model", "mean-r81"], 2),
            (["describe", data, "--run", "runs/none"], 3),
            (["train", data, "--model", "mean-r81"], 2),
            (["train", "datasets/none"], 3),
            (["index", data, "--run", "runs/none"], 3),
            (["index", data, "--model", "mean-r81"], 2),
            (["index", data, "--exact-pca", "--run", "runs/none"], 2),
            (["search", "indexes/none", "raw"], 3),
            (["search", "index", data], 4),
            (["eval", "indexes/none"], 3),
            (["report", "indexes/none"], 3),
            (["index", "append", "--index", "indexes/none"], 3),
            (["pack", "indexes/none", "--out", "place.pack"], 3),
            (["localize", "none.pack", data], 3),
            (["profile", "--model", "mean-r81"], 2),
        ],
        place,
    )


def test_the_catalogue_is_what_the_registry_builds() -> None:
    from train.models import registry

    assert {name: family.presets for name, family in registry.FAMILIES.items()} == catalogue.PRESETS
    for name, family in registry.FAMILIES.items():
        assert family.options.model_fields["encoder"].default == catalogue.DEFAULT_ENCODERS[name]


def test_the_stored_start_files_are_what_timm_says() -> None:
    """After a preset with another encoder, or a newer timm: python docs/write_public_files.py."""
    stored = catalogue.start_files()
    encoders = catalogue.encoders()
    by_timm = {encoder: public_file(encoder) for encoder in set(encoders.values())}
    assert stored == {name: by_timm[encoder] for name, encoder in encoders.items()}
    assert {str(encoder) for encoder in by_timm} <= catalogue.stored_files().keys()

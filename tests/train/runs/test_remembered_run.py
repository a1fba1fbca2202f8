"""The run behind an index is found where it lay when the index was built, relative to the index."""

from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.versions.tags import collect
from seqdata.errors import InputError
from tests.support.indexes import make_places
from train.runs.record import remember_run, run_behind


def build(index: Path, seed: int = 0) -> Path:
    """A version whose inputs name the run "street"."""
    vectors = np.random.default_rng(seed).normal(size=(20, 4)).astype(np.float32)
    inputs = {"run": "street", "seed": seed}
    return indexer.build(index, blocks=iter([vectors]), places=make_places(20), transform=None, inputs=inputs)


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    return folder


def test_a_run_elsewhere_is_found_by_the_hint_also_after_both_have_moved(tmp_path: Path) -> None:
    work = tmp_path / "work"
    version, run = build(work / "far" / "away" / "index"), make_run(work / "mine" / "street")
    with pytest.raises(InputError, match="name it with --run"):
        run_behind(indexer.open(version), tmp_path / "runs")
    remember_run(version, run)
    assert run_behind(indexer.open(version), tmp_path / "runs").samefile(run)
    work.rename(tmp_path / "moved")
    opened = indexer.open(tmp_path / "moved" / "far" / "away" / "index")
    assert run_behind(opened, tmp_path / "runs").samefile(tmp_path / "moved" / "mine" / "street")
    # A run of the name in the named folder comes first.
    nearer = make_run(tmp_path / "runs" / "street")
    assert run_behind(opened, tmp_path / "runs") == nearer


@pytest.mark.parametrize("hint", ["/etc", "../nowhere", "\\0", ""])
def test_a_hint_that_is_absolute_or_leads_to_no_run_is_passed_over(tmp_path: Path, hint: str) -> None:
    version = build(tmp_path / "index")
    (tmp_path / "index" / "runs").mkdir()
    (tmp_path / "index" / "runs" / version.name).write_text(hint)
    with pytest.raises(InputError, match="name it with --run"):
        run_behind(indexer.open(version), tmp_path / "runs")


def test_gc_forgets_the_runs_of_versions_that_it_removes(tmp_path: Path) -> None:
    versions = [build(tmp_path / "index", seed) for seed in (0, 1)]
    for version in versions:
        remember_run(version, make_run(tmp_path / version.name))
    assert collect(tmp_path / "index").removed == (versions[0].name,)
    assert [file.name for file in (tmp_path / "index" / "runs").iterdir()] == [versions[1].name]

"""kill -9 while a plain index is built, at several points, and two builders at once: the version has the same bytes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import indexer
from indexer.search.kinds import KindSpec
from indexer.versions.folders import list_versions, read_latest
from indexer.versions.tags import collect
from seqdata.geometry import Float32Array
from tests.support.indexes import make_places

ROOT = Path(__file__).parents[3]
ROWS = 400
FILES = ("index.faiss", "ids.parquet", "manifest.json")


def blocks(seed: int) -> Iterator[Float32Array]:
    x = np.random.default_rng(seed).normal(size=(ROWS, 8)).astype(np.float32)
    yield x[:250]
    yield x[250:]


def build(out: Path, kind: str, seed: int = 0) -> Path:
    return indexer.build(
        out, blocks=blocks(seed), places=make_places(ROWS), transform=None, inputs={"seed": seed},
        kind=KindSpec(kind, recall_target=0.5),
    )  # fmt: skip


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from indexer.builder import build as bundle
    from indexer.versions import locks as leases, manifest, publish as sealing, folders as versions
    from tests.indexer.builder import test_kill
    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    def second(seed):
        yield next(original(seed))
        kill()
    original = test_kill.blocks
    points = {
        "blocks": (test_kill, "blocks"), "places": (sealing, "parquet_writer"),
        "manifest": (manifest, "write_bytes_atomic"), "publish": (sealing, "publish"),
        "latest": (versions, "point_latest"),
    }
    setattr(*points[sys.argv[2]], second if sys.argv[2] == "blocks" else kill)
    test_kill.build(Path(sys.argv[1]), sys.argv[3])
"""


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("point", ["blocks", "places", "manifest", "publish", "latest"])
def test_killed_and_run_again(tmp_path: Path, point: str, kind: str) -> None:
    out = tmp_path / "town"
    expected = build(tmp_path / "other" / "town", kind)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(out), point, kind]
    assert subprocess.run(command, cwd=ROOT, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert read_latest(out) is None
    assert list_versions(out) == ([expected.name] if point == "latest" else [])
    folder = build(out, kind)
    assert folder.name == expected.name == read_latest(out)
    for name in FILES:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    collect(out)
    assert [path.name for path in (out / "versions").iterdir()] == [folder.name]


def _build(arguments: tuple[str, int]) -> str:
    return build(Path(arguments[0]), "ivf", arguments[1]).name


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_two_builders_at_once(tmp_path: Path, seeds: tuple[int, int]) -> None:
    """Same inputs: one wins, the other returns it. Different inputs: both are there, `latest` is one of them."""
    out = tmp_path / "town"
    with get_context("spawn").Pool(2) as pool:
        made = pool.map(_build, [(str(out), seed) for seed in seeds], chunksize=1)
    assert sorted(path.name for path in (out / "versions").iterdir()) == sorted(set(made)) == list_versions(out)
    assert len(set(made)) == len(set(seeds))
    assert read_latest(out) in made
    for name in made:
        indexer.open(out, version=name).verify()


def test_the_last_to_finish_is_latest(tmp_path: Path) -> None:
    out = tmp_path / "town"
    inner: list[Path] = []

    def slow() -> Iterator[Float32Array]:
        yield next(blocks(0))
        inner.append(build(out, "flat", 1))
        yield list(blocks(0))[1]

    outer = indexer.build(out, blocks=slow(), places=make_places(ROWS), transform=None, inputs={"seed": 0})
    assert read_latest(out) == outer.name != inner[0].name

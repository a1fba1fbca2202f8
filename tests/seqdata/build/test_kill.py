"""Kill −9 in mid-build with two workers, at twenty random points; a new start gives the bytes of an unbroken build."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from tests.conftest import write_drives

Files = Callable[[Path], dict[str, bytes]]
POINTS = 20
SMALL = BuildSettings(shard_bytes=1 << 16)
SLOW_BUILD = """
import sys, time
from pathlib import Path
from seqdata.sources.folder.reader import FolderSource

whole = FolderSource.read

def slow(self, source):
    time.sleep(0.004)
    return whole(self, source)

FolderSource.read = slow  # worker processes import this file too

if __name__ == "__main__":
    from seqdata import protocols
    from seqdata.build.builder import BuildRequest, build
    from seqdata.contracts.manifest import BuildSettings

    settings = BuildSettings(shard_bytes=1 << 16)
    own = protocols.load("own")
    build(BuildRequest("folder", Path(sys.argv[1]), sys.argv[2], settings=settings, protocol=own, workers=2))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the workers")
def test_twenty_kills_each_resumed_to_the_same_bytes(tmp_path: Path, files_of: Files) -> None:
    raw = write_drives(tmp_path / "raw", {"map": 120, "map-b": 50, "query": 70})
    build(request(raw, tmp_path / "whole"))
    unbroken = files_of(tmp_path / "whole")
    shards = sum(name.endswith(".tar") for name in unbroken)
    script = tmp_path / "slow_build.py"
    script.write_text(SLOW_BUILD)
    chance = random.Random(20)
    outs = [tmp_path / f"killed-{point}" for point in range(POINTS)]

    def kill(out: Path, sealed: int, delay: float) -> int:
        command = [sys.executable, str(script), str(raw), str(out)]
        _kill_in_mid_build(command, out, sealed, delay, out in outs[::2])
        assert not (out / "manifest.json").exists(), "the kill came too late to prove anything"
        return len(list((out / "shards").glob("part-*.parquet")))

    with ThreadPoolExecutor(2) as pool:  # imports are most of a build this small
        after = [chance.randrange(shards - 2) for _ in outs]
        met = list(pool.map(kill, outs, after, [chance.uniform(0.0, 0.05) for _ in outs]))
    for out in outs:
        build(request(raw, out))
        assert files_of(out) == unbroken
    assert max(met) < shards
    assert len(set(met)) >= 3, f"the kills came at different points: {met} of {shards} shards were sealed"


def request(raw: Path, out: Path) -> BuildRequest:
    return BuildRequest("folder", raw, out, settings=SMALL, protocol=protocols.load("own"))


def _kill_in_mid_build(command: list[str], out: Path, sealed: int, delay: float, whole_group: bool) -> None:
    """Kill the build `delay` seconds after it began a shard and sealed `sealed`: the whole group, or the parent alone.

    Points are told by what is sealed, not by the clock, so that they differ on a busy machine too.
    """
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": root})
    shards = out / "shards"
    while not (shards.is_dir() and any(shards.iterdir()) and len(list(shards.glob("part-*.parquet"))) >= sealed):
        assert process.poll() is None, "the build ended before it began"
        time.sleep(0.002)
    time.sleep(delay)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while _alive(process.pid):
        assert time.monotonic() < deadline, "a worker outlived the build"
        time.sleep(0.01)


def _alive(group: int) -> list[int]:
    """Processes of a group that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found

"""The plan of array jobs: the dump is listed once, a job reads its own records, and the bytes are those of a build."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from seqdata import protocols
from seqdata.build import builder
from seqdata.build.builder import BuildRequest, ShardRange, build, build_range, merge, write_plan
from seqdata.build.plan import RECORDS_NAME, read_plan, stored_work
from seqdata.contracts.manifest import BuildSettings
from seqdata.errors import ContractError, OutputError
from seqdata.storage.store import Store
from tests.conftest import write_drives
from tests.support.killing import killed_at

Files = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    """Two drives in several shards, one of them cut with a halo; one frame is left out by the listing."""
    raw = write_drives(tmp_path / "raw", {"map": 120, "query": 30}, step=0.9)
    (raw / "map-011.jpg").write_bytes(b"")
    return BuildRequest(
        "folder", raw, tmp_path / "out", settings=BuildSettings(shard_bytes=1 << 16), protocol=protocols.load("own")
    )


def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, listing the dump is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("the dump was listed again")

    monkeypatch.setattr(builder, "read_listing", refuse)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("first", ["plan", "job"])
def test_jobs_list_the_dump_once_and_end_in_the_bytes_of_one_build(
    first: str, drop: bool, request_: BuildRequest, tmp_path: Path, files_of: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_, settings=request_.settings.model_copy(update={"drop": drop}))
    build(replace(request, out=tmp_path / "whole"))
    if first == "plan":
        assert len(write_plan(request).shards) > (1 if drop else 2)
        assert not list((tmp_path / "out" / "shards").iterdir())
    else:
        build_range(request, ShardRange(1, 3))
    unlisted(monkeypatch)
    for number in (1, 2, 3):
        build_range(request, ShardRange(number, 3))
    merge(request.out)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_row_group_holds_the_records_of_a_shard_with_its_halo(request_: BuildRequest) -> None:
    plan = write_plan(request_)
    store = Store(request_.out)
    work = stored_work(store, request_)
    assert work is not None
    footer = pq.read_metadata(store.path(RECORDS_NAME))
    assert footer.num_row_groups == len(plan.shards)
    assert any(shard.halo for shard in plan.shards)
    for number, shard in enumerate(plan.shards):
        rows = work.rows(shard)
        assert footer.row_group(number).num_rows == rows.height == shard.stop - shard.start + shard.halo
    assert write_plan(request_) == plan, "planned again, it stays"
    assert read_plan(store) == work.plan


def test_a_plan_of_another_request_is_not_taken(request_: BuildRequest, tmp_path: Path) -> None:
    write_plan(request_)
    store = Store(request_.out)
    others = [
        replace(request_, raw=write_drives(tmp_path / "other", {"map": 9})),
        replace(request_, settings=BuildSettings()),
        replace(request_, protocol=None),
        replace(request_, options={"pose_gap": "3"}),
    ]
    assert stored_work(store, request_) is not None
    assert [stored_work(store, other) for other in others] == [None] * 4
    with pytest.raises(OutputError, match="another dump or with other settings"):
        build_range(others[0], ShardRange(1, 2))


def test_damaged_records_are_named(request_: BuildRequest) -> None:
    write_plan(request_)
    path = Store(request_.out).path(RECORDS_NAME)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContractError, match=r"plan-records\.parquet: its bytes have changed"):
        build_range(request_, ShardRange(1, 2))
    path.unlink()
    assert build_range(request_, ShardRange(1, 1)) > 2, "without records the dump is listed"


PROGRAM = """
from seqdata import protocols
from seqdata.build.builder import BuildRequest, write_plan
from seqdata.contracts.manifest import BuildSettings

settings, protocol = BuildSettings(shard_bytes=1 << 16), protocols.load("own")
write_plan(BuildRequest("folder", Path(sys.argv[1]), Path(sys.argv[2]), settings=settings, protocol=protocol))
"""


def test_a_killed_plan_is_written_again(request_: BuildRequest, tmp_path: Path, files_of: Files) -> None:
    build(replace(request_, out=tmp_path / "whole"))
    script = killed_at("build.plan", "json_bytes", 1, PROGRAM)
    command = [sys.executable, "-c", script, str(request_.raw), str(request_.out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert read_plan(Store(request_.out)) is None
    write_plan(request_)
    build_range(request_, ShardRange(1, 1))
    merge(request_.out)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_plain_build_goes_on_from_a_plan(request_: BuildRequest, tmp_path: Path, files_of: Files) -> None:
    build(replace(request_, out=tmp_path / "whole"))
    write_plan(request_)
    build(request_)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")

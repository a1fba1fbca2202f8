"""Every command of the program under faults, in the reduced form; `make faults` runs the same at length."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from signal import SIGTERM

import pytest

import seqdata
from tests.faults import remote
from tests.faults.commands import TRIALS, Trial, content, prepare, verbs
from tests.faults.hostile import hostile
from tests.faults.mounts import can_mount
from tests.faults.shim import Program, has_compiler
from tests.faults.strangers import EVIL, RAN, strangers
from tests.faults.trials import Result, Workshop

pytestmark = pytest.mark.skipif(not has_compiler(), reason="faults in system calls need a C compiler (cc)")

QUICK = [pytest.param(trial, id=trial.verb) for trial in TRIALS if not trial.is_slow]
WRITERS = [pytest.param(trial, id=trial.verb) for trial in TRIALS if trial.output]
QUICK_WRITERS = [pytest.param(trial, id=trial.verb) for trial in TRIALS if trial.output and not trial.is_slow]
READERS = [pytest.param(trial, id=trial.verb) for trial in TRIALS if trial.inputs and not trial.is_slow]
OVER_HTTP = [
    pytest.param(trial, id=trial.verb) for trial in TRIALS if remote.reads_datasets(trial) and not trial.is_slow
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "scratch").mkdir()
    # The test processes share one folder: preparing it takes longer than any test.
    session = tmp_path_factory.getbasetemp()
    base = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "faults-base"
    base.mkdir(exist_ok=True)
    with Program(folder / "scratch") as program:
        with (base / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (base / "ready").is_file():
                (base / "folder").mkdir()
                prepare(program, base / "folder")
                (base / "ready").touch()
        yield Workshop(program, base / "folder", folder)


def assert_right(results: Iterable[Result]) -> None:
    for result in results:
        assert result.is_right, f"{result.verb}: {result.story}"


def test_every_command_has_a_trial() -> None:
    assert {trial.verb for trial in TRIALS} == verbs(), "a new command needs a trial in tests/faults/commands.py"


@pytest.mark.parametrize("trial", QUICK_WRITERS)
def test_a_killed_command_goes_on_to_the_same_files(trial: Trial, workshop: Workshop) -> None:
    assert_right(workshop.kills(trial, 1, seed=2))


@pytest.mark.parametrize("trial", QUICK)
def test_failing_reads_are_said_and_pass(trial: Trial, workshop: Workshop) -> None:
    assert_right(workshop.reads(trial, 1, seed=2))


@pytest.mark.parametrize("trial", WRITERS)
def test_a_full_disk_is_one_line(trial: Trial, workshop: Workshop) -> None:
    assert_right(workshop.disks(trial, (2000,), is_reduced=True))


@pytest.mark.parametrize("trial", READERS)
def test_a_flipped_bit_changes_no_result_without_a_word(trial: Trial, workshop: Workshop) -> None:
    assert_right(workshop.flips(trial, 1, seed=2))


@pytest.mark.skipif(not can_mount(), reason="a real full disk needs the right to mount one; `make faults` as root")
# Of these each command is put to some: `make faults` puts it to all, and the whole form here shall take two minutes.
@pytest.mark.parametrize("trial", QUICK_WRITERS[::3])
def test_a_disk_that_is_full_in_earnest_is_one_line(trial: Trial, workshop: Workshop) -> None:
    assert_right(workshop.small_disks(trial, (8192,)))


@pytest.mark.parametrize("trial", READERS)
def test_hostile_files_end_in_an_answer_or_a_line(trial: Trial, workshop: Workshop) -> None:
    assert_right(hostile(workshop, trial, 1, seed=2))


@pytest.mark.parametrize("trial", READERS[::2])
def test_no_code_of_a_stranger_runs(trial: Trial, workshop: Workshop) -> None:
    assert_right(strangers(workshop, trial, 1, seed=2))


@pytest.mark.parametrize("name", ["index build", "index append", "describe", "export", "eval"])
def test_nothing_is_published_of_damaged_frames_and_all_after_the_repair(name: str, workshop: Workshop) -> None:
    trial = [trial for trial in TRIALS if trial.verb == name][-1]
    dataset = "grown" if "grown" in trial.arguments else "ds"
    folder = workshop.copy()
    frames = seqdata.open(folder / dataset).frame_columns("shard", "offset", "length")
    whole = {}
    for shard, rows in frames.group_by("shard"):
        tar = folder / dataset / f"shards/part-{shard[0]:06d}.tar"
        whole[tar] = data = tar.read_bytes()
        damaged = bytearray(data)
        for _, offset, length in rows.iter_rows():
            damaged[offset + length - 40] ^= 1  # in the pixels, near the end: it still decodes
        tar.write_bytes(damaged)
    ended = workshop.program.run(list(trial.arguments), folder)
    assert ended.is_clean
    assert ended.code == 4, ended.errors
    last_line = ended.errors.splitlines()[-1]
    assert last_line.startswith("error: frame ")
    assert "is damaged (its bytes do not match the stored hash)" in last_line
    after = content(folder)
    published = ("manifest.json", "export.json", "recall.json", "latest")
    new = [file for file in after if file.endswith(published) and not (workshop.base / file).exists()]
    assert not [file for file in new if ".partial/" not in file]
    for tar, data in whole.items():
        tar.write_bytes(data)
    ended = workshop.program.run(list(trial.arguments), folder)
    assert ended.code == 0, ended.errors
    assert content(folder) == workshop.clean(trial).files


def test_code_runs_where_the_user_names_it(workshop: Workshop) -> None:
    """The plants are live: named on the command line, the module does run."""
    folder = workshop.copy()
    (folder / "evil.py").write_text(EVIL)
    workshop.program.run(["models", "show", "--model-from", "evil:make"], folder, PYTHONPATH=str(folder))
    assert (folder / RAN).exists()


@pytest.mark.parametrize("trial", OVER_HTTP[::2])
def test_a_server_that_stumbles_changes_no_result(trial: Trial, workshop: Workshop) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install 'aiohttp>=3.9')")
    assert_right(remote.http(workshop, trial, 1, seed=2))


@pytest.mark.parametrize("name", ["info", "build", "append"])
def test_a_store_that_stumbles_changes_no_result(name: str, workshop: Workshop) -> None:
    trial = next(trial for trial in TRIALS if trial.verb == name)
    with remote.bucket(workshop) as (proxy, url):
        assert_right(remote.s3(workshop, trial, proxy, url, 2, seed=2))
        assert_right(remote.s3_writes(workshop, trial, proxy, url, 2, seed=2))


@pytest.mark.parametrize("name", ["build", "append", "describe", "train", "index build"])
def test_sigterm_is_said_and_the_command_goes_on(name: str, workshop: Workshop) -> None:
    trial = next(trial for trial in TRIALS if trial.verb == name)
    assert_right(workshop.kills(trial, 1, 3, SIGTERM))

"""What every command has in common: groups of the help, version, quiet, log file, errors as JSON, lines of progress."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import seqdata
from cli import output
from cli.main import app
from cli.program.groups import load_command
from cli.program.parameters import PANELS
from cli.program.registry import COMMANDS, GROUPS, INDEX_COMMANDS, Command
from seqdata.parallel.steps import step
from tests.cli.test_commands import SEQDATA, here
from tests.conftest import write_drives

ROOT = Path(__file__).resolve().parents[3]


def test_the_help_lists_every_command_in_its_group_in_whole_lines() -> None:
    text = CliRunner().invoke(app, ["-h"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout
    titles = [line[:-1] for line in text.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    assert [title for title in titles if title in GROUPS] == [title for title in GROUPS if title in titles]
    assert "More" not in titles
    for name, command in COMMANDS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith(command.help)
        assert len(line) <= 80


def test_the_groups_hold_every_command_and_no_other() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted([*COMMANDS, "index"])


def test_the_version_is_the_modules_and_the_projects() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"seqdata {seqdata.__version__}\n"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{seqdata.__version__}"' in project or 'path = "seqdata/contracts/version.py"' in project


def test_another_distribution_of_our_name_does_not_change_a_manifest(tmp_path: Path) -> None:
    foreign = tmp_path / "seqdata-99.0.dist-info"
    foreign.mkdir()
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: seqdata\nVersion: 99.0\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.insert(1, {str(ROOT)!r})\n"
        "from importlib.metadata import version\n"
        "from seqdata.contracts.manifest import tool_versions\n"
        "from indexer.versions.manifest import library_versions\n"
        "print(version('seqdata'), tool_versions()['seqdata'], library_versions()['seqdata'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.split() == ["99.0", seqdata.__version__, seqdata.__version__]


def test_quiet_log_file_and_the_end_of_a_command(tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 12, "query": 10})
    loud = here(tmp_path, "build", "folder", "raw", "--log-file", "log.txt")
    assert re.search(r"^took \d+\.\d s; next: seqdata index --model seqvlad-mobilenetv2$", loud.stderr, re.MULTILINE)
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in log] == loud.stderr.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in log)
    quiet = here(tmp_path, "build", "folder", "raw", "-q", "--out", "other")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "22 frames" in quiet.stdout
    assert here(tmp_path, "info", "absent", "--quiet").stderr.startswith("error: absent")


def test_errors_are_json_under_json_and_have_a_traceback_under_debug(tmp_path: Path) -> None:
    ended = here(tmp_path, "info", "absent", "--json")
    assert json.loads(ended.stderr)["error"] == {
        "kind": "InputError",
        "exit_code": 3,
        "message": "absent: no dataset here (no manifest.json); name a folder that seqdata build wrote",
    }
    assert ended.stdout == ""
    assert "Traceback" in here(tmp_path, "info", "absent", "--debug").stderr


def test_a_log_gets_a_line_of_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with output.progress_bar("frame") as bar:
        for second in range(13):
            clock[0] = float(second)
            bar.update("build", 10 * second, 200)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "build: 20 of 200 frames (10%), 10 a second, 18 s left",
        "build: 70 of 200 frames (35%), 10 a second, 13 s left",
        "build: 120 of 200 frames (60%), 10 a second, 8 s left",
    ]


def test_the_doctor_reports_versions_rates_limits_and_damage(tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 12})
    assert here(tmp_path, "build", "folder", "raw").returncode == 0
    report = json.loads(here(tmp_path, "doctor", "--json").stdout)
    assert report["seqdata"] == seqdata.__version__
    assert report["packages"]["polars"]
    assert report["decoder"]["frames_a_second"] > 0
    assert (report["dataset"]["shards_checked"], report["dataset"]["damaged"]) == (1, [])
    (shard,) = (tmp_path / "datasets" / "raw" / "shards").glob("*.tar")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    text = here(tmp_path, "doctor").stdout
    assert f"damaged ['{shard.name}']" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "command"),
    [*COMMANDS.items(), *((f"index {name}", command) for name, command in INDEX_COMMANDS.items())],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_example_of_a_command_is_in_its_help_and_its_words_are_options(name: str, command: Command) -> None:
    text = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"}).stdout
    assert f"Example: {command.example}" in text
    assert command.example.startswith(f"seqdata {name.removesuffix(' build') if ' ' in name else name}")
    assert all(flag in text for flag in re.findall(r" (--?[a-z]+)", command.example))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_every_shell(shell: str) -> None:
    ended = subprocess.run(
        [SEQDATA, "--show-completion", shell],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "_SEQDATA_COMPLETE" in ended.stdout


def test_a_log_that_cannot_be_written_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 12, "query": 8})
    absent = here(tmp_path, "build", "folder", "raw", "--log-file", "absent/log.txt")
    assert (absent.returncode, absent.stderr.count("\n")) == (5, 1)
    assert "absent/log.txt: cannot be written" in absent.stderr
    assert not (tmp_path / "datasets").exists()
    full = here(tmp_path, "build", "folder", "raw", "--log-file", "/dev/full")
    assert full.returncode == 0, full.stderr
    assert full.stderr.count("/dev/full") == 1
    assert "/dev/full: nothing more is written there (No space left on device)" in full.stderr


def test_a_step_without_counts_has_a_clock_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with output.progress_bar("frame") as bar, step("list the dump"):
        clock[0] = 2.0
        bar.hear("list the dump", 0, 0, "item")  # as the clock's thread does once a second
        clock[0] = 65.0
        bar.hear("list the dump", 0, 0, "item")
    assert capsys.readouterr().err.splitlines() == ["list the dump: 2 s so far", "list the dump: 1:05 min so far"]


def test_every_long_step_of_a_road_is_announced(tmp_path: Path) -> None:
    """Listing, sealing, tables, PCA, search and page: whoever listens hears of each."""
    write_drives(tmp_path / "raw", {"map": 24, "query": 20})
    steps: dict[str, tuple[int, int]] = {}

    def hear(name: str, count: int, total: int, unit: str) -> None:
        if count >= 0:
            steps[name] = (count, total)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(output.Bar, "hear", lambda bar, *event: hear(*event))
    try:
        for words in (
            ("build", "folder", "raw"),
            ("train", "--model", "mean-small", "--random-init", "--epochs", "0", "--option", "cut=layer1"),
            ("index", "--pca", "4"),
            ("eval",),
            ("report",),
        ):
            assert here(tmp_path, *words).returncode == 0
    finally:
        monkeypatch.undo()
    assert steps["seal part-000000.tar"] == (44, 44)
    assert {"list the dump", "write tables and windows", "fit the PCA", "search", "write the page"} <= steps.keys()


def all_parameters() -> list[tuple[str, Any]]:
    """Every parameter of every command."""
    commands = {**COMMANDS, **{f"index {name}": command for name, command in INDEX_COMMANDS.items()}}
    loaded = {name: load_command(name, command) for name, command in commands.items()}
    return [(name, item) for name, one in loaded.items() for item in one.get_params(typer.Context(one, info_name=name))]


def test_every_parameter_has_a_word_for_its_value_and_a_panel() -> None:
    parameters = all_parameters()
    assert len(parameters) > 500
    bare = [f"{name} {item.name}" for name, item in parameters if not (getattr(item, "is_flag", False) or item.metavar)]
    assert not bare
    titles = {getattr(item, "rich_help_panel", None) for _, item in parameters}
    assert titles == {None, "Options", "Input", "Output", "Advanced", "Common"}
    # A default is said in one way: behind the help, in brackets.
    assert not [f"{name} {item.name}" for name, item in parameters if "default:" in (item.help or "").lower()]


def test_the_table_of_parameters_names_no_other() -> None:
    assert {name for names in PANELS.values() for name in names} <= {item.name for _, item in all_parameters()}


def test_a_terminal_gets_a_bar_a_step_and_no_rest_of_it(tmp_path: Path) -> None:
    write_drives(tmp_path / "raw", {"map": 60, "query": 60})
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [SEQDATA, "build", "folder", "raw", "--check", "decode"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        seen = b""
        # At the end of the process reading fails: the other side of the terminal is closed.
        with contextlib.suppress(OSError):
            while block := os.read(leader, 65536):
                seen += block
    os.close(leader)
    text = seen.decode()
    assert process.returncode == 0, text
    assert "seal part-000000.tar: " in text
    assert not re.search(r"-\d+(\.\d+)?frame/s", text)
    # What a screen shows of a line is what follows the last return to its beginning.
    shown = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    assert not [line for line in shown if "frame/s" in line or "item/s" in line]
    assert shown[0].startswith("datasets/raw: 120 frames")

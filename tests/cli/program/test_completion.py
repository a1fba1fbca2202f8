"""What the shells complete, through the protocol in which each of them asks the program."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.program import completion
from tests.cli.test_commands import SEQDATA, here
from tests.conftest import write_drives

SHELLS = ("bash", "zsh", "fish")
ASKED = [
    ("seqdata pre", {"preview"}),
    ("seqdata index ver", {"verify"}),
    ("seqdata info ", {"datasets/raw"}),
    ("seqdata eval --dataset datasets/", {"datasets/raw"}),
    ("seqdata eval ", {"indexes/mean"}),
    ("seqdata index --run ", {"runs/mean"}),
    ("seqdata build msls raw --protocol msls-st", {"msls-sta"}),
    ("seqdata train --protocol ./", set()),
    ("seqdata train --model mean-sm", {"mean-small"}),
    ("seqdata train --recipe sta-", {"sta-triplet", "sta-seqvlad"}),
    ("seqdata build rob", {"robotcar"}),
    ("seqdata build robotcar raw --pose ", {"rtk", "ins", "gps"}),
    ("seqdata build msls raw --check d", {"decode"}),
    ("seqdata build msls raw --keep", {"--keep-png"}),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a dataset, and what looks like a run and an index."""
    folder = tmp_path_factory.mktemp("work")
    write_drives(folder / "raw", {"map": 12})
    assert here(folder, "build", "folder", "raw").returncode == 0
    (folder / "runs" / "mean").mkdir(parents=True)
    (folder / "runs" / "mean" / "run.json").write_text("{}")
    (folder / "indexes" / "mean").mkdir(parents=True)
    (folder / "indexes" / "mean" / "latest").write_text("0")
    return folder


def completed(shell: str, line: str, folder: Path) -> set[str]:
    """The words that the program gives a shell which completes a line."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    environment = {**os.environ, **asked, "_SEQDATA_COMPLETE": f"complete_{shell}"}
    ended = subprocess.run([SEQDATA], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    text = ended.stdout
    if shell == "zsh":
        # _arguments '*: :(("word":"help" "word"))', a pair on each line, or _files where nothing fits.
        if text.strip() == "_files":
            return set()
        text = text.strip().removeprefix("_arguments '*: :((").removesuffix("))'")
        return {row.split('"')[1] for row in text.splitlines()}
    return {row.split("\t")[0] for row in text.splitlines() if row}


@pytest.mark.parametrize(("line", "words"), ASKED, ids=lambda value: value if isinstance(value, str) else "")
def test_bash_completes_names_of_the_work_folder(line: str, words: set[str], work: Path) -> None:
    assert completed("bash", line, work) == words


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize("number", [2, 6, 11])
def test_the_other_shells_get_the_same(shell: str, number: int, work: Path) -> None:
    line, words = ASKED[number]
    assert completed(shell, line, work) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_the_shell_reads(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ended = subprocess.run(
        [SEQDATA, "--show-completion", shell], env=environment, capture_output=True, text=True, check=True
    )
    (tmp_path / "script").write_text(ended.stdout)
    checked = subprocess.run([program, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_itself_completes(work: Path) -> None:
    """The script in a real bash, as a person presses the tabulator."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed here")
    script = (
        f"PATH={Path(SEQDATA).parent}:$PATH\n"
        'eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 seqdata --show-completion bash)"\n'
        "COMP_WORDS=(seqdata info '') COMP_CWORD=2\n"
        "_seqdata_completion seqdata\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    ended = subprocess.run([bash, "--norc", "-c", script], cwd=work, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["datasets/raw"], ended.stderr


def test_fish_itself_completes(work: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed here")
    script = (
        f"set -x PATH {Path(SEQDATA).parent} $PATH\n"
        "set -x _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION 1\n"
        "seqdata --show-completion fish | source\n"
        'complete -C "seqdata info "\n'
    )
    ended = subprocess.run([fish, "--no-config", "-c", script], cwd=work, capture_output=True, text=True, check=False)
    assert "datasets/raw" in ended.stdout.split(), ended.stderr


def test_a_broken_settings_file_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seqdata.toml").write_text("out = [")
    monkeypatch.chdir(tmp_path)
    complete = completion.completer("DATASET")
    assert complete is not None
    assert complete("") == []

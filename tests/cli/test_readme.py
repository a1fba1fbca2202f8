"""The README's command blocks, run as written in an empty folder, and its promises about make."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAM = Path(sys.executable).with_name("seqdata")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_block_runs_as_written(tmp_path: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("seqdata ")]
    assert len(commands) == 13
    for command in commands:
        ended = subprocess.run(
            [str(PROGRAM), *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        wanted = 6 if command.startswith("seqdata build") else 0
        assert ended.returncode == wanted, f"{command}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
    assert list(tmp_path.glob("reports/*.html"))
    for code in blocks("python"):
        ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{code}\n{ended.stderr}"


def test_every_make_verb_of_the_readme_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"\bmake (\w+)", README)) - {"help"}
    assert {"demo", "test"} <= verbs
    assert all(re.search(rf"^{verb}:", makefile, flags=re.MULTILINE) for verb in verbs)


def test_every_linked_file_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)

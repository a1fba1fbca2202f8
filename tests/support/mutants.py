"""Put wrong code into the modules that decide numbers or bytes, and count the tests that notice: `make mutants`.

Cosmic Ray makes the mutants, one changed operator, number or keyword each, in a copy of the tree. `mutants.toml`
beside this file names the modules, the tests of each, and the survivors that are accepted, with their reasons.

The tests of a mutant run in a fork of this process, which has imported the heavy libraries and nothing of ours: a
mutant costs its tests and not four seconds of imports.
"""

import argparse
import compileall
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.95
HEAVY = ("torch", "timm", "polars", "pyarrow.parquet", "faiss", "PIL.Image", "pytest", "scipy.spatial", "utm")
TIMEOUT = 120.0  # seconds a mutant may take: some never end, and they count as killed
# Of the eleven operators that may replace one, the nearest says enough: < becomes <=, + becomes -. Annotations such as
# `int | None`, decorators and exception classes are left alone, as they decide no number.
OPERATORS = re.compile(
    r"core/(NumberReplacer|AddNot|Replace(And|Or)With(Or|And)|Replace(True|False)With(False|True)|ZeroIterationForLoop"
    r"|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ReplaceUnaryOperator_(Delete_Not|USub_UAdd)"
    r"|ReplaceComparisonOperator_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|BitAnd_BitOr))"
)


@dataclass(frozen=True)
class Accepted:
    """Survivors that are accepted: why they change nothing that counts, and which they are.

    `code` is a regular expression that matches within the line, `module` a path or "*", `operator` a part of its name.
    """

    reason: str
    code: str
    module: str = "*"
    operator: str = ""

    def covers(self, module: str, line: str, operator: str) -> bool:
        """Whether a mutant of this line is accepted."""
        return self.module in ("*", module) and self.operator in operator and re.search(self.code, line) is not None


@dataclass
class Tally:
    """Counts of mutants, and the survivors that nobody accepted, a line each."""

    killed: int = 0
    accepted: int = 0
    left: int = 0
    survivors: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Mutants that were run or are accepted."""
        return self.killed + self.accepted + len(self.survivors)


def read_list() -> tuple[dict[str, list[str]], list[Accepted]]:
    """Read the test files of each module, and the accepted survivors."""
    listed: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return listed["modules"], [Accepted(**entry) for entry in listed.get("accepted", [])]


def changed_lines(base: str, module: str) -> set[int]:
    """List the numbers of a module's lines that differ from a commit."""
    text = _git("diff", "-U0", base, "--", module)
    spans = re.findall(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", text, re.MULTILINE)
    return {int(first) + offset for first, count in spans for offset in range(int(count or 1))}


def base_commit() -> str | None:
    """Name the commit that changes count from: `origin/main`, or the commit before where that is this one."""
    head = _git("rev-parse", "HEAD")
    commits = (_git("rev-parse", "--verify", "--quiet", name) for name in ("origin/main", "HEAD~1"))
    return next((commit for commit in commits if commit not in ("", head)), None)


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else ""


def copy_tree(target: Path) -> None:
    """Copy what git tracks or would track, so that no mutant ever stands in the working tree."""
    for name in _git("ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
            os.utime(target / name, (0, 0))  # so that no mutant is as old as the compiled form of what it replaces


def mutations_of(module: str, lines: set[int] | None) -> Iterator["MutationSpec"]:
    """List a module's mutants, of some lines or of all; constants of docstrings and annotations are none."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(":memory:", WorkDB.Mode.create) as work:
        init([Path(module)], work, {})
        for item in work.work_items:
            mutation = item.mutations[0]
            if OPERATORS.match(mutation.operator_name) and (lines is None or mutation.start_pos[0] in lines):
                yield mutation


def try_module(
    module: str, tests: list[str], mutations: list["MutationSpec"], accepted: list[Accepted], end: float
) -> Tally:
    """Run the tests of a module against its mutants until the clock shows `end`."""
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    tally, source = Tally(), Path(module).read_text().splitlines()
    for mutation in mutations:
        line, operator = source[mutation.start_pos[0] - 1], mutation.operator_name.removeprefix("core/")
        if any(entry.covers(module, line, operator) for entry in accepted):
            tally.accepted += 1
            continue
        if time.monotonic() > end:
            tally.left += 1
            continue
        make = get_operator(mutation.operator_name)(**mutation.operator_args)
        with use_mutation(mutation.module_path, make, mutation.occurrence) as (_, mutated):
            if not tests_pass(tests):
                tally.killed += 1
                continue
        changed = mutated.splitlines()[mutation.start_pos[0] - 1]
        tally.survivors.append(
            f"{module}:{mutation.start_pos[0]} {operator}\n    - {line.strip()}\n    + {changed.strip()}"
        )
    return tally


def tests_pass(tests: list[str]) -> bool:
    """Run test files in a fork until one fails, for `TIMEOUT` seconds at most."""
    child = os.fork()
    if child == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        code = 1
        try:
            import pytest

            code = int(pytest.main(["-x", "-q", "-n", "0", "--no-header", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(code)
    end = time.monotonic() + TIMEOUT
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1]) == 0


def main() -> int:
    """Run the mutants that the command line names; 1 when fewer than the goal are killed or accepted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of mutants.toml (default: all)")
    parser.add_argument(
        "--changed", nargs="?", const="", metavar="BASE", help="mutate lines that differ from BASE only"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long and count what is left")
    parser.add_argument("--sample", type=int, help="so many mutants a module, drawn with a fixed seed")
    options = parser.parse_args()
    try:
        import cosmic_ray  # noqa: F401
    except ImportError:
        print("mutants: skipped, cosmic-ray is not installed (pip install cosmic-ray)")
        return 0
    modules, accepted = read_list()
    lines: dict[str, set[int] | None] = dict.fromkeys(options.modules or modules)
    if options.changed is not None:
        base = options.changed or base_commit()
        lines = {module: numbers for module in lines if base and (numbers := changed_lines(base, module))}
        if not lines:
            print(f"mutants: skipped, no line of the listed modules differs from {base or 'an earlier commit'}")
            return 0
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        os.environ["PYTHONPATH"] = folder  # the copy before the installed checkout, in child processes too
        sys.path.insert(0, folder)
        compileall.compile_dir(folder, quiet=1)
        sys.dont_write_bytecode = True
        for name in HEAVY:
            importlib.import_module(name)
        tallies, failing = [], 0
        for module, numbers in lines.items():
            mutations = list(mutations_of(module, numbers))
            if options.sample is not None and options.sample < len(mutations):
                mutations = random.Random(0).sample(mutations, options.sample)
            if mutations and not tests_pass(modules[module]):
                print(f"{module}: its tests fail without a mutant", flush=True)
                failing += 1
                continue
            tally = try_module(module, modules[module], mutations, accepted, end)
            tallies.append(tally)
            print(
                f"{module}: {tally.killed} of {tally.tried} killed, {tally.accepted} accepted, {tally.left} not tried"
            )
            print("".join(f"  {survivor}\n" for survivor in tally.survivors), end="", flush=True)
        os.chdir(ROOT)
    tried, survivors = sum(tally.tried for tally in tallies), sum(len(tally.survivors) for tally in tallies)
    left = sum(tally.left for tally in tallies)
    print(f"mutants: {tried - survivors} of {tried} killed or accepted, {left} not tried for want of time")
    return 0 if not failing and survivors <= (1 - GOAL) * tried else 1


if __name__ == "__main__":
    sys.exit(main())

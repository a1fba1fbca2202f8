"""Faults put on one command: kills, failing reads, a full disk, flipped bits; each in a fresh copy of the same folder.

A check yields a `Result` for every fault that it put: whether the command did what is promised, and what it did if not.
"""

import errno
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.commands import TRIALS, Trial, assert_ends, content
from tests.faults.mounts import small_disk
from tests.faults.shim import Fault, Outcome, Program, killing

ENDINGS = range(10)
"""Exit codes that docs/errors.md lists for a command that ended by itself, less 1, a defect of ours."""


@dataclass(frozen=True)
class Result:
    """What one fault came to.

    Attributes:
        kind: Kind of fault: kills, reads, disks, mounts, flips, hostile, strangers, http or s3.
        verb: The command.
        is_right: Whether the promise was kept.
        story: What was done and what happened.
        is_noticed: Whether the command met the fault and said so; one that it did not meet proves little.
    """

    kind: str
    verb: str
    is_right: bool
    story: str
    is_noticed: bool = True


@dataclass(frozen=True)
class State:
    """How a command ended, and the files that it left."""

    outcome: Outcome
    files: dict[str, str]


@dataclass
class Workshop:
    """Runs trials in copies of a folder.

    Attributes:
        program: The program.
        base: The folder, see `tests.faults.commands.prepare`.
        scratch: Where copies are made.
        trials: The commands.
    """

    program: Program
    base: Path
    scratch: Path
    trials: tuple[Trial, ...] = TRIALS
    _clean: dict[Trial, State] = field(default_factory=dict)

    def copy(self) -> Path:
        """A fresh copy of the folder."""
        folder = self.scratch / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        return folder

    def clean(self, trial: Trial) -> State:
        """How the command ends without a fault; `faults` counts the calls that change the disk."""
        if trial not in self._clean:
            folder = self.copy()
            outcome = self.program.run(list(trial.arguments), folder, killing(folder, 0))
            assert_ends(outcome, 0)
            self._clean[trial] = State(outcome, content(folder))
        return self._clean[trial]

    def kills(self, trial: Trial, count: int, seed: int, number: signal.Signals = signal.SIGKILL) -> Iterator[Result]:
        """End the command at chosen calls by a signal; the same command must then come to the same files."""
        clean = self.clean(trial)
        calls = range(1, clean.outcome.faults + 1)
        for at in sorted(random.Random(seed).sample(calls, min(count, len(calls)))):
            folder = self.copy()
            ended = self.program.run(list(trial.arguments), folder, killing(folder, at, number))
            story = f"{number.name} at call {at} of {len(calls)}: {ended.code}"
            expected = -9 if number == signal.SIGKILL else {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
            is_known = ended.code in (expected, 0) and not _noise(ended)
            yield self._again("kills", trial, folder, story, is_right=is_known)

    def reads(self, trial: Trial, count: int, seed: int, per_mille: int = 100) -> Iterator[Result]:
        """Let reads fail by chance; the command ends as ever or says so, and the same command then ends as ever."""
        clean = self.clean(trial)
        for number in range(count):
            folder = self.copy()
            code = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)[number % 3]
            fault = Fault(folder, "read", code=code, per_mille=per_mille, seed=seed + number)
            ended = self.program.run(list(trial.arguments), folder, fault)
            story = f"{ended.faults} reads failed with {errno.errorcode[code]}: {ended.code}"
            is_right = ended.code in ENDINGS and ended.is_clean
            if ended.code == 0 and trial.prints_figures:
                is_right = is_right and ended.output == clean.outcome.output
            yield self._again("reads", trial, folder, story, is_right=is_right, ended=ended)

    def disks(self, trial: Trial, sizes: tuple[int, ...], *, is_reduced: bool = False) -> Iterator[Result]:
        """Fill the disk after some bytes: one line and exit 5, and the same command then ends as ever."""
        if not trial.is_slow and self.clean(trial).outcome.faults == 0:
            return
        for size in sizes:
            folder = self.copy()
            ended = self.program.run(list(trial.arguments), folder, Fault(folder, "full", bytes=size))
            story = f"full after {size} bytes: {ended.code}"
            # What was measured is printed also where it cannot be stored, with a line that says so.
            is_said = "no space left" in ended.errors.lower() or not ended.faults
            is_right = ended.is_clean and ended.code in (0, 5, 6) and is_said
            if trial.is_slow and is_reduced:
                yield Result("disks", trial.verb, is_right, f"{story} {ended.errors[-300:]}", ended.faults > 0)
            else:
                yield self._again("disks", trial, folder, story, is_right=is_right, ended=ended)

    def small_disks(self, trial: Trial, sizes: tuple[int, ...]) -> Iterator[Result]:
        """As `disks`, on a real one (needs root): the folder lies on a tmpfs with so many bytes to spare."""
        if not self.clean(trial).outcome.faults:
            return
        for size in sizes:
            shutil.rmtree(self.scratch / "copy", ignore_errors=True)
            with small_disk(self.base, self.scratch / "copy", size) as disk:
                ended = self.program.run(list(trial.arguments), disk.folder)
                is_full = "no space left" in ended.errors.lower()
                is_right = ended.is_clean and (ended.code == self.clean(trial).outcome.code or is_full)
                disk.enlarge()
                story = f"{size} bytes to spare: {ended.code} {ended.errors.strip()[-300:]}"
                result = self._again("mounts", trial, disk.folder, story, is_right=is_right, ended=ended)
            yield replace(result, is_noticed=is_full)

    def flips(self, trial: Trial, count: int, seed: int) -> Iterator[Result]:
        """Flip one bit of an input: the command says so, or its result is that of whole inputs."""
        clean = self.clean(trial)
        names = sorted(
            {path.relative_to(self.base).as_posix() for glob in trial.inputs for path in self.base.glob(glob)}
        )
        chance = random.Random(seed)
        for name in chance.sample(names, min(count, len(names))):
            folder = self.copy()
            path = folder / name
            data = bytearray(path.read_bytes())
            bit = chance.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            ended = self.program.run(list(trial.arguments), folder)
            files = content(folder)
            is_same = _without(files, name) == _without(clean.files, name)
            if trial.prints_figures:
                is_same = is_same and ended.output == clean.outcome.output
            is_said = ended.code in ENDINGS and (ended.code != 0 or "damaged" in ended.errors)
            story = f"bit {bit} of {name}: {ended.code} {ended.errors.strip()[-200:]}"
            yield Result("flips", trial.verb, ended.is_clean and (is_said or is_same), story, is_said)

    def _again(
        self, kind: str, trial: Trial, folder: Path, story: str, *, is_right: bool, ended: Outcome | None = None
    ) -> Result:
        """Run the command again without a fault, unless it ended as ever, and compare with a run that met none."""
        clean = self.clean(trial)
        if not trial.goes_on:
            again = self.program.run(trial.resumed, folder)
            says_what_to_do = again.code == 5 and "--out" in again.errors
            is_right = is_right and again.is_clean and (again.code == clean.outcome.code or says_what_to_do)
            story += f"; again: {again.code} {again.errors.strip()[-300:]}"
            return Result(kind, trial.verb, is_right, story, ended is None or ended.faults > 0)
        is_finished = ended is not None and ended.code == clean.outcome.code and "no space left" not in ended.errors
        again = clean.outcome if is_finished else self.program.run(trial.resumed, folder)
        # A kill between the last rename and the end: the file is there, and is not overwritten.
        is_there = again.code in trial.codes_if_there
        files = content(folder)
        differing = sorted(
            name for name in files.keys() | clean.files.keys() if files.get(name) != clean.files.get(name)
        )
        if (again.code != clean.outcome.code and not is_there) or differing or not again.is_clean:
            is_right = False
            story += f"; again: {again.code} {again.errors.strip()[-300:]} differing: {differing[:6]}"
        if ended is not None:
            story += f" [{ended.errors.strip()[-300:]}]"
        return Result(kind, trial.verb, is_right, story, ended is None or ended.faults > 0)


def _without(files: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in files.items() if other != name}


def _noise(outcome: Outcome) -> bool:
    return outcome.code >= 0 and not outcome.is_clean and outcome.code not in (130, 143)

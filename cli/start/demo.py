"""`seqdata demo`: every step from raw dump to report on a synthetic city, by the commands that a user would type."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import JsonFlag, emit, note
from indexer.evaluation.recall import Evaluation
from indexer.evaluation.text_tables import format_table
from indexer.localizer.answer_text import answer_lines
from indexer.localizer.search import Answer
from seqdata.errors import OutputError, SeqdataError
from seqdata.storage.files import write_json_atomic

PCA = "256"
MODEL = "seqvlad-small"
RECIPE = "demo-city"
NEAR_METRES = 10.0
"""The positive radius of the city's protocol."""


def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything.")] = Path("demo"), as_json: JsonFlag = False
) -> None:
    """Run every step on a synthetic city.

    The commands are those that a user would type; `make demo` runs it.
    """
    summary, text = run_demo(out)
    emit(summary, text, as_json=as_json)
    note(f"\nreport: {out / summary['report']}\nfigures: {out / 'summary.json'}")


def run_demo(out: Path) -> tuple[dict[str, Any], str]:
    """Write the city, build, train, index, evaluate, search and report below `out`, and `out/summary.json`.

    Returns:
        The content of summary.json, and the same for people.

    Raises:
        OutputError: If `out` holds something.
        SeqdataError: If a step fails; its own message stands above.
    """
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out}: not empty; remove it, or choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    steps = _Steps(out.resolve())
    steps.run("synth", "synth", "raw")
    steps.run("init", "init", "--raw", "raw", "--out", ".", json_flag=False)
    # Exit code 6: like a real dump, the synthetic city holds inputs that a build leaves out.
    built = steps.run("build", "build", "msls", "--protocol", "raw/protocol.toml", allowed=(0, 6))
    untrained = steps.evaluated("untrained", "--epochs", "0")
    trained = steps.evaluated("trained")
    baseline = steps.run("baseline", "baseline", "--out", "baselines/frame")
    # Queries of the dataset and not of a folder: their positions are known, so the answer can be judged.
    search = steps.run("search", "search", "indexes/trained", "--dataset", "datasets/msls", "-k", "3")
    page = steps.run(
        "report", "report", "indexes/trained", "--compare", "indexes/untrained", "--compare", "baselines/frame"
    )
    summary = {
        "protocol": {"name": trained["protocol"], "hash": trained["protocol_hash"]},
        "trained": _figures(trained),
        "untrained": _figures(untrained),
        "baseline": _figures(baseline),
        "report": page["path"],
        "artefacts": steps.artefacts,
        "quarantined": built["quarantined"],
        "seconds": steps.seconds,
    }
    write_json_atomic(out / "summary.json", summary)
    table = format_table([Evaluation.model_validate(evaluation) for evaluation in (trained, untrained, baseline)])
    return summary, f"{table}\n\n{_search_text(search['answers'])}"


class _Steps:
    """Runs commands in the demo's folder, prints each as typed, and records its result and seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.artefacts: dict[str, str] = {}

    def run(
        self, stage: str, *arguments: str, allowed: tuple[int, ...] = (0,), json_flag: bool = True
    ) -> dict[str, Any]:
        """Run one command and return its JSON.

        Raises:
            SeqdataError: When it ends with a code not in `allowed`.
        """
        note(f"\n$ seqdata {' '.join(arguments)}")
        # A process of its own, by the installed program: the demo also shows that what the README types works.
        program = [str(Path(sys.executable).with_name("seqdata")), *arguments]
        started = time.monotonic()
        ended = subprocess.run(
            [*program, "--json"] if json_flag else program,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.seconds[stage] = round(time.monotonic() - started, 1)
        note(f"({self.seconds[stage]:.1f} s)")
        if ended.returncode not in allowed:
            raise SeqdataError(f"the demo stops: seqdata {arguments[0]} ended with exit code {ended.returncode}")
        result: dict[str, Any] = json.loads(ended.stdout) if json_flag else {}
        if "path" in result:
            self.artefacts[stage] = result["path"]
        return result

    def evaluated(self, name: str, *training: str) -> dict[str, Any]:
        """Train a model under `name`, index it and evaluate it."""
        run, index = f"runs/{name}", f"indexes/{name}"
        self.run(
            f"train {name}", "train", "--model", MODEL, "--recipe", RECIPE, "--random-init", "--out", run, *training
        )
        self.run(f"index {name}", "index", "--run", run, "--pca", PCA, "--out", index)
        return self.run(f"eval {name}", "eval", index)


def _figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation that the demo's page shows."""
    fields = ("method", "recall", "interval", "interval_method", "queries", "left_out", "database")
    return {name: evaluation[name] for name in fields}


def _search_text(answers: list[dict[str, Any]]) -> str:
    """How many nearest places lie near their query, and the places of the first query."""
    distances = [answer["places"][0]["metres"] for answer in answers]
    near = sum(distance is not None and distance < NEAR_METRES for distance in distances)
    first = Answer(**answers[0])
    return "\n".join([
        f"search: the nearest place lies within {NEAR_METRES:g} m (centre to centre) for {near} of {len(answers)} "
        "queries; the first one:",
        *answer_lines(first)[1:],
    ])  # fmt: skip

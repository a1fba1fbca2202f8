"""`--json` of every command, typed in one work folder, against its published schema in schemas/cli."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import torch

from cli.program.registry import COMMANDS, INDEX_COMMANDS
from tests.cli.test_commands import here
from tests.support import released_names as names
from tests.support.street import PROTOCOL, write_street

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas" / "cli"
TINY = ("--option", "encoder=resnet10t", "--option", "cut=layer1")
UNTRAINED = ("--model", "mean-small", "--random-init", *TINY)
DRIVE = tuple(f"raw/query-{number:03d}.jpg" for number in range(20, 26))
WALK: list[tuple[str, ...]] = [
    ("init", "--raw", "raw", "--out", "."),
    ("synth", "laps", "--kind", "robotcar", "--seconds", "10", "--width", "32", "--height", "24"),
    ("build", "folder", "--protocol", "halves.toml", "--dry-run"),
    ("build", "folder", "--protocol", "halves.toml"),
    ("build", "folder", "raw", "--cut", "0.6", "--buffer", "5", "--out", "datasets/cut"),
    ("build", "folder", "raw", "--shard-range", "1/1", "--out", "parts"),
    ("merge", "parts"),
    ("append", "parts", "folder", "raw"),
    ("withdraw", "parts", "map-003"),
    ("compact", "parts"),
    ("gc", "parts"),
    ("info", "datasets/raw"),
    ("preview", "datasets/raw"),
    ("verify", "datasets/raw"),
    ("quarantine", "parts"),
    ("protocols",),
    ("protocols", "show", "nordland-sta"),
    ("sequences", "datasets/raw", "--length", "4"),
    ("leakage", "datasets/cut"),
    ("export", "datasets/raw", "--format", "folders"),
    ("export", "datasets/raw", "--out", "tars"),
    ("models",),
    ("models", "show", "mean-small"),
    ("models", "get", "mean-small", "--random-init", "--dataset", "datasets/raw", "--out", "runs/get", *TINY),
    ("describe", "datasets/raw", *UNTRAINED),
    ("describe", "datasets/raw", *UNTRAINED, "--shard-range", "1/1", "--out", "features/parts"),
    ("merge", "features/parts"),
    ("train", "--settings"),
    ("train", "datasets/raw", *UNTRAINED, "--epochs", "0", "--protocol", "halves.toml", "--out", "runs/mean"),
    ("import", "vg-transformers", "best_model.pth", "--out", "runs/gem", "--option", "size=[24,32]"),
    ("index", "--run", "runs/mean"),
    ("index", "--run", "runs/mean", "--shard-range", "1/1", "--out", "indexes/joined"),
    ("index", "merge", "--index", "indexes/joined"),
    ("index", "append", "indexes/mean"),
    ("index", "list", "indexes/mean"),
    ("index", "show", "latest", "--index", "indexes/mean"),
    ("index", "show", "indexes/mean"),
    ("index", "tag", "first", "--index", "indexes/mean"),
    ("index", "tag", "second", "indexes/mean"),
    ("index", "diff", "first", "latest", "--index", "indexes/mean"),
    ("index", "verify", "--index", "indexes/mean"),
    ("index", "rollback", "first", "--index", "indexes/mean"),
    ("index", "gc", "indexes/mean"),
    ("gc", "indexes/mean", "--dry-run"),
    ("eval", "indexes/mean", "--shard-range", "1/1"),
    ("eval", "indexes/mean"),
    ("eval", "indexes/mean", "--radius", "7,14", "--full", "--by", "city"),
    ("baseline", "datasets/raw"),
    ("baseline", "datasets/raw", "--method", "aligned", "--out", "baselines/aligned"),
    ("compare", "indexes/mean", "baselines/aligned"),
    ("search", "indexes/mean", *DRIVE, "-k", "2"),
    ("search", "indexes/mean", "--dataset", "datasets/raw", "-k", "2", "--thumbnails", "pages"),
    ("search", "raw", "--database", "raw", "--model", "mean-small", "--random-init", "-k", "1"),
    ("pack", "indexes/mean"),
    ("localize", "place.pack", "drive"),
    ("localize", "drive", "--index", "place.pack", "--out", "flagged"),
    ("localize", "place.pack", "--self-test"),
    ("report", "indexes/mean"),
    ("experiment",),
    ("profile", "--model", "mean-small", "--repeats", "1", "--length", "2", "--database", "0"),
    ("doctor",),
]  # fmt: skip


def name_of(words: tuple[str, ...]) -> str:
    """The command that words call, as its schema is named."""
    if words[0] != "index":
        return words[0]
    return f"index-{words[1] if len(words) > 1 and words[1] in INDEX_COMMANDS else 'build'}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder before the walk."""
    folder = tmp_path_factory.mktemp("walk")
    raw = write_street(folder / "raw")
    (folder / "halves.toml").write_text(PROTOCOL)
    (folder / "drive").mkdir()
    for path in sorted(raw.glob("query-*.jpg"))[20:32]:
        (folder / "drive" / path.name).write_bytes(path.read_bytes())
    state = names.below("module.", names.filled(names.resnet18() | {"pooling.1.p": (1,)}))
    torch.save({"model_state_dict": state}, folder / "best_model.pth")
    return folder


@pytest.fixture(scope="module")
def walked(work: Path) -> dict[tuple[str, ...], subprocess.CompletedProcess[str]]:
    """Every command of the walk with what it printed."""
    return {words: here(work, *words, "--json") for words in WALK}


@pytest.mark.parametrize("words", WALK, ids=" ".join)
def test_a_result_fits_its_schema(
    words: tuple[str, ...], walked: dict[tuple[str, ...], subprocess.CompletedProcess[str]]
) -> None:
    ended = walked[words]
    assert ended.returncode in (0, 6), ended.stderr
    schema = json.loads((SCHEMAS / f"{name_of(words)}.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(ended.stdout), schema)


MAKING = [
    words
    for words in WALK
    if ({**COMMANDS, **{f"index-{name}": one for name, one in INDEX_COMMANDS.items()}})[name_of(words)].makes
    and not {"--dry-run", "--settings", "--self-test"} & {*words}
]


@pytest.mark.parametrize("words", MAKING, ids=" ".join)
def test_what_makes_something_ends_with_its_time_and_the_next_command(
    words: tuple[str, ...], walked: dict[tuple[str, ...], subprocess.CompletedProcess[str]]
) -> None:
    end = re.search(r"^took \d+\.\d s(?:; next:\s+seqdata (\S+).*)?$", walked[words].stderr, re.MULTILINE)
    assert end, walked[words].stderr
    assert end[1] in {None, *COMMANDS, "index"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("eval", "indexes/mean"), "seqdata report indexes/mean"),
        (("eval", "indexes/mean", "--shard-range", "1/1"), "seqdata eval indexes/mean"),
    ],
)
def test_an_evaluation_of_a_named_index_ends_with_a_command_that_names_it(
    words: tuple[str, ...], command: str, walked: dict[tuple[str, ...], subprocess.CompletedProcess[str]]
) -> None:
    assert f"next: {command}\n" in walked[words].stderr


READING = [
    words
    for words in WALK
    if words[0] in {"info", "verify", "quarantine", "protocols", "leakage", "models", "eval", "compare", "search"}
    or words[0] in {"experiment", "profile", "doctor"}
    or words[:2] in {("index", name) for name in ("list", "show", "diff", "verify", "gc")}
    or "--settings" in words
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_people_read_fits_80_columns(
    words: tuple[str, ...],
    work: Path,
    walked: dict[tuple[str, ...], subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert walked
    monkeypatch.setenv("COLUMNS", "80")
    ended = here(work, *words)
    assert ended.returncode in (0, 6), ended.stderr
    lines = (ended.stdout + ended.stderr).splitlines()
    # A path or a command is never broken: it would be copied wrongly.
    wide = [
        line for line in lines if len(line) > 80 and " " in line.strip() and not line.strip().startswith("seqdata ")
    ]
    assert not wide


def test_every_command_has_a_schema_and_every_schema_a_command() -> None:
    commands = {*(name for name in COMMANDS), *(f"index-{name}" for name in INDEX_COMMANDS)}
    files = {path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json")}
    assert files == commands | {"error"}
    for path in SCHEMAS.glob("*.schema.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["title"].startswith("seqdata")
    walked = {name_of(words) for words in WALK}
    # A demo runs for minutes: its summary is checked by the test of the README's figures.
    assert walked == commands - {"demo"}


@pytest.mark.parametrize(
    "words",
    [
        ("buidl",),
        ("build",),
        ("build", "folder", "--wrokers", "2"),
        ("build", "folder", "--workers", "two"),
        ("info", "absent"),
        ("index", "lits"),
        ("eval", "absent"),
        ("protocols", "show"),
    ],
    ids=" ".join,
)
def test_an_error_fits_its_schema(words: tuple[str, ...], tmp_path: Path) -> None:
    ended = here(tmp_path, *words, "--json")
    schema = json.loads((SCHEMAS / "error.schema.json").read_text(encoding="utf-8"))
    error = json.loads(ended.stderr)
    jsonschema.validate(error, schema)
    assert (error["error"]["exit_code"], ended.stdout) == (ended.returncode, "")

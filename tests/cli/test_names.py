"""Names and weights: light imports, files of the user's that share our names, a wheel without tests."""

import ast
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import seqdata
from cli.main import COMMANDS, INDEX_COMMANDS, Command

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "package",
    [
        "seqdata",
        "indexer",
        "seqdata.dataset",
        "indexer.place_index",
        "indexer.evaluation.prediction_sets",
        "indexer.evaluation.recall",
        "indexer.report.report",
        "indexer.versions.listing",
        "train.settings",
        "train.recipes",
        "train.runs.folder",
        "train.runs.record",
        "train.stages.answers",
        "indexer.report.index_scene",
        "cli.main",
    ],
)
def test_imports_stay_free_of_torch(package: str) -> None:
    code = f"import sys, {package}; sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_help_imports_neither_tables_nor_models_nor_commands() -> None:
    code = (
        "import sys; from cli.main import app; app(['--help'], standalone_mode=False)\n"
        "heavy = {'polars', 'pydantic', 'numpy', 'tqdm', 'cli.dataset.build', 'cli.training.train'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "  build       Build a dataset from a raw dump.\n" in ended.stdout


@pytest.mark.parametrize("command", [*COMMANDS.values(), *INDEX_COMMANDS.values()], ids=lambda command: command.target)
def test_the_list_of_commands_says_what_their_own_help_says(command: Command) -> None:
    first_line = (command.function.__doc__ or "").splitlines()[0]
    assert command.help == first_line
    assert command.help.endswith(".")
    assert len(command.help) <= 64  # longer ones are cut off on a terminal of 80 columns


def test_every_index_command_is_named_below_the_help_of_index() -> None:
    epilog = INDEX_COMMANDS["build"].epilog or ""
    assert " | ".join(name for name in INDEX_COMMANDS if name != "build") in epilog


def test_no_module_imports_click() -> None:
    """Typer carries its own; a second one would disagree with it."""
    sources = [path for name in ("seqdata", "indexer", "train", "cli") for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in sources if "import click" in path.read_text(encoding="utf-8")]


def test_imports_inside_functions_of_commands_say_why() -> None:
    bare = []
    for path in sorted((ROOT / "cli").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        imports = [node for one in functions for node in ast.walk(one) if isinstance(node, ast.Import | ast.ImportFrom)]
        bare += [f"{path}:{node.lineno}" for node in imports if "#" not in lines[node.lineno - 1]]
    assert not bare


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_and_the_schema_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"seqdata", "indexer", "train", "cli"}
    modules = [path.relative_to(ROOT).as_posix() for top in sorted(tops) for path in (ROOT / top).rglob("*.py")]
    assert not [name for name in modules if name not in names]  # an ignore rule may name a package by accident
    assert not [name for name in names if "test" in name.lower()]
    assert "seqdata/_schemas/protocols/msls-seqvlad.toml" in names
    assert "seqdata/_schemas/tables/frames.toml" in names
    assert "indexer/report/templates/report.html.j2" in names
    assert "indexer/report/templates/base.html.j2" in names
    assert not [name for name in names if name.startswith("seqdata/_schemas") and name.endswith(".py")]


SCRIPT = """
import sys
import cli, train, schemas
assert (cli.MINE, train.MINE, schemas.MINE) == (1, 2, 3)
import numpy, seqdata, indexer
from seqdata.contracts.toml_files import schema_root
assert schema_root().name == "_schemas", schema_root()
ds = seqdata.open(sys.argv[1])
windows = ds.sequences("own", "test", "database")
vectors = numpy.random.default_rng(0).normal(size=(windows.height, 8)).astype("float32")
indexer.build(sys.argv[2], blocks=iter([vectors]), places=ds.places(windows), transform=None, inputs={"made": "here"})
distances, rows = indexer.open(sys.argv[2]).search(vectors[:3], 2)
assert rows[:, 0].tolist() == [0, 1, 2], rows
assert "torch" not in sys.modules
print(ds.manifest.counts.frames)
"""


def test_a_users_own_train_cli_and_schemas_do_not_collide(
    wheel: Path, dataset: seqdata.Dataset, tmp_path: Path
) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    packages = next(place.glob("lib/python*/site-packages"))
    ours = Path(seqdata.__file__).parent.parent
    libraries = [path for path in sys.path if path.endswith("site-packages") and Path(path) != ours]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    zipfile.ZipFile(wheel).extractall(packages)
    for number, name in enumerate(("cli", "train", "schemas"), start=1):
        (tmp_path / f"{name}.py").write_text(f"MINE = {number}\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [str(place / "bin" / "python"), "script.py", str(dataset.path), str(tmp_path / "index" / "own")]
    ended = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "70"

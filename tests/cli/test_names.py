"""Names and weights: light imports, files of the user's that share our names, a wheel without tests."""

import ast
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import seqdata
from cli.program.registry import COMMANDS, INDEX_COMMANDS, Command

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
    assert tops == {"seqdata", "indexer", "seqdata_vpr.py", "seqdata_vpr.pth"}
    places = {"seqdata": "", "indexer": "", "train": "seqdata/_program/", "cli": "seqdata/_program/"}
    modules = [
        place + path.relative_to(ROOT).as_posix()
        for top, place in places.items()
        for path in (ROOT / top).rglob("*.py")
    ]
    assert not [name for name in modules if name not in names]  # an ignore rule may name a package by accident
    assert not [name for name in names if {"tests", "conftest.py"} & {*Path(name).parts} or "/test_" in name]
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


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel in it; its libraries are this environment's."""
    place = tmp_path_factory.mktemp("installation") / "venv"
    venv.create(place, with_pip=False)
    packages = next(place.glob("lib/python*/site-packages"))
    # Plain folders behind everything else: the .pth file of the checkout, which lies there too, is not read.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "zz_libraries.pth").write_text("\n".join(libraries))
    zipfile.ZipFile(wheel).extractall(packages)
    return place / "bin" / "python"


def write_own_modules(folder: Path) -> None:
    """A user's modules that have the names of ours."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(("cli", "train", "schemas"), start=1):
        (folder / f"{name}.py").write_text(f"MINE = {number}\n")


def test_a_users_own_train_cli_and_schemas_do_not_collide(
    installation: Path, dataset: seqdata.Dataset, tmp_path: Path
) -> None:
    write_own_modules(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [str(installation), "script.py", str(dataset.path), str(tmp_path / "index" / "own")]
    ended = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "70"


def test_a_users_installed_train_comes_before_ours(installation: Path, tmp_path: Path) -> None:
    write_own_modules(tmp_path / "project")
    packages = next(installation.parents[1].glob("lib/python*/site-packages"))
    link = packages / "__editable__.project.pth"  # as an editable installation of the user's project leaves it
    link.write_text(str(tmp_path / "project"))
    try:
        code = "import train, cli; print(train.MINE, cli.MINE)"
        assert (
            subprocess.run([installation, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
            == "2 1\n"
        )
    finally:
        link.unlink()
    code = "import train; from train.settings import TrainSettings; print(train.__file__)"
    ours = subprocess.run([installation, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert ours.strip().endswith("seqdata/_program/train/__init__.py")


PROGRAM = "import sys; from seqdata_vpr import run; sys.argv = ['seqdata', *sys.argv[1:]]; run()"


def test_the_program_starts_where_a_user_has_modules_of_our_names(installation: Path, tmp_path: Path) -> None:
    write_own_modules(tmp_path / "own")
    ended = subprocess.run(
        [installation, "-c", PROGRAM, "train", "--settings"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "own")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "negatives" in ended.stdout


@pytest.mark.parametrize("content", ["__version__ = '0.2'\n", "import absent_genomes\n"])
def test_another_packages_module_seqdata_is_one_line(installation: Path, content: str, tmp_path: Path) -> None:
    (tmp_path / "seqdata").mkdir()
    (tmp_path / "seqdata" / "__init__.py").write_text(content)
    ended = subprocess.run(
        [installation, "-c", PROGRAM, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 7
    (line,) = ended.stderr.splitlines()
    assert line.endswith("pip uninstall --yes seqdata && pip install --force-reinstall --no-deps seqdata-vpr")


def test_no_hint_names_an_extra_of_the_genomics_package() -> None:
    """`pip install 'seqdata[s3]'` would put another package over ours."""
    sources = [path for name in ("seqdata", "indexer", "train", "cli") for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in sources if re.search(r"seqdata\[\w", path.read_text(encoding="utf-8"))]

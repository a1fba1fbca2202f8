"""The archives of a release: builds them, looks at what they hold, and runs the program of each in a fresh environment.

python tests/support/dist.py FOLDER

Where no registry can be reached it says so and ends well, after the checks that need none.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = (
    "protocols/msls-seqvlad.toml",
    "tables/frames.toml",
    "manifests/dataset.schema.json",
    "templates/report.html.j2",
    "templates/style.css",
    "seqdata_vpr.pth",
)
COMMANDS = (
    ("--version",),
    ("protocols",),
    ("synth", "raw", "--kind", "nordland", "--seconds", "20", "--width", "96", "--height", "64"),
    ("build", "nordland", "raw", "--out", "dataset"),
    ("verify", "dataset"),
    ("models",),
)


def build_archives(folder: Path) -> tuple[Path, Path]:
    """Build the source archive and from it the wheel; both must pass `twine check` and hold the data files."""
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, source], check=True)
    with tarfile.open(source) as archive:
        names = {wheel: zipfile.ZipFile(wheel).namelist(), source: archive.getnames()}
    for path, members in names.items():
        missing = [part for part in DATA if not any(part in f"{name}/" for name in members)]
        assert not missing, f"{path} lacks {missing}"
    return wheel, source


def install(python: Path, *packages: str) -> bool:
    """Install packages at the tested versions; whether that went well."""
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *packages]
    return subprocess.run(command, check=False).returncode == 0


def run_program(seqdata: Path, folder: Path) -> None:
    """Run some commands in an empty folder, beside a `train.py` and a `cli.py` of the user's."""
    folder.mkdir()
    for name in ("train", "cli"):
        (folder / f"{name}.py").write_text("raise SystemExit('the user\\'s own module was run')\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for command in COMMANDS:
        print("$ seqdata", *command, flush=True)
        ended = subprocess.run([seqdata, *command], cwd=folder, env=environment, check=False)
        assert ended.returncode == 0, command


def main(folder: Path) -> int:
    """Build and try both archives; 0 where all of it worked or no registry can be reached."""
    wheel, source = build_archives(folder)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        venv.create(place / "venv", with_pip=True)
        python, seqdata = place / "venv" / "bin" / "python", place / "venv" / "bin" / "seqdata"
        print("installing the wheel and its libraries into a fresh environment: minutes", flush=True)
        if not install(python, "lazy_loader"):
            print("skipped: no registry can be reached, so the archives were not tried in a fresh environment")
            return 0
        assert install(python, str(wheel), "torch", "torchvision")
        run_program(seqdata, place / "from-wheel")
        assert install(python, "hatchling")
        assert install(python, "--no-deps", "--no-build-isolation", "--force-reinstall", str(source))
        run_program(seqdata, place / "from-source")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

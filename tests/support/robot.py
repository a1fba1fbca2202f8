"""A robot's environment: installs robot-requirements.txt into a fresh one, and localizes there from a pack.

python tests/support/robot.py

Where no registry can be reached it says so and ends well: the same is tested without one by blocking the imports.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.support.street import build_street, make_index, write_street
from train.stages.pack import PackRequest, write_pack

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("torch", "torchvision", "timm", "polars", "scipy", "onnx")


def make_pack(folder: Path) -> Path:
    """A small pack, and the frames of a drive beside it."""
    street = build_street(write_street(folder / "raw"), folder / "dataset")
    index, run = make_index(street, folder, "sum", pca=6)
    pack = write_pack(index, PackRequest(run=run, out=folder / "place.pack", dataset=street, precision=0.5))
    (folder / "drive").mkdir()
    for path in sorted((folder / "raw").glob("query-*.jpg")):
        path.rename(folder / "drive" / path.name)
    return pack


def main() -> int:
    """Make a pack here, an environment elsewhere, and a track there; 0 where all of it worked or cannot be tried."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        venv.create(folder / "robot", with_pip=True)
        python = folder / "robot" / "bin" / "python"
        for wanted in (
            ["--constraint", "constraints.txt", "--requirement", "robot-requirements.txt"],
            ["--no-deps", "."],
        ):
            installed = subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], cwd=ROOT, check=False)
            if installed.returncode:
                print("skipped: the robot's packages cannot be installed here")
                return 0
        pack = make_pack(folder)
        listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True)
        foreign = {package["name"].lower() for package in json.loads(listed.stdout)} & set(ABSENT)
        assert not foreign, foreign
        for arguments in (
            ["--self-test"],
            [str(folder / "drive"), "--out", str(folder / "track"), "--filter", "forward"],
        ):
            subprocess.run([folder / "robot" / "bin" / "seqdata", "localize", pack, *arguments], cwd=folder, check=True)
        print(f"{len(json.loads(listed.stdout))} packages, none of {', '.join(ABSENT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

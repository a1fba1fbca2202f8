"""`seqdata models` and models from elsewhere, as a user types them."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main
from seqdata.dataset.dataset import Dataset
from seqdata.storage.files import read_json

SEQDATA = str(Path(sys.executable).with_name("seqdata"))
DOCS = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seqdata", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.run()
    code = ended.value.code
    return code if isinstance(code, int) else 0, *capfd.readouterr()


def test_the_list_names_every_model_with_what_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    from train.models import registry as models

    code, out, said = run(capfd, "models")
    out_lines = out.splitlines()
    lines = {line.split()[0]: line for line in out_lines}
    assert code == 0
    assert set(lines) == set(models.names())
    assert "encoder=vgg16" in lines["delta"]
    assert "cut=blocks.7" in lines["seqpool-cat-cct384"]
    assert "seqdata models show NAME" in said
    code, out, _ = run(capfd, "models", "--json")
    listed = json.loads(out)
    assert code == 0
    assert {name for family in listed["families"].values() for name in family} == set(models.names())
    whole, spatial = (listed["families"]["sta"][name] for name in ("sta", "sta-spatial"))
    assert spatial == {**whole, "branches": "spatial"}
    assert listed["plugins"] == []
    assert listed["released"].items() >= {"megaloc": "megaloc", "boq-r50": "boq", "jist-r18": "jist"}.items()
    assert listed["start"]["seqvlad-r18"]["sha256"] == "f37072fd"
    assert max(map(len, out_lines)) <= 80


def test_a_model_is_shown_as_a_table_and_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "models", "show", "seqvlad-small", "--length", "3", "--option", "clusters=4")
    assert code == 0
    first, header, *stages = out.splitlines()
    assert first == "seqvlad-small: windows of 3 frames of 240×320, the frames' own size (taken as an example)"
    assert header.split() == ["stage", "kind", "shape", "parameters", "trained", "GFLOP"]
    (vlad,) = [line.split() for line in stages if line.startswith("pooling")]
    assert vlad[:5] == ["pooling", "SeqVLAD", "3×4×64", "512", "512"]
    assert stages[-2].startswith("start weights: resnet18.a1_in1k: hub timm/resnet18.a1_in1k, file resnet18_a1_0-")
    assert stages[-1] == "descriptor: 256 numbers, compared by l2; window lengths: 1 or more"
    code, out, said = run(capfd, "models", "show", "seqvlad-small", "--option", "clusters=4", "--json")
    card = json.loads(out)
    assert (code, said) == (0, "")
    assert (card["name"], card["length"], card["descriptor"], card["distance"]) == ("seqvlad-small", 5, 256, "l2")
    assert card["config"]["clusters"] == 4
    assert sum(stage["flops"] for stage in card["stages"]) == card["flops"]
    assert json.loads(run(capfd, "models", "seqvlad-small", "--option", "clusters=4", "--json")[1]) == card


@pytest.mark.parametrize("name", [("show", "frames"), ("show",), ()])
def test_a_combination_of_ones_own_is_shown(name: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    parts = ["--encoder", "resnet10t", "--pool", "gem", "--fusion", "cat", "--option", "size=[32,48]"]
    code, out, said = run(capfd, "models", *name, *parts, "--json")
    card = json.loads(out)
    assert (code, said) == (0, "")
    assert (card["name"], card["size"], card["descriptor"]) == ("frames", [32, 48], 5 * 512)
    chosen = [card["config"][key] for key in ("encoder", "pooling", "fusion")]
    assert chosen == ["resnet10t", "gem", "cat"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "models show: name a model"),
        (["show", "--fusion", "cat"], "models show: name a model"),
        (["list", "sta"], "expected seqdata models show NAME"),
        (["show", "seqvlad-r81"], "near it: seqvlad-r18"),
        (["show", "seqvlad-small", "--fusion", "cat"], "do not fit"),
        (["show", "netvlad-fc-small", "--length", "3"], "windows of 5 frames only"),
        (["show", "frames", "--encoder", "vit_tiny_patch16_224", "--option", "size=[64,96]"], "frames of 64×96"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, said = run(capfd, "models", *arguments)
    assert (code in (2, 4), out) == (True, "")  # 4: the parts are named well, and do not fit each other
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("model", ["seqvlad-cct224", "sta"])
def test_offline_weights_from_a_url_are_one_line(
    model: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "create_connection", offline)
    code, out, said = run(
        capfd, "train", str(dataset.path), "--model", model, "--out", str(tmp_path / "run"), "--epochs", "0"
    )
    assert (code, out) == (7, "")
    assert re.fullmatch(
        r"error: pretrained weights of 'cct_14_7x2_\d+' .*no route.*--weights FILE.*--random-init\n", said
    )


def test_the_documented_own_model_works_as_written(dataset: Dataset, tmp_path: Path) -> None:
    """The example's file is saved beside, its command is typed; only dataset, run folder and epochs are added."""
    page = DOCS.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# ourteam/models\.py\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^    (seqdata train --model-from .*)$", page, re.MULTILINE)
    (tmp_path / "ourteam").mkdir()
    (tmp_path / "ourteam" / "models.py").write_text(code)
    typed = [SEQDATA, *shlex.split(command)[1:], str(dataset.path), "--epochs", "0", "--out", "run"]
    ended = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    made = read_json(tmp_path / "run" / "run.json")["model"]
    assert (made["name"], made["encoder"]) == ("ourteam.models:last_frame", "resnet34")

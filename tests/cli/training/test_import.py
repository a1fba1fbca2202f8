"""`seqdata import`, and the commands that take the run it writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seqdata.dataset.dataset import Dataset
from tests.cli.training.test_models import run
from tests.support import place_names
from tests.support import released_names as names
from train.released.programs import PROGRAMS

GEM = names.resnet18() | {"pooling.1.p": (1,)}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of vg-transformers: GeM and CAT on ResNet-18."""
    file = tmp_path_factory.mktemp("released") / "best_model.pth"
    torch.save({"model_state_dict": names.below("module.", names.filled(GEM))}, file)
    return file


def test_an_imported_run_is_indexed_evaluated_and_packed(
    released: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("import", "vg-transformers", str(released), "--out", "runs/gem", "--option", "size=[24,32]")
    code, out, _ = run(capfd, *arguments, "--protocol", "own", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["kind"], result["file"], result["descriptor_size"]) == ("vg-transformers", "best_model.pth", 1280)
    assert result["model"]["name"] == "gem-cat-r18"
    code, _, said = run(capfd, "index", "--run", "runs/gem")
    assert code == 3 and "the run was imported and belongs to no dataset; name its folder" in said
    assert run(capfd, "index", str(dataset.path), "--run", "runs/gem", "--pca", "4", "--out", "indexes/gem")[0] == 0
    code, out, said = run(capfd, "eval", "indexes/gem", "--dataset", str(dataset.path), "--run", "runs/gem", "--json")
    assert code == 0 and json.loads(out)["size"] == 4, said
    packed = ("pack", "indexes/gem", "--run", "runs/gem", "--dataset", str(dataset.path), "--split", "test")
    # A model without training reaches no high precision.
    code, out, said = run(capfd, *packed, "--precision", "0.2", "--out", "gem.pack", "--json")
    assert code == 0, said
    code, _, said = run(capfd, "localize", "gem.pack", "--self-test")
    assert code == 0, said
    code, _, said = run(capfd, *arguments)
    assert code == 5 and "the folder is not empty" in said


def test_mistakes_are_a_line_and_an_exit_code(
    released: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind, file, expected, words in (
        ("vg", released, 2, "KIND vg"),
        ("vg-transformers", tmp_path / "absent.pth", 3, "no such weights file"),
        ("sta", released, 4, "import vg-transformers may take it"),
        ("seqnet", released, 4, "no file of seqnet"),
        ("backbone", released, 4, "name the model that it is for with --model"),
    ):
        code, out, said = run(capfd, "import", kind, str(file), "--out", str(tmp_path / "run"))
        assert (code, out) == (expected, "") and words in said and said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_alone_goes_into_a_preset(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import timm

    state = timm.create_model("resnet10t", num_classes=3).state_dict()
    torch.save({"state_dict": names.below("module.", state)}, tmp_path / "resnet10t.pth")
    options = ("--option", "encoder=resnet10t", "--option", "pooling=avg", "--option", "fusion=mean")
    arguments = (
        "import",
        "backbone",
        str(tmp_path / "resnet10t.pth"),
        "--model",
        "frames",
        "--out",
        str(tmp_path / "run"),
    )
    code, out, said = run(capfd, *arguments, *options)
    assert code == 0 and "frames, 512 numbers" in out, said


def test_a_released_model_of_places_describes_frames_for_heads_and_matching(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Downloaded by name; then an index of its own, stored features with a head on them, and HVPR's second stage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    torch.save(names.filled(place_names.cosplace_r18(out=16)), tmp_path / "released.pth")
    released = replace(PROGRAMS["cosplace"], address=(tmp_path / "released.pth").as_uri())
    monkeypatch.setitem(PROGRAMS, "cosplace", released)
    assert run(capfd, "import", "cosplace", "--out", "runs/cosplace", "--option", "size=[24,32]")[0] == 0
    where = ("--dataset", str(dataset.path))
    code, _, said = run(capfd, "index", str(dataset.path), "--run", "runs/cosplace", "--out", "indexes/cosplace")
    assert code == 0, said
    code, _, said = run(capfd, "describe", str(dataset.path), "--run", "runs/cosplace", "--out", "features")
    assert code == 0, said
    head = ("--features", "features", "--model", "seqgem-dinov2-b", "--epochs", "0", "--out", "runs/head")
    code, _, said = run(capfd, "train", str(dataset.path), *head)
    assert code == 0, said
    for frames in ("features", "runs/cosplace"):
        code, _, said = run(capfd, "eval", "indexes/cosplace", *where, "--rerank", "3", "--features", frames, "--json")
        assert code == 0 and "rerank3" in said, said


def test_without_a_file_or_an_address_one_line_says_where_it_is(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for kind, expected, words in (("backbone", 2, "name its file"), ("mixvpr", 7, "github.com/amaralibey/MixVPR")):
        code, out, said = run(capfd, "import", kind, "--out", str(tmp_path / "run"))
        assert (code, out) == (expected, "") and words in said and said.count("\n") == 1, said

"""Weight files as people have them: which part is taken, and what other files are called."""

import argparse
import collections
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from seqdata.errors import ContractError, InputError
from train.models.encoders.weight_files import read_parts
from train.models.encoders.weights import create_backbone, load_file


@pytest.fixture(scope="module")
def state() -> Any:
    return timm.create_model("resnet10t", num_classes=0).state_dict()


def below(prefix: Any, state: Any) -> Any:
    return {prefix + key: value for key, value in state.items()}


def moved(state: Any, by: Any) -> Any:
    return {key: value + by if value.is_floating_point() else value for key, value in state.items()}


CHECKPOINTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "bare": (lambda s: s, ""),
    "timm train.py": (
        lambda s: {"epoch": 9, "state_dict": s, "args": argparse.Namespace(lr=0.1, out=Path("a"))},
        "'state_dict'",
    ),
    "vg": (
        lambda s: {"model_state_dict": s, "best_r5": torch.tensor(0.5), "recalls": np.float64(0.5)},
        "'model_state_dict'",
    ),
    "NumPy beside": (lambda s: {"state_dict": s, "rng": np.arange(3), "count": np.int64(3)}, "'state_dict'"),
    "Lightning": (
        lambda s: {"state_dict": below("model.", s) | {"loss.w": torch.ones(2)}},
        "'state_dict' under 'model.'",
    ),
    "compiled": (lambda s: below("_orig_mod.", s), "under '_orig_mod.'"),
    "DDP": (lambda s: below("module.", s), "under 'module.'"),
    "compiled, DDP": (lambda s: below("module._orig_mod.", s), "under 'module._orig_mod.'"),
    "one part of a whole model": (
        lambda s: {"state": {"net": below("module.backbone.", s) | {"module.head.w": torch.ones(3)}}},
        "'state.net' under 'module.backbone.'",
    ),
    "EMA beside raw": (
        lambda s: {"state_dict": moved(s, 1.0), "state_dict_ema": below("module.", s)},
        "'state_dict_ema'",
    ),
    "parameters": (
        lambda s: {"model": {k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in s.items()}},
        "'model'",
    ),
    "ordered": (lambda s: collections.OrderedDict(s), ""),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_training_programs(
    kind: str, state: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, source = CHECKPOINTS[kind]
    torch.save(make(state), tmp_path / "w.pth")
    model = create_backbone("resnet10t", tmp_path / "w.pth", 0)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert (source in caplog.text) if source else not caplog.text


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_the_content_decides_not_the_suffix(name: str, state: Any, tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / name)
    assert create_backbone("resnet10t", tmp_path / name, 0)
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
    assert create_backbone("resnet10t", tmp_path / name, 0)


def test_a_part_that_fits_goes_before_one_that_does_not(
    state: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = timm.create_model("resnet18", num_classes=0).state_dict()
    torch.save({"state_dict": other, "student": below("encoder.", state)}, tmp_path / "w.pth")
    assert create_backbone("resnet10t", tmp_path / "w.pth", 0)
    assert "part 'student' under 'encoder.'" in caplog.text
    torch.save({"state_dict": below("model.", other)}, tmp_path / "w.pth")
    with pytest.raises(ContractError, match=r"do not fit ResNet from its part 'state_dict' under 'model.'.*missing"):
        create_backbone("resnet10t", tmp_path / "w.pth", 0)


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("made-by-a-pickle",)


class Remark:
    """A class of somebody's own program."""


def write(path: Any, kind: Any, state: Any) -> None:
    texts = {
        "empty": b"",
        "page": b"\n<!DOCTYPE html><html><body>Not found</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
        "json": b'{"weight_map": {}}',
        "text": b"layer 1: 0.5 0.25\n",
        "gzip": b"\x1f\x8b\x08\x00aaaa",
        "picture": b"\x89PNG\r\n\x1a\n",
        "noise": bytes(range(256)) * 4,
    }
    if kind in texts:
        path.write_bytes(texts[kind])
    elif kind == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("resnet.pth", b"...")
    elif kind == "arrays":
        with path.open("wb") as file:
            np.savez(file, a=np.ones(3))
    elif kind == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "cut safetensors":
        safetensors.torch.save_file(state, path)
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "model":
        torch.save(timm.create_model("resnet10t"), path)
    elif kind == "code":
        torch.save({"state_dict": state, "callback": Runs()}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Runs()}))
    else:
        torch.save({"state_dict": state, "notes": Remark()}, path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "an empty file"),
        ("page", "an HTML or XML page"),
        ("pointer", "a Git LFS pointer"),
        ("json", "a JSON file"),
        ("text", "a text file"),
        ("gzip", "a gzip archive"),
        ("picture", "a picture"),
        ("noise", "damaged, cut short or of another kind"),
        ("script", "a TorchScript program"),
        ("zip", "a zip archive"),
        ("arrays", "a NumPy archive"),
        ("cut", "a damaged archive, cut short"),
        ("cut safetensors", "damaged, cut short"),
        ("model", r"holds objects of timm\.models\.resnet\.ResNet"),
        ("code", r"holds objects of posix\.mkdir"),
        ("pickle", "posix|damaged"),
        ("own class", r"objects of \S*Remark"),
    ],
)
def test_other_files_are_named_in_one_line(
    kind: str, words: Any, state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pth", kind, state)
    with pytest.raises(InputError, match=words) as caught:
        create_backbone("resnet10t", tmp_path / "w.pth", 0)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and "weights_only" not in message and len(message) < 400
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": argparse.Namespace()}, tmp_path / "w.pth")
    with pytest.raises(ContractError, match="holds no state dict"):
        read_parts(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("conv1.0.weight", float("nan"), r"'conv1.0.weight' cannot be used: 1 of \d+ values are NaN or infinite"),
        ("layer1.0.bn1.bias", float("-inf"), "'layer1.0.bn1.bias'.*NaN or infinite"),
        ("bn1.running_var", -0.1, "'bn1.running_var' cannot be used: a variance is negative"),
        ("bn1.running_mean", float("inf"), "'bn1.running_mean'"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_that_are_no_numbers_are_refused_by_name(
    key: Any, value: Any, words: Any, prefix: Any, state: Any, tmp_path: Path
) -> None:
    bad = {name: tensor.clone() for name, tensor in state.items()}
    bad[key].view(-1)[0] = value
    torch.save(below(prefix, bad), tmp_path / "w.pth")
    with pytest.raises(ContractError, match=words):
        load_file(timm.create_model("resnet10t", num_classes=0), tmp_path / "w.pth")

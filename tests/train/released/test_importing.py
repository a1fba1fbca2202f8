"""Released files to runs: names and shapes written out, descriptors against a literal version of the program."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import train
from seqdata import protocols
from seqdata.errors import ContractError, InputError, OutputError
from tests.support import released_literal as literal
from tests.support import released_names as names
from train.released.importing import ImportRequest, import_run
from train.released.window_programs import read_timesformer

State = dict[str, Tensor]
SMALL = (32, 48)
# timm's VGG has a head of 100 million numbers, which is cut off again.
SMALL_VGG = {"size": SMALL, "encoder_options": {"mlp_ratio": 0.01}}
# Blocks of what is a whole ViT or TimeSformer here: 12 blocks are files of 340 and 480 MB that show no more.
SHORT = 2


def pixels(length: int, size: tuple[int, int], seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (length, 3, *size), generator=torch.Generator().manual_seed(seed)).float()


def imported(tmp_path: Path, kind: str, content: Any, **more: Any) -> Any:
    """The model of the run that is written from a file of this content."""
    file = tmp_path / f"{kind}.pth"
    torch.save(content, file)
    frames = more.pop("frames", None)
    if frames is not None:
        torch.save(frames, tmp_path / "frames.pth")
        more["frames"] = tmp_path / "frames.pth"
    run = import_run(ImportRequest(kind, file, tmp_path / "run", protocols.load("own"), **more))
    return train.load_model(run)


def cct384(state: State, frames: Tensor) -> Tensor:
    return literal.cct(state, frames, 2)


def vlad_of(tokens: Callable[[State, Tensor], Tensor]) -> Callable[[State, Tensor], Tensor]:
    """SeqVLAD: all tokens of all frames as one set."""

    def descriptor(state: State, frames: Tensor) -> Tensor:
        local = tokens(literal.part(state, "encoder."), frames).flatten(0, 1)
        return literal.vlad(local, state["aggregator.conv.weight"].flatten(1), state["aggregator.centroids"])

    return descriptor


def netvlad_cat(state: State, frames: Tensor) -> Tensor:
    local = literal.resnet18(literal.part(state, "encoder."), frames)
    words = state["pooling.conv.weight"].flatten(1), state["pooling.centroids"]
    return torch.cat([literal.vlad(tokens, *words) for tokens in local])


def netvlad_fc(state: State, frames: Tensor) -> Tensor:
    return literal.linear(netvlad_cat(state, frames), state, "aggregator.1")


def gem_cat(state: State, frames: Tensor) -> Tensor:
    local = literal.resnet18(literal.part(state, "encoder."), frames)
    return torch.cat([literal.gem(tokens, state["pooling.1.p"]) for tokens in local])


def cls_cat(state: State, frames: Tensor) -> Tensor:
    return literal.vit(literal.part(state, "encoder."), frames, SHORT)[:, 0].flatten()


def seqpool_cat(state: State, frames: Tensor) -> Tensor:
    encoder = literal.part(state, "encoder.")
    tokens = literal.cct(encoder, frames, 14)
    share = literal.linear(tokens, encoder, "classifier.attention_pool").softmax(1)
    return (share * tokens).sum(1).flatten()


VG: dict[str, tuple[dict[str, Any], tuple[int, int], Callable[[State, Tensor], Tensor]]] = {
    "seqvlad-cct384": (
        names.below("encoder.", names.cct(2, 576)) | names.vlad("aggregator.", 384, 1),
        (384, 384),
        vlad_of(cct384),
    ),
    "seqvlad-vit": (
        names.below("encoder.", names.hugging_face_vit(SHORT)) | names.vlad("aggregator.", 768, 1),
        (224, 224),
        vlad_of(lambda state, frames: literal.vit(state, frames, SHORT)[:, 1:]),
    ),
    "seqvlad-r18": (names.resnet18() | names.vlad("aggregator.", 256, 2), SMALL, vlad_of(literal.resnet18)),
    "seqvlad-vgg16": (names.vgg16() | names.vlad("aggregator.", 512, 2), SMALL, vlad_of(literal.vgg16)),
    "netvlad-cat-r18": (names.resnet18() | names.vlad("pooling.", 256, 2), SMALL, netvlad_cat),
    # 32 numbers instead of 4,096, which are a gigabyte.
    "netvlad-fc-r18": (
        names.resnet18()
        | names.vlad("pooling.", 256, 2, 4)
        | {"aggregator.1.weight": (32, 2 * 1024), "aggregator.1.bias": (32,)},
        SMALL,
        netvlad_fc,
    ),
    "gem-cat-r18": (names.resnet18() | {"pooling.1.p": (1,)}, SMALL, gem_cat),
    "cls-cat-vit": (names.below("encoder.", names.hugging_face_vit(SHORT)), (224, 224), cls_cat),
    "seqpool-cat-cct224": (names.below("encoder.", names.cct(14, 196)), (224, 224), seqpool_cat),
}


@pytest.mark.parametrize("name", VG)
def test_vg_transformers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`best_model.pth`: DataParallel's prefix, NumPy numbers beside the weights, the optimiser's state."""
    shapes, size, descriptor = VG[name]
    state = names.filled(shapes)
    checkpoint = {
        "epoch_num": 3,
        "model_state_dict": {f"module.{key}": value for key, value in state.items()},
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-5}]},
        "recalls": np.array([80.0, 90.0]),
        "best_r5": np.float64(90.0),
        "not_improved_num": 0,
    }
    options: dict[str, Any] = (SMALL_VGG if "vgg16" in name else {"size": SMALL}) if size == SMALL else {}
    if name == "cls-cat-vit":
        monkeypatch.setattr("train.released.encoders.VIT_BLOCKS", SHORT)
        options = {"encoder_options": {"depth": SHORT, "dynamic_img_size": True}, "trainable": "all"}
    if name == "seqvlad-vit":
        options = {"encoder_options": {"depth": SHORT + 1, "dynamic_img_size": True}}
    model = imported(tmp_path, "vg-transformers", checkpoint, options=options)
    assert model.config["name"] == name and model.size == size
    window = pixels(1 if size[0] >= 224 else 2, size)
    with torch.no_grad():
        expected = descriptor(state, literal.normalised(window))
        torch.testing.assert_close(model(window[None])[0], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("relative", "blocks"), [(True, 2), (False, 1)])
def test_sta(relative: bool, blocks: int, tmp_path: Path) -> None:
    """A bare dictionary; with absolute positions both stacks add them."""
    state = names.filled(names.sta(blocks, length=2, relative=relative))
    model = imported(tmp_path, "sta", state)
    assert model.config["temporal_position"] == ("relative" if relative else "absolute")
    window = pixels(2, (384, 384))
    with torch.no_grad():
        expected = literal.sta(state, literal.normalised(window), blocks)
        torch.testing.assert_close(model(window[None])[0], expected, atol=2e-4, rtol=1e-3)


def test_the_seqvlad_beside_sta(tmp_path: Path) -> None:
    """Zhang et al.'s baseline: four blocks, a bare dictionary."""
    state = names.filled(names.below("encoder.", names.cct(4, 576)) | names.vlad("aggregator.", 384, 1))
    model = imported(tmp_path, "vg-transformers", state)
    window = pixels(1, (384, 384))
    with torch.no_grad():
        tokens = literal.cct(literal.part(state, "encoder."), literal.normalised(window), 4).flatten(0, 1)
        expected = literal.vlad(tokens, state["aggregator.conv.weight"].flatten(1), state["aggregator.centroids"])
        torch.testing.assert_close(model(window[None])[0], expected, atol=2e-4, rtol=1e-3)


def test_timesformer(tmp_path: Path) -> None:
    """`.pyth` of the official program (K400, 8 frames); the time embedding of 2 frames is the nearest of 8."""
    state = names.filled(names.timesformer(8, blocks=SHORT))
    content = {"model_state": names.below("model.", state), "cfg": "x"}
    model = imported(tmp_path, "timesformer", content, options={"encoder_options": {"depth": SHORT}})
    assert model.config["length"] == 8 and model.time.shape[1] == 8
    window = pixels(2, (224, 224))
    with torch.no_grad():
        expected = literal.timesformer(state, literal.normalised(window), SHORT)
        torch.testing.assert_close(model(window[None])[0], expected, atol=2e-4, rtol=1e-3)


def test_timesformer_inside_vg_transformers_is_read_as_its_own() -> None:
    state = names.filled(names.timesformer(5, blocks=1, classes=0))
    own = read_timesformer(state, {})
    inside = read_timesformer(names.below("encoder.model.", state), {})
    assert own.options == inside.options == {"length": 5, "size": (224, 224)}
    assert own.state.keys() == inside.state.keys() and all(
        torch.equal(own.state[k], inside.state[k]) for k in own.state
    )


def netvlad_file(projection: int = 0, bias: bool = False) -> State:
    """Nanne's and SeqNet's NetVLAD, with a PCA of fewer numbers than 4,096."""
    shapes = names.vgg16() | names.vlad("pool.", 512, 2, 8)
    shapes |= {"pool.conv.bias": (8,)} if bias else {}
    if projection:
        shapes |= {"WPCA.0.weight": (projection, 8 * 512, 1, 1), "WPCA.0.bias": (projection,)}
    return names.filled(shapes)


def frame_vectors(state: State, frames: Tensor) -> Tensor:
    local = literal.vgg16(literal.part(state, "encoder."), literal.normalised(frames))
    words = state["pool.conv.weight"].flatten(1), state["pool.centroids"], state.get("pool.conv.bias")
    vectors = torch.stack([literal.vlad(tokens, *words) for tokens in local])
    if "WPCA.0.weight" in state:
        vectors = F.normalize(vectors @ state["WPCA.0.weight"].flatten(1).T + state["WPCA.0.bias"], dim=-1)
    return vectors


@pytest.mark.parametrize(("projection", "bias"), [(0, True), (24, False)])
def test_netvlad_with_and_without_its_pca(projection: int, bias: bool, tmp_path: Path) -> None:
    state = netvlad_file(projection, bias)
    content = {
        "epoch": 30,
        "state_dict": state,
        "recalls": {1: 0.8},
        "parallel": False,
        "args": argparse.Namespace(a=1),
    }
    model = imported(tmp_path, "netvlad", content, options=SMALL_VGG)
    window = pixels(3, SMALL)
    with torch.no_grad():
        expected = frame_vectors(state, window)
        torch.testing.assert_close(model.encode_frames(window), expected, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(model(window[None])[0], expected[1], atol=2e-4, rtol=1e-3)


def test_seqnet_behind_its_frame_vectors(tmp_path: Path) -> None:
    base = netvlad_file(24)
    head = names.filled({"pool.0.conv.weight": (24, 24, 3), "pool.0.conv.bias": (24,)}, seed=2)
    content = {"epoch": 1, "state_dict": head, "optimizer": {"state": {}, "param_groups": []}}
    model = imported(tmp_path, "seqnet", content, frames={"state_dict": base}, options=SMALL_VGG)
    assert (model.config["kernel"], model.config["name"]) == (3, "seqnet-vgg16")
    window = pixels(5, SMALL)
    with torch.no_grad():
        vectors = frame_vectors(base, window)
        expected = F.conv1d(vectors.T[None], head["pool.0.conv.weight"], head["pool.0.conv.bias"]).mean(-1)
        torch.testing.assert_close(model(window[None]), F.normalize(expected, dim=-1), atol=2e-4, rtol=1e-3)


def test_seqmatchnet_behind_its_frame_vectors(tmp_path: Path) -> None:
    """From several GPUs, whose wrapper is around the pooling alone."""
    wrapper, base = "module.", netvlad_file(24)
    shapes = {f"pool.{wrapper}1.conv.weight": (24, 24, 1), f"pool.{wrapper}1.conv.bias": (24,)}
    head = names.filled(shapes, seed=2)
    content = {"state_dict": head}
    model = imported(tmp_path, "seqmatchnet", content, frames={"state_dict": base}, options=SMALL_VGG)
    window = pixels(2, SMALL)
    weight, bias = (head[f"pool.{wrapper}1.conv.{kind}"] for kind in ("weight", "bias"))
    with torch.no_grad():
        mapped = F.normalize(frame_vectors(base, window) @ weight.squeeze(-1).T + bias, dim=-1)
        torch.testing.assert_close(model(window[None])[0], mapped.flatten(), atol=2e-4, rtol=1e-3)


def gem_state() -> State:
    return names.filled(VG["gem-cat-r18"][0])


BAD: dict[str, tuple[str, Callable[[], Any], str]] = {
    "another program's file": (
        "sta",
        gem_state,
        "no file of sta: it holds encoder.0.weight, .* import vg-transformers may",
    ),
    "a NetVLAD for SeqVLAD": (
        "vg-transformers",
        lambda: netvlad_file(),
        "taken for vg-transformers: .* import netvlad may take",
    ),
    "something missing": (
        "vg-transformers",
        lambda: {key: value for key, value in gem_state().items() if not key.startswith("encoder.5.1.conv2")},
        r"model gem-cat-r18: 1 missing \(encoder.backbone.layer2.1.conv2.weight\); take the whole file",
    ),
    "something left over": (
        "vg-transformers",
        lambda: {**gem_state(), "whitening.weight": torch.ones(2)},
        r"1 left over \(whitening.weight\)",
    ),
    "another shape": (
        "vg-transformers",
        lambda: {**gem_state(), "encoder.4.0.conv1.weight": torch.ones(64, 64, 1, 1)},
        r"1 of another shape \(encoder.backbone.layer1.0.conv1.weight\)",
    ),
    "no pooling with weights": (
        "vg-transformers",
        lambda: names.filled(names.resnet18()),
        "its pooling has no weights: SPoC, MAC and R-MAC cannot be told apart and are not read",
    ),
    "NetVLAD on AlexNet": (
        "netvlad",
        lambda: {**names.filled(names.vlad("pool.", 256, 2, 8)), "encoder.0.weight": torch.ones(64, 3, 11, 11)},
        "its encoder is AlexNet, which has no model here",
    ),
    "half precision": (
        "vg-transformers",
        lambda: {key: value.half() for key, value in gem_state().items()},
        "'encoder.0.weight' is in half precision",
    ),
    "not a number": (
        "vg-transformers",
        lambda: {**gem_state(), "pooling.1.p": torch.tensor([float("nan")])},
        "weights of 'pooling.p' cannot be used: 1 of 1 values",
    ),
    "a shard": (
        "vg-transformers",
        lambda: {"encoder.0.weight": torch.ones(64, 3, 7, 7)},
        "as none of 18, 34, 50 or 101",
    ),
    "SeqNet without frame vectors": (
        "seqnet",
        lambda: {"pool.0.conv.weight": torch.ones(2, 2, 3), "pool.0.conv.bias": torch.ones(2)},
        "name it with --frames",
    ),
    "space-only attention": (
        "timesformer",
        lambda: {"time_embed": torch.ones(1, 8, 768)},
        "not divided into space and time",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_fit_is_one_line_and_writes_nothing(case: str, tmp_path: Path) -> None:
    kind, content, message = BAD[case]
    with pytest.raises(ContractError, match=message) as caught:
        imported(tmp_path, kind, content())
    assert "\n" not in str(caught.value) and str(tmp_path / f"{kind}.pth") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [f"{kind}.pth"]


class Code:
    """What a hostile file holds: reading it would run a function."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_a_file_with_code_a_cut_one_and_a_page_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": gem_state(), "extra": Code()}, tmp_path / "code.pth")
    whole = tmp_path / "whole.pth"
    torch.save(gem_state(), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:100_000])
    (tmp_path / "page.pth").write_text("<html>")
    (tmp_path / "index.pth").write_text('{"weight_map": {}}')
    for name, reason in {
        "code": "no code of a file is run",
        "cut": "cut short",
        "page": "HTML",
        "index": "sharded",
    }.items():
        request = ImportRequest("vg-transformers", tmp_path / f"{name}.pth", tmp_path / "run", protocols.load("own"))
        with pytest.raises(InputError, match=reason):
            import_run(request)
    assert capsys.readouterr().out == "" and not (tmp_path / "run").exists()


def test_a_name_with_other_digits_than_the_file_s_is_a_broken_download(tmp_path: Path) -> None:
    file = tmp_path / "resnet18-f37072fd.pth"
    torch.save(gem_state(), file)
    with pytest.raises(InputError, match=r"its SHA-256 begins with .*, its name says f37072fd; download it again"):
        import_run(ImportRequest("vg-transformers", file, tmp_path / "run", protocols.load("own")))


def test_the_run_is_whole_and_never_over_another(tmp_path: Path) -> None:
    model = imported(tmp_path, "vg-transformers", gem_state(), options={"size": SMALL})
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["finished"] and record["protocol"]["name"] == "own"
    assert record["imported"]["kind"] == "vg-transformers" and len(record["imported"]["sha256"]) == 64
    assert record["model"] == model.config and model.config["weights"] == "vg-transformers.pth"
    assert record["descriptor_size"] == 5 * 256
    request = ImportRequest("vg-transformers", tmp_path / "vg-transformers.pth", run, protocols.load("own"))
    with pytest.raises(OutputError, match="not empty"):
        import_run(request)
    assert json.loads((run / "run.json").read_text()) == record
    assert {path.name for path in tmp_path.iterdir()} == {"run", "vg-transformers.pth"}

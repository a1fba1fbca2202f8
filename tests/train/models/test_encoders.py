"""Backbones: cuts, weights, BatchNorm, trainable stages; and preprocessing."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from seqdata.errors import ContractError, InputError, MissingDependencyError
from train.models.encoders import weights as weights_module
from train.models.encoders.encoder import Encoder
from train.models.encoders.preprocess import Preprocess, patch_normalise


@pytest.mark.parametrize(
    ("name", "cut", "size", "tokens", "channels"),
    [
        ("resnet18", "layer2", (32, 64), 32, 128),
        ("resnet18", "layer3", (64, 96), 24, 256),
        ("mobilenetv2_100", "blocks.2", (32, 64), 32, 32),
        ("mobilenetv2_100", None, (64, 64), 4, 1280),
        ("vit_tiny_patch16_224", None, (224, 224), 196, 192),
        ("vit_tiny_patch16_224", "blocks.2", (224, 224), 196, 192),
    ],
)
def test_tokens(name: str, cut: Any, size: Any, tokens: Any, channels: Any) -> None:
    encoder = Encoder(name, cut=cut).eval()
    with torch.no_grad():
        out = encoder(torch.randn(2, 3, *size))
    assert out.shape == (2, tokens, channels) and encoder.channels == channels


def test_tokens_run_over_the_grid_by_rows() -> None:
    encoder = Encoder("resnet18", cut="layer1").eval()
    frames = torch.randn(1, 3, 32, 64)
    backbone = timm.create_model("resnet18", features_only=True, out_indices=(1,))
    backbone.load_state_dict(encoder.backbone.state_dict(), strict=False)
    grid = backbone.eval()(frames)[0]
    torch.testing.assert_close(encoder(frames)[0, 5], grid[0, :, 0, 5])
    torch.testing.assert_close(encoder(frames)[0, 16], grid[0, :, 1, 0])


def test_batchnorm_stays_in_eval_mode_unless_asked() -> None:
    assert not any(m.training for m in Encoder("resnet10t").train().modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert all(
        m.training for m in Encoder("resnet10t", bn="train").train().modules() if isinstance(m, torch.nn.BatchNorm2d)
    )


def test_trainable_stages() -> None:
    def trained(choice: Any) -> Any:
        encoder = Encoder("resnet18", cut="layer3", trainable=choice)
        return {key.split(".")[0] for key, p in encoder.backbone.named_parameters() if p.requires_grad}

    assert trained("layer3") == {"layer3"}
    assert trained("none") == set()
    assert {"conv1", "layer1"} <= trained("all")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "file", "mean"),
    [
        ("mobilenetv2_100", "mobilenetv2_100_timm_features.pth", 0.485),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0_timm.pth", 0.5),
    ],
)
def test_real_weights_load(real: Path, name: str, file: Any, mean: Any) -> None:
    path = real / "weights" / file
    for cut in (None, "blocks.2"):
        encoder = Encoder(name, weights=path, cut=cut)
        stored = weights_module.read_state(path)
        for key, value in encoder.backbone.state_dict().items():
            assert key.endswith("num_batches_tracked") or torch.equal(value, stored[key])
    assert encoder.mean[0] == pytest.approx(mean)


def test_files_of_both_kinds_with_a_classifier(tmp_path: Path) -> None:
    full = timm.create_model("resnet10t", num_classes=7)
    torch.save({"state_dict": full.state_dict()}, tmp_path / "w.pth")
    safetensors.torch.save_file(full.state_dict(), tmp_path / "w.safetensors")
    for file in ("w.pth", "w.safetensors"):
        encoder = Encoder("resnet10t", weights=tmp_path / file)
        assert torch.equal(encoder.backbone.conv1[0].weight, full.conv1[0].weight)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    state["conv1.0.other"] = state.pop("conv1.0.weight")
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ContractError, match=r"missing \(conv1.0.weight\).*unexpected \(conv1.0.other\)"):
        Encoder("resnet10t", weights=tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="no such weights file"):
        Encoder("resnet10t", weights=tmp_path / "absent.pth")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not readable"):
        Encoder("resnet10t", weights=tmp_path / "bad.pth")


def test_a_missing_download_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host\nand a long traceback")

    monkeypatch.setattr(weights_module.timm, "create_model", offline)
    with pytest.raises(MissingDependencyError, match=r"--weights FILE.*--random-init") as caught:
        Encoder("resnet18", weights="pretrained")
    assert "\n" not in str(caught.value)


def test_preprocess_normalises_and_resizes() -> None:
    step = Preprocess((0.5, 0.5, 0.5), (0.25, 0.5, 1.0), size=(8, 12))
    out = step(torch.full((1, 3, 16, 24), 255, dtype=torch.uint8))
    assert out.shape == (1, 3, 8, 12)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.5]))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        step(torch.zeros(3, 16, 24))


def test_patch_normalisation_equals_loops_and_ignores_light() -> None:
    grey = torch.rand(1, 1, 12, 20) * 255
    out = patch_normalise(grey, 8, floor=0.0)
    for top, left in ((0, 0), (0, 8), (8, 16)):
        block = grey[0, 0, top : top + 8, left : left + 8]
        expected = (block - block.mean()) / block.std(unbiased=False)
        torch.testing.assert_close(out[0, 0, top : top + 8, left : left + 8], expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(patch_normalise(grey * 0.5 + 30, 8, floor=0.0), out, atol=1e-3, rtol=1e-3)
    step = Preprocess((0.5,) * 3, (0.5,) * 3, patch_normalised=True)
    image = torch.rand(1, 3, 16, 16) * 255
    same = step(image)
    assert torch.equal(same[:, 0], same[:, 2]) and F.l1_loss(same.mean(), torch.tensor(0.0)) < 0.1

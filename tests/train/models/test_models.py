"""The models' one shape, their names, and what they depend on."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqdata.errors import ContractError, MissingDependencyError
from train.models import registry as models
from train.runs import checkpoint

FRAMES = (3, 16, 24)
SMALL = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24)}


def frames(*lead: Any, seed: Any = 0) -> Any:
    return torch.randint(0, 256, (*lead, *FRAMES), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["seqvlad-r18", "gem-cat-r18", "avg-mean-mobilenetv2", "seqvlad-small"])
@pytest.mark.parametrize("length", [1, 3])
def test_shape_and_size(name: str, length: int) -> None:
    model = models.create(name, **SMALL)
    out = model(frames(2, length))
    assert out.shape == (2, model.descriptor_size(length)) and out.dtype == torch.float32
    features = model.encode_frames(frames(2, length).flatten(0, 1))
    again = model.fuse(features.unflatten(0, (2, length)))
    torch.testing.assert_close(again, out)


@pytest.mark.parametrize("name", ["seqvlad-small", "gem-cat-small"])
def test_batch_mates_change_nothing(tiny: Any, name: str) -> None:
    model = tiny(name).train()
    batch = frames(4, 3)
    alone = torch.cat([model(window.unsqueeze(0)) for window in batch])
    torch.testing.assert_close(model(batch), alone, atol=1e-5, rtol=1e-4)


def test_frame_order(tiny: Any) -> None:
    window = frames(1, 4)
    backwards = window.flip(1)
    vlad, cat = tiny("seqvlad-small"), tiny("gem-cat-small")
    torch.testing.assert_close(vlad(window), vlad(backwards), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(cat(window), cat(backwards), atol=1e-3)


def test_cat_is_raw_unless_asked(tiny: Any) -> None:
    window = frames(2, 3)
    assert not torch.allclose(tiny("gem-cat-small")(window).norm(dim=1), torch.ones(2), atol=1e-3)
    torch.testing.assert_close(tiny("gem-cat-small", normalize=True)(window).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", ["seqvlad-small", "gem-cat-small"])
def test_gradient_reaches_the_encoder(tiny: Any, name: str) -> None:
    model = tiny(name)
    model(frames(2, 3)).pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*model.encoder.parameters()][:2])


def test_config_recreates_the_model() -> None:
    model = models.create("seqvlad-r18", **SMALL, clusters=3, bias=True, seed=5)
    again = models.create(**model.config)
    torch.testing.assert_close(model(frames(1, 2)), again(frames(1, 2)), rtol=0, atol=0)


def test_seeds_differ_and_repeat() -> None:
    first, same, other = (models.create("gem-cat-r18", **SMALL, seed=seed) for seed in (1, 1, 2))
    window = frames(1, 2)
    assert torch.equal(first(window), same(window))
    assert not torch.allclose(first(window), other(window))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("seqvald-r18", {}, "no model 'seqvald-r18'; near it: .*seqvlad-r18.*; seqdata models lists all"),
        ("cct384", {}, "near it: seqnet-cct384, seqpool-cat-cct384, seqvlad-cct384, seqvlad-cct384-four; "),
        ("zzz", {}, "no model 'zzz'; seqdata models lists all"),
        ("seqvlad-r18", {"colour": 1}, "no option 'colour'"),
        ("seqvlad-r18", {"cut": "layer9"}, "layer3"),
        ("seqvlad-r18", {"encoder": "resnet_nought"}, "no such timm model"),
        ("seqvlad-r18", {"fusion": "cat"}, "do not fit"),
        ("gem-cat-r18", {"fusion": "sum"}, "do not fit"),
        ("gem-cat-r18", {"bias": True}, "VLAD"),
        ("seqvlad-r18", {"normalize": False}, "always ends in L2"),
        ("seqvlad-r18", {"clusters": 0}, "clusters"),
        ("seqvlad-r18", {"trainable": "layer4"}, "nothing named 'layer4'"),
        ("cls-cat-vit", {"encoder": "test_vit", "size": (100, 160)}, "patches of 16 pixels do not divide"),
        (
            "cls-cat-vit",
            {"encoder": "vit_tiny_patch16_224", "size": (32, 48)},
            "of 32×48: Input height.*224×224",
        ),
        (
            "gem-cat-r18",
            {"encoder": "levit_128s", "size": (64, 96)},
            "cannot take frames of 64×96: .*224×224",
        ),
        ("gem-cat-r18", {"encoder": "inception_v3", "size": (64, 96)}, "'inception_v3' cannot take frames of 64×96"),
        ("gem-cat-r18", {"encoder": "crossvit_tiny_240"}, "ends in several feature maps"),
        ("gem-cat-r18", {"size": (-8, 8)}, "'size.0': Input should be greater than 0"),
        ("sta", {"size": (0, 8)}, "'size.0': Input should be greater than 0"),
        ("sta", {"encoder": "vit_tiny_patch16_224"}, "cannot take frames of 384×384: .*224×224"),
        (
            "timesformer",
            {"encoder": "vit_tiny_patch16_224", "size": (50, 60)},
            "50×60: patches of 16 pixels",
        ),
        ("timesformer", {"encoder": "test_vit", "size": (48, -16)}, "'size.1': Input should be greater than 0"),
        ("r2plus1d-r18", {"size": (8, 0)}, "'size.1': Input should be greater than 0"),
        ("gem-cat-r18", {"encoder_options": {"checkpoint_path": "x.pth"}}, "may not set 'checkpoint_path'"),
        ("gem-cat-r18", {"encoder_options": {"pretrained_cfg_overlay": {"file": "x"}}}, "'pretrained_cfg_overlay'"),
        ("timesformer", {"encoder_options": {"cache_dir": "x"}}, "may not set 'cache_dir'"),
    ],
)
def test_wrong_combinations_are_refused(name: str, options: Any, said: Any) -> None:
    with pytest.raises(ContractError, match=said) as caught:
        models.create(name, **options)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_other_shapes_are_refused(tiny: Any) -> None:
    with pytest.raises(ValueError, match=r"\(B, L, 3, H, W\)"):
        tiny()(frames(2))


def test_another_encoder_forgets_the_presets_stages() -> None:
    chosen = models.resolve("seqvlad-r18", {"encoder": "mobilenetv2_100"})
    assert chosen.cut is None and chosen.trainable == "all" and chosen.size == (480, 640)
    assert models.resolve("seqvlad-r18", {"clusters": 8}).cut == "layer3"
    with pytest.raises(ContractError, match="nonsense"):
        models.create("seqvlad-small", encoder_options={"nonsense": 1})


def test_random_residual_branches_are_open() -> None:
    model = models.create("seqvlad-small")
    assert all(bool(m.weight.any()) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


TINY = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24), "clusters": 3}


def test_fc_takes_its_own_length_only() -> None:
    model = models.create("netvlad-fc-r18", **TINY, width=6, length=3)
    assert model(frames(2, 3)).shape == (2, 6)
    with pytest.raises(ContractError, match="windows of 3 frames only, not 4"):
        model(frames(2, 4))
    with pytest.raises(ContractError, match="3 frames only"):
        model.descriptor_size(4)


def test_a_free_choice_of_encoder_pooling_and_fusion() -> None:
    model = models.create("frames", encoder="resnet10t", cut="layer1", pooling="gem", fusion="gem", size=(16, 24))
    assert model(frames(1, 2)).shape == (1, model.descriptor_size(2))
    with pytest.raises(ContractError, match="no CLS token"):
        models.create("frames", encoder="resnet10t", pooling="cls", fusion="cat")
    with pytest.raises(ContractError, match="leave projection unset"):
        models.create("seqvlad-small", projection=4)


def test_models_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ourteam.py").write_text(
        "from train.models import registry as models\n"
        "def tiny(weights, seed, clusters=2):\n"
        "    return models.create('seqvlad-small', weights=weights, seed=seed, encoder='resnet10t', cut='layer1',\n"
        "                         clusters=clusters, size=(16, 24))\n"
        "def wrong(weights, seed):\n"
        "    return 5\n"
        "def broken(weights, seed):\n"
        "    raise TypeError('must be str')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = models.create("ourteam:tiny", clusters=3)
    assert model.config == {"name": "ourteam:tiny", "weights": "random", "seed": 0, "clusters": 3}
    checkpoint.save_model(tmp_path / "m", model, {})
    with pytest.raises(ContractError, match="--model-from ourteam:tiny"):
        checkpoint.load_model(tmp_path / "m")
    again = checkpoint.load_model(tmp_path / "m", model_from="ourteam:tiny")
    torch.testing.assert_close(again(frames(1, 2)), model(frames(1, 2)))
    for name, said in (("ourteam:none", "no function 'none'"), ("ourteam:wrong", "returned int")):
        with pytest.raises(ContractError, match=said):
            models.create(name)
    with pytest.raises(ContractError, match=r"refuses these options.*colour"):
        models.create("ourteam:tiny", colour=1)
    with pytest.raises(TypeError, match="must be str"):
        models.create("ourteam:broken")  # a fault of theirs is not said to be the options'
    with pytest.raises(MissingDependencyError, match="nowhere"):
        models.create("nowhere:model")


def test_a_module_of_the_working_directory_is_found_and_shadows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "besides.py").write_text(
        "import colorsys\nfrom train.models import registry as models\n"
        "def tiny(weights, seed):\n    return models.create('gem-cat-small', encoder='resnet10t', cut='layer1')\n"
    )
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the wrong colorsys')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = [*sys.path]
    assert models.create("besides:tiny").config["name"] == "besides:tiny"
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "besides")


def test_a_model_that_an_installed_package_offers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offered.py").write_text(
        "from train.models import registry as models\n"
        "def tiny(weights, seed, clusters=2):\n"
        "    return models.create('seqvlad-small', weights=weights, seed=seed, encoder='resnet10t', cut='layer1',\n"
        "                         clusters=clusters, size=(16, 24))\n"
    )
    info = tmp_path / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[seqdata.models]\nofferedvlad = offered:tiny\n")
    assert "offeredvlad" not in models.names()
    monkeypatch.syspath_prepend(tmp_path)
    assert "offeredvlad" in models.names()
    model = models.create("offeredvlad", clusters=3, seed=4)
    assert model.config == {"name": "offeredvlad", "weights": "random", "seed": 4, "clusters": 3}
    checkpoint.save_model(tmp_path / "m", model, {})
    again = checkpoint.load_model(tmp_path / "m")
    torch.testing.assert_close(again(frames(1, 2)), model(frames(1, 2)), rtol=0, atol=0)
    with pytest.raises(ContractError, match="no model 'offeredvlat'; near it: offeredvlad"):
        models.create("offeredvlat")


def test_the_methods_of_the_papers_have_their_backbone_without_its_name() -> None:
    for method in ("delta", "netvlad", "seqmatchnet"):
        assert models.preset(method) == models.preset(f"{method}-vgg16")
    assert models.resolve("delta", {}).encoder == "vgg16.tv_in1k"


@pytest.mark.parametrize("name", [name for name in models.names() if name.startswith("delta")])
def test_delta_trains_no_encoder(name: str) -> None:
    model = models.create(name, clusters=2, projection=4, size=(32, 32))
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert model.vlad.centres.requires_grad  # its words still come from k-means

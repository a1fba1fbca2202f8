"""The models' one shape, their names, and what they depend on."""

import pytest
import torch

from seqdata.errors import ContractError, MissingDependencyError
from train import models

FRAMES = (3, 16, 24)
SMALL = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24)}


def frames(*lead, seed=0):
    return torch.randint(0, 256, (*lead, *FRAMES), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["seqvlad-r18", "gem-cat-r18", "avg-mean-mobilenetv2", "seqvlad-small"])
@pytest.mark.parametrize("length", [1, 3])
def test_shape_and_size(name, length):
    model = models.create(name, **SMALL)
    out = model(frames(2, length))
    assert out.shape == (2, model.descriptor_size(length)) and out.dtype == torch.float32
    features = model.encode_frames(frames(2, length).flatten(0, 1))
    again = model.fuse(features.unflatten(0, (2, length)))
    torch.testing.assert_close(again, out)


@pytest.mark.parametrize("name", ["seqvlad-small", "gem-cat-small"])
def test_batch_mates_change_nothing(tiny, name):
    model = tiny(name).train()
    batch = frames(4, 3)
    alone = torch.cat([model(window.unsqueeze(0)) for window in batch])
    torch.testing.assert_close(model(batch), alone, atol=1e-5, rtol=1e-4)


def test_frame_order(tiny):
    window = frames(1, 4)
    backwards = window.flip(1)
    vlad, cat = tiny("seqvlad-small"), tiny("gem-cat-small")
    torch.testing.assert_close(vlad(window), vlad(backwards), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(cat(window), cat(backwards), atol=1e-3)


def test_cat_is_raw_unless_asked(tiny):
    window = frames(2, 3)
    assert not torch.allclose(tiny("gem-cat-small")(window).norm(dim=1), torch.ones(2), atol=1e-3)
    torch.testing.assert_close(tiny("gem-cat-small", normalize=True)(window).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", ["seqvlad-small", "gem-cat-small"])
def test_gradient_reaches_the_encoder(tiny, name):
    model = tiny(name)
    model(frames(2, 3)).pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*model.encoder.parameters()][:2])


def test_config_recreates_the_model():
    model = models.create("seqvlad-r18", **SMALL, clusters=3, bias=True, seed=5)
    again = models.create(**model.config)
    torch.testing.assert_close(model(frames(1, 2)), again(frames(1, 2)), rtol=0, atol=0)


def test_seeds_differ_and_repeat():
    first, same, other = (models.create("gem-cat-r18", **SMALL, seed=seed) for seed in (1, 1, 2))
    window = frames(1, 2)
    assert torch.equal(first(window), same(window))
    assert not torch.allclose(first(window), other(window))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no-such", {}, "seqvlad-r18"),
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
        ("cls-cat-vit", {"encoder": "vit_tiny_patch16_224", "size": (32, 48)}, "takes frames of 224×224, not 32×48"),
    ],
)
def test_wrong_combinations_are_refused(name, options, said):
    with pytest.raises(ContractError, match=said):
        models.create(name, **options)


def test_other_shapes_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(B, L, 3, H, W\)"):
        tiny()(frames(2))


def test_another_encoder_forgets_the_presets_stages():
    chosen = models.resolve("seqvlad-r18", {"encoder": "mobilenetv2_100"})
    assert chosen.cut is None and chosen.trainable == "all" and chosen.size == (480, 640)
    assert models.resolve("seqvlad-r18", {"clusters": 8}).cut == "layer3"
    with pytest.raises(ContractError, match="nonsense"):
        models.create("seqvlad-small", encoder_options={"nonsense": 1})


def test_random_residual_branches_are_open():
    model = models.create("seqvlad-small")
    assert all(bool(m.weight.any()) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


TINY = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24), "clusters": 3}
NARROW = {"width": 6, "projection": 5}


def tiny_options(name):
    """Options that make any late or intermediate fusion preset run in milliseconds."""
    preset = models.preset(name)[1]
    options = {"encoder": "test_vit", "trainable": "all", "size": (160, 160)} if preset["pooling"] == "cls" else TINY
    return options | {key: value for key, value in NARROW.items() if key == "width" or key in preset}


FRAME_PRESETS = sorted(set(models.FAMILIES["frames"].presets) - {"frames"})


@pytest.mark.parametrize("name", FRAME_PRESETS)
def test_every_frame_preset_trains_saves_and_reloads(name, tmp_path):
    from train import checkpoint

    model = models.create(name, **tiny_options(name))
    height, width = model.size
    windows = torch.randint(0, 256, (2, 5, 3, height, width), generator=torch.Generator().manual_seed(1))
    out = model.train()(windows)
    assert out.shape == (2, model.descriptor_size(5))
    out.pow(3).sum().backward()
    moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters() if p.requires_grad]
    assert any(moved)
    checkpoint.save_model(tmp_path / "m", model, {})
    again = checkpoint.load_model(tmp_path / "m")
    torch.testing.assert_close(again(windows), model.eval()(windows), rtol=0, atol=0)


def test_fc_takes_its_own_length_only():
    model = models.create("netvlad-fc-r18", **TINY, width=6, length=3)
    assert model(frames(2, 3)).shape == (2, 6)
    with pytest.raises(ContractError, match="windows of 3 frames only, not 4"):
        model(frames(2, 4))
    with pytest.raises(ContractError, match="3 frames only"):
        model.descriptor_size(4)


def test_a_free_choice_of_encoder_pooling_and_fusion():
    model = models.create("frames", encoder="resnet10t", cut="layer1", pooling="gem", fusion="gem", size=(16, 24))
    assert model(frames(1, 2)).shape == (1, model.descriptor_size(2))
    with pytest.raises(ContractError, match="no CLS token"):
        models.create("frames", encoder="resnet10t", pooling="cls", fusion="cat")
    with pytest.raises(ContractError, match="leave projection unset"):
        models.create("seqvlad-small", projection=4)


def test_models_of_other_packages(tmp_path, monkeypatch):
    from train import checkpoint

    (tmp_path / "ourteam.py").write_text(
        "from train import models\n"
        "def tiny(weights, seed, clusters=2):\n"
        "    return models.create('seqvlad-small', weights=weights, seed=seed, encoder='resnet10t', cut='layer1',\n"
        "                         clusters=clusters, size=(16, 24))\n"
        "def wrong(weights, seed):\n"
        "    return 5\n"
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
    with pytest.raises(ContractError, match="refuses these options"):
        models.create("ourteam:tiny", colour=1)
    with pytest.raises(MissingDependencyError, match="nowhere"):
        models.create("nowhere:model")

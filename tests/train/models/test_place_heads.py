"""SALAD, BoQ, MixVPR and AnyLoc against slow, literal versions in float64, and the encoders that they read."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from seqdata.errors import ContractError, UsageError
from tests.support import place_literal as literal
from tests.support import place_names as names
from tests.support.released_literal import part
from tests.support.released_names import filled
from train.models import registry as models
from train.models.card import outline
from train.models.encoders.encoder import Encoder, Output
from train.models.pooling.boq import Boq, BoqOptions
from train.models.pooling.mixvpr import MixOptions, MixVpr
from train.models.pooling.salad import EARLIER_SALAD, Salad, SaladOptions
from train.models.pooling.vlad import NetVLAD, initialise_from_tokens, kmeans
from train.models.presets import DINO
from train.released.place_programs import _BOQ_RULES, _MIX_RULES, _SALAD_RULES
from train.released.reading import rename

TINY_DINO = {"encoder": "vit_small_patch14_dinov2", "encoder_options": {"dynamic_img_size": True, "depth": 2}}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(layer: Any, state: dict[str, Tensor], rules: Any) -> Any:
    """A layer in float64 with the tensors of the program's names."""
    renamed = {key.removeprefix("pooling."): value for key, value in rename(state, rules).items()}
    own = layer.state_dict()
    layer.load_state_dict({key: renamed[key].reshape(own[key].shape) for key in own})
    return layer.double().eval()


def double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in state.items()}


def salad_head() -> tuple[Tensor, Tensor]:
    """Ours and the literal one, of two frames."""
    state, tokens = filled(names.salad_head("", channels=24, width=6, hidden=16)), randn(2, 1 + 90, 24)
    layer = fill(Salad(24, 64, SaladOptions(hidden=16, width=6)), state, _SALAD_RULES)
    return layer(tokens), torch.stack([literal.salad(frame, double(state)) for frame in tokens])


def boq_head() -> tuple[Tensor, Tensor]:
    state = filled({key.removeprefix("aggregator."): shape for key, shape in names.boq_head(10, 128, 5).items()})
    maps = randn(2, 10, 3, 4)
    layer = fill(Boq(10, (3, 4), BoqOptions(width=128, rows=5)), state, _BOQ_RULES)
    expected = torch.stack([literal.boq(frame, double(state)) for frame in maps])
    return layer(maps.flatten(2).transpose(1, 2)), expected


def mixvpr_head() -> tuple[Tensor, Tensor]:
    shapes = {k.removeprefix("aggregator."): s for k, s in names.mixvpr(6, 3, side=4).items() if k.startswith("agg")}
    shapes["channel_proj.weight"] = (6, 10)
    state, tokens = filled(shapes), randn(2, 16, 10)
    layer = fill(MixVpr(10, 16, MixOptions(channels=6, rows=3)), state, _MIX_RULES)
    return layer(tokens), torch.stack([literal.mixvpr(frame, double(state)) for frame in tokens])


def anyloc_head() -> tuple[Tensor, Tensor]:
    """Token by token to the word of the greatest cosine; residuals of unit tokens."""
    layer, tokens = NetVLAD(3, 5, hard=True).double(), randn(2, 40, 5)
    initialise_from_tokens(layer, tokens)
    words, expected = layer.centres.detach(), []
    for frame in tokens:
        sums = torch.zeros(3, 5, dtype=torch.float64)
        for token in F.normalize(frame, dim=-1):
            cosines = [float(token @ word / word.norm()) for word in words]
            k = cosines.index(max(cosines))
            sums[k] += token - words[k]
        expected.append(F.normalize(torch.cat([F.normalize(word, dim=0) for word in sums]), dim=0))
    return layer(tokens), torch.stack(expected)


HEADS = {"SALAD": salad_head, "BoQ": boq_head, "MixVPR": mixvpr_head, "VLAD of AnyLoc": anyloc_head}


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_heads_are_their_formulas_in_float64(head: str) -> None:
    ours, literally = HEADS[head]()
    torch.testing.assert_close(ours, literally, atol=1e-12, rtol=1e-10)


def test_salad_drops_in_training_alone_and_its_cls_says_the_global_vector() -> None:
    layer, tokens = Salad(8, 4, SaladOptions(hidden=6, width=3, global_width=2)).double(), randn(1, 1 + 12, 8)
    changed = torch.cat([tokens[:, :1] + 1, tokens[:, 1:]], dim=1)
    with torch.no_grad():
        still, moved = layer.eval()(tokens)[0], layer(changed)[0]
        assert torch.equal(still, layer(tokens)[0]) and torch.equal(
            still[2:] / still[2:].norm(), moved[2:] / moved[2:].norm()
        )
        assert not torch.allclose(still[:2], moved[:2])
        assert not torch.equal(layer.train()(tokens), layer(tokens))


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (Salad(4, 2, SaladOptions(hidden=3, width=2, global_width=2)), 1 + 6),
        (Boq(3, (2, 3), BoqOptions(width=64, queries=2, blocks=1, rows=2)), 6),
        (MixVpr(3, 6, MixOptions(depth=1, channels=2, rows=2)), 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients_are_the_functions_own(layer: Any, count: int) -> None:
    layer, channels = layer.double().eval(), 4 if isinstance(layer, Salad) else 3
    tokens = randn(1, count, channels, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (tokens,), fast_mode=True)


def test_stored_salad_keeps_its_layers_and_numbers() -> None:
    """A model of the first version: hidden layers as wide as tokens, the mean in place of CLS, clusters in rows."""
    config = {"name": "salad-mean-small", "clusters": 3, "encoder": "resnet10t", "cut": "layer1", "size": [16, 24]}
    config |= {"pooling": "salad", "fusion": "mean", "trainable": "all", "encoder_options": {}}
    model = models.restore(config)
    shapes = {key: tuple(value.shape) for key, value in model.pooling.state_dict().items()}
    assert shapes["score.0.weight"] == (64, 64) and shapes["score.2.weight"] == (3, 64) and "dustbin" in shapes
    assert model.config["pooling_options"] is None and len(shapes) == 13
    tokens = torch.randn(2, 9, 64)
    with torch.no_grad():
        theirs = Salad(64, 3, SaladOptions(**{**EARLIER_SALAD, "rows": "width"}), seed=0)
        theirs.load_state_dict(model.pooling.state_dict())
        ours, other = model.pooling(tokens), theirs(tokens)
    torch.testing.assert_close(ours[:, 256:].unflatten(1, (3, 128)).transpose(1, 2).flatten(1), other[:, 256:])
    assert models.restore(model.config).pooling.options == model.pooling.options


def test_hard_assignment_trains_words_alone() -> None:
    layer = NetVLAD(3, 5, hard=True)
    assert not layer.assignment.requires_grad and layer.centres.requires_grad


def test_words_by_cosine_are_means_of_the_points_that_are_nearest_by_cosine() -> None:
    points = F.normalize(randn(200, 4), dim=-1).float()
    centres = kmeans(points, 5, by_cosine=True)
    owner = (points @ F.normalize(centres, dim=-1).T).argmax(1)
    means = torch.stack([points[owner == k].mean(0) for k in range(5)])
    torch.testing.assert_close(centres, means, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("facet", "third"), [("query", 0), ("key", 1), ("value", 2)])
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
@torch.no_grad()
def test_a_facet_is_what_a_hook_on_the_block_s_attention_sees(name: str, facet: Any, third: int) -> None:
    size = (56, 56) if "v2" in name else (64, 64)
    options = {"depth": 3, "img_size": size}
    encoder = Encoder(name, cut="blocks.1", output=Output(facet=facet), options=options).eval()
    whole = timm.create_model(name, num_classes=0, **options).eval()
    torch.manual_seed(0)
    own = encoder.backbone.state_dict()
    source = {key.replace("blocks.1.norm1", "blocks.1.norm").replace("blocks.1.attn.qkv", "blocks.1.qkv"): value
              for key, value in whole.state_dict().items()}  # fmt: skip
    encoder.backbone.load_state_dict({key: source[key] for key in own})
    seen: list[Tensor] = []
    whole.blocks[1].attn.qkv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    frames = torch.randn(2, 3, *size)
    whole(frames)
    expected = seen[0][:, whole.num_prefix_tokens :].chunk(3, dim=-1)[third]
    torch.testing.assert_close(encoder(frames), expected, atol=1e-5, rtol=1e-4)
    assert "blocks.1.mlp.fc1.weight" not in own


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_small_patch14_reg4_dinov2"]
)
@pytest.mark.parametrize("cut", [None, "blocks.1"])
@torch.no_grad()
def test_all_tokens_are_the_cls_and_the_grid_without_registers(name: str, cut: str | None) -> None:
    size = (56, 56) if "14" in name else (64, 64)
    options = {"depth": 2, "img_size": size}
    grid, both = (
        Encoder(name, cut=cut, output=Output(part_name), options=options).eval() for part_name in ("grid", "all")
    )  # of one seed
    frames = torch.randn(1, 3, *size)
    assert both(frames).shape == (1, 1 + 16, 384) and torch.equal(both(frames)[:, 1:], grid(frames))
    if cut is None:
        assert torch.equal(both(frames)[:, 0], both.backbone.forward_features(frames)[:, 0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("frames", {"pooling": "salad", "fusion": "mean"}, 'no CLS token at its end.*global_from":"mean"'),
        ("frames", {"pooling": "boq", "fusion": "mean"}, r"'boq' is made for one grid; set size=\[HEIGHT,WIDTH\]"),
        (
            "frames",
            {"pooling": "gem", "fusion": "mean", "pooling_options": {"p": 1}},
            "'gem' has no option 'p'.*: none",
        ),
        ("salad", {"pooling_options": {"wide": 1}}, "no option 'wide'.*there are: hidden, width"),
        ("boq-r50", {"pooling_options": {"width": 100}}, "'width': Input should be a multiple of 64"),
        ("frames", {"pooling": "avg", "fusion": "mean", "facet": "value"}, "no facet 'value'.* set cut=blocks.N"),
        ("anyloc-dinov2-s", {"cut": None}, "no facet 'value'"),
    ],
)
def test_what_cannot_work_is_one_line(name: str, options: Any, message: str) -> None:
    with pytest.raises((ContractError, UsageError), match=message) as caught:
        models.create(name, **options)
    assert "\n" not in str(caught.value)


def test_options_of_a_pooling_go_over_the_preset_s_and_leave_with_it() -> None:
    model = outline("boq-r50", size=(32, 32), pooling_options={"rows": 2})
    assert model.config["pooling_options"] == {"width": 512, "queries": 64, "blocks": 2, "rows": 2}
    assert outline("boq-r50", pooling="gem").config["pooling_options"] == {}


METHODS = ("seqvlad", "salad-mean", "boq-mean", "cls-cat", "avg-cat", "seqgem", "mean")


@pytest.mark.parametrize("name", [f"{method}-{name}" for method in METHODS for name in DINO])
def test_dino_presets_are_there_in_three_sizes(name: str) -> None:
    options = models.resolve(name, {})
    size, generation = {"s": "small", "b": "base", "l": "large"}[name[-1]], name[-3]
    assert options.encoder == f"vit_{size}_patch{14 if generation == '2' else 16}_dinov{generation}"
    assert options.trainable == ("blocks.20" if size == "large" else "blocks.8") and options.size == (224, 224)


@pytest.mark.parametrize(
    "name",
    [f"{method}-dinov{version}-s" for method in ("seqvlad", "salad-mean", "boq-mean") for version in (2, 3)],
)
def test_presets_on_small_ones_describe_windows_of_their_size(name: str) -> None:
    model = outline(name)
    windows = torch.zeros(1, 2, 3, 224, 224, dtype=torch.uint8, device="meta")
    sizes = {"seqvlad": 64 * 384, "salad-mean": 8448, "boq-mean": 12288}
    assert model(windows).shape == (1, model.descriptor_size(2)) == (1, sizes[name.rpartition("-dino")[0]])


def test_last_four_blocks_are_trained_as_by_the_authors_of_salad() -> None:
    for name in ("megaloc", "seqvlad-dinov3-s"):
        trained = {key for key, value in outline(name).encoder.named_parameters() if value.requires_grad}
        blocks = {key.split(".")[2] for key in trained if ".blocks." in key}
        assert blocks == {"8", "9", "10", "11"}, name


@pytest.mark.parametrize("pooling", ["salad", "boq", "mixvpr", "vlad"])
def test_a_step_changes_the_head(pooling: str) -> None:
    model = models.create(
        "frames", pooling=pooling, fusion="sum" if pooling == "vlad" else "mean", size=(28, 28), clusters=2, **TINY_DINO
    )
    frames = torch.randint(0, 256, (2, 3, 3, 28, 28), dtype=torch.uint8)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    before = [value.clone() for value in model.pooling.parameters()]
    model.train()(frames).pow(3).sum().backward()
    optimizer.step()
    assert all(p.grad is not None for p in model.pooling.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.pooling.parameters(), strict=True))


def test_parts_of_files_are_all_named() -> None:
    """No name of a head's file is left as it is."""
    for rules, shapes in ((_SALAD_RULES, names.salad_head("")), (_MIX_RULES, part(names.mixvpr(), "aggregator."))):
        assert all(key.startswith("pooling.") for key in rename(shapes, rules))

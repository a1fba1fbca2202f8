"""Where the papers' models start: their files, their pixel statistics, and the same for models stored before."""

from pathlib import Path
from typing import Any

import pytest
import torch

from train.models import registry as models
from train.models.base import SequenceModel
from train.models.card import outline
from train.models.presets import METHODS, PAPER_METHODS, ROWS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Encoders of the papers' rows, as their programs name the files: torchvision's, google/vit-base-patch16-224-in21k,
# timm's "jx" for TimeSformer, and Compact-Transformers' two.
FILES = {
    "r18": "resnet18.tv_in1k",
    "r50": "resnet50.tv_in1k",
    "vgg16": "vgg16.tv_in1k",
    "vit": "vit_base_patch16_224.orig_in21k",
    "cct224": "cct_14_7x2_224",
    "cct384": "cct_14_7x2_384",
}
ROWS_OF_THE_PAPERS = [
    (f"{method}-{backbone}", FILES[backbone])
    for method in PAPER_METHODS
    for backbone in ROWS[method]
    if backbone in FILES
]
OTHERS = [
    ("timesformer", "vit_base_patch16_224.orig_in21k_ft_in1k"),
    ("sta", "cct_14_7x2_384"),
    ("r2plus1d-r50", "resnet50.tv_in1k"),
]


def statistics(model: SequenceModel) -> tuple[list[float], list[float]]:
    """Mean and deviation that frames are really normalised by, from what black and white pixels become."""
    size = model.preprocess.size
    model.preprocess.size = None
    black, white = (model.preprocess(torch.full((1, 3, 1, 1), value)).flatten() for value in (0.0, 255.0))
    model.preprocess.size = size
    deviation = 1.0 / (white - black)
    return (-black * deviation).tolist(), deviation.tolist()


@pytest.mark.parametrize(("name", "file"), [*ROWS_OF_THE_PAPERS, *OTHERS])
def test_rows_of_the_papers_start_from_their_files(name: str, file: str) -> None:
    assert models.resolve(name, {}).encoder == file


@pytest.mark.parametrize("name", ["cls-cat-vit", "cls-fc-vit", "seqvlad-vit", "timesformer", "seqvlad-r18", "sta"])
def test_the_papers_normalise_every_backbone_by_imagenet(name: str) -> None:
    options: dict[str, Any] = {"encoder": "vit_tiny_patch16_224"} if name == "timesformer" else {}
    mean, std = statistics(models.create(name, **options))
    assert mean == pytest.approx(IMAGENET_MEAN, abs=1e-6) and std == pytest.approx(IMAGENET_STD, abs=1e-6)


def test_models_of_ours_take_the_statistics_and_weights_of_timm() -> None:
    for method in METHODS.keys() - PAPER_METHODS.keys():
        for backbone in ROWS[method]:
            assert "." not in models.resolve(f"{method}-{backbone}", {}).encoder
    mean, std = statistics(models.create("mean-vit", encoder="vit_tiny_patch16_224", size=(224, 224)))
    assert mean == pytest.approx([0.5] * 3) and std == pytest.approx([0.5] * 3)


def test_another_encoder_brings_its_own_statistics_and_other_weights_of_the_same_one_do_not() -> None:
    other = models.resolve("cls-cat-vit", {"encoder": "vit_small_patch16_224"})
    assert (other.mean, other.std) == (None, None)
    same = models.resolve("seqvlad-r18", {"encoder": "resnet18.a1_in1k"})
    assert (same.encoder, same.cut, same.trainable) == ("resnet18.a1_in1k", "layer3", "layer3")


@pytest.mark.parametrize("name", ["cls-cat-vit", "timesformer"])
def test_a_model_stored_before_keeps_its_statistics_and_its_weights(name: str) -> None:
    """The stored configuration of an earlier version, as its checkpoints hold it."""
    tiny = {"encoder": "test_vit", "size": (32, 48), "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    tiny |= {"encoder_options": {"dynamic_img_size": True}} if name == "cls-cat-vit" else {}
    config = models.create(name, **tiny).config
    added = models.preset(name)[0].added
    mean, std = statistics(models.restore({key: value for key, value in config.items() if key not in added}))
    assert mean == pytest.approx([0.5] * 3) and std == pytest.approx([0.5] * 3)
    mean, _ = statistics(models.restore(config))
    assert mean == pytest.approx(IMAGENET_MEAN, abs=1e-6)


def test_statistics_are_a_setting_of_any_model() -> None:
    model = models.create(
        "frames", encoder="resnet10t", pooling="gem", fusion="mean", mean=(0.1, 0.2, 0.3), std=(1, 2, 4)
    )
    mean, std = statistics(model)
    assert mean == pytest.approx([0.1, 0.2, 0.3]) and std == pytest.approx([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("seqvlad-r18", {"pooling": "vlad", "fusion": "sum"}),
        ("gem-cat-r18", {"pooling": "gem", "fusion": "cat"}),
        ("mean-r18", {"pooling": "avg", "fusion": "mean"}),
        ("seqgem-r18", {"pooling": "avg", "fusion": "gem"}),
    ],
)
def test_a_model_named_by_its_parts_is_treated_as_the_preset_behind_pca(name: str, parts: dict[str, str]) -> None:
    by_name, by_parts = outline(name), outline("frames", **parts)
    expected = name.partition("-")[0] in ("mean", "seqgem")
    assert by_name.config["normalise_after_pca"] is by_parts.config["normalise_after_pca"] is expected
    assert outline("frames", **parts, normalise_after_pca=True).config["normalise_after_pca"] is True


def test_the_recorded_option_decides_and_the_name_where_none_is_recorded(tmp_path: Path) -> None:
    from train.runs import checkpoint
    from train.stages.describer import RunDescriber

    options = {"encoder": "resnet10t", "cut": "layer1", "trainable": "all", "size": (16, 24), "clusters": 2}
    parts = {"pooling": "vlad", "fusion": "sum"}
    for name, more, recorded, older in (("seqvlad-r18", {}, False, False), ("frames", parts, False, True)):
        model = models.create(name, **options, **more)
        checkpoint.save_model(tmp_path / "best", model, {})
        assert RunDescriber(tmp_path / "best.json").normalised_after_pca is recorded
        model.config = {key: value for key, value in model.config.items() if key != "normalise_after_pca"}
        checkpoint.save_model(tmp_path / "best", model, {})
        assert RunDescriber(tmp_path / "best.json").normalised_after_pca is older

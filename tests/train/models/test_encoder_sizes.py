"""Frames that encoders can and cannot take."""

from typing import Any

import pytest
import torch

from seqdata.errors import ContractError
from train.models import registry as models
from train.models.encoders.encoder import Encoder
from train.models.encoders.sizes import bound_size, check_frames


@pytest.mark.parametrize("encoder", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128s"])
def test_an_encoder_of_one_size_gets_it_by_default(encoder: Any) -> None:
    model = models.create("frames", encoder=encoder, pooling="gem", fusion="cat")
    assert model.size == (224, 224) and model.config["size"] == [224, 224]
    window = torch.randint(0, 256, (1, 2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        out = model(window)
        assert out.shape == (1, model.descriptor_size(2)) and bool(out.isfinite().all())
        torch.testing.assert_close(models.create(**model.config)(window), out, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("encoder", "options", "size"),
    [
        ("resnet10t", {}, None),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, None),
        ("vit_tiny_patch16_224", {"img_size": [64, 96]}, (64, 96)),
        ("vit_tiny_patch16_224", {"img_size": 64}, (64, 64)),
        ("xcit_nano_12_p16_224", {}, None),  # said to be of one size by timm, and is not
    ],
)
def test_an_encoder_of_any_size_keeps_the_frames_own(encoder: Any, options: Any, size: Any) -> None:
    model = models.create("frames", encoder=encoder, encoder_options=options, pooling="gem", fusion="cat")
    assert model.size == size and model.config["size"] == (None if size is None else list(size))


def test_frames_that_only_the_first_batch_shows_to_be_too_small_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.create("frames", encoder="inception_v3", pooling="gem", fusion="cat")
    with (
        torch.no_grad(),
        pytest.raises(ContractError, match=r"'inception_v3' cannot take frames of 64×96: .*Kernel"),
    ):
        model(torch.zeros(1, 1, 3, 64, 96, dtype=torch.uint8))

    small = models.create("gem-cat-small", encoder="resnet10t", cut="layer1", size=(16, 24))
    monkeypatch.setattr(small.encoder.backbone, "forward_intermediates", ForSome(small.encoder.backbone))
    with pytest.raises(RuntimeError, match="out of memory"):  # no fault of the frames' size
        small(torch.zeros(3, 1, 3, 16, 24, dtype=torch.uint8))


class ForSome:
    """A backbone's method that fails for more than one frame."""

    def __init__(self, backbone: Any) -> None:
        self.whole = backbone.forward_intermediates

    def __call__(self, frames: Any, **options: Any) -> Any:
        if len(frames) > 1:
            raise RuntimeError("out of memory")
        return self.whole(frames, **options)


def test_trying_an_encoder_leaves_its_weights_mode_and_random_numbers_alone() -> None:
    torch.manual_seed(0)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    encoder = Encoder("levit_128s", seed=3)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    check_frames(encoder, (224, 224))
    assert bound_size(encoder) == (224, 224)
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    assert [module.training for module in encoder.modules()] == modes and torch.equal(torch.rand(3), drawn)

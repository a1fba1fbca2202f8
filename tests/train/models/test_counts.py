"""Numbers of trained parameters of the papers' models, as their public programs count them."""

import pytest

from train.models.card import outline

# Counted in the programs of Mereu et al. and Zhang et al. after they have frozen what they freeze. 5,961,216 is the
# SeqVLAD of Zhang et al. with a frozen final LayerNorm, as its program leaves it; 768 more with a trained one.
TRAINED = {
    "seqvlad-cct384": 8_917_248,
    "seqvlad-r18": 2_132_480,
    "seqvlad-vgg16": 7_144_960,
    "timesformer": 121_256_448,
    "sta": 11_881_216,
    "seqvlad-cct384-four": 5_961_216,
}
BLOCK = 1_478_016  # of CCT-14/7×2
WORDS = 2 * 64 * 384


@pytest.mark.parametrize(("name", "trained"), TRAINED.items())
def test_as_many_parameters_are_trained_as_in_the_public_program(name: str, trained: int) -> None:
    assert sum(parameter.numel() for parameter in outline(name).parameters() if parameter.requires_grad) == trained


@pytest.mark.parametrize(
    ("name", "trained"),
    [("seqvlad-cct224", 12 * BLOCK + WORDS), ("seqpool-cat-cct224", 12 * BLOCK), ("seqpool-cat-cct384", 6 * BLOCK)],
)
def test_behind_frozen_blocks_the_final_norm_and_seqpool_are_frozen(name: str, trained: int) -> None:
    assert sum(parameter.numel() for parameter in outline(name).parameters() if parameter.requires_grad) == trained
    # A model stored before the option existed trains both.
    more = outline(name, freeze_ends=False)
    assert sum(parameter.numel() for parameter in more.parameters() if parameter.requires_grad) > trained or (
        name.endswith("cct384")
    )

"""Training settings and recipes: described field by field, light to import, refusing what would be ignored."""

import subprocess
import sys

import pytest

from seqdata.errors import ContractError
from train.losses.registry import PAIR_LOSSES, create_pair_loss
from train.recipes import ALIASES, RECIPES
from train.settings import TrainSettings


def test_each_field_describes_itself() -> None:
    fields = TrainSettings.model_fields
    assert [name for name, field in fields.items() if len(field.description or "") < 10] == []
    assert "Learning rate" in str(fields["lr"].description)


def test_settings_and_recipes_are_read_without_torch() -> None:
    code = "import sys, train.settings, train.recipes; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_an_older_name_is_the_same_recipe() -> None:
    assert set(ALIASES.values()) <= set(RECIPES) and not set(ALIASES) & set(RECIPES)
    for old, new in ALIASES.items():
        assert TrainSettings.create(old, protocol="own") == TrainSettings.create(new, protocol="own")


def test_a_loss_that_the_regime_does_not_read_is_refused() -> None:
    for field in ({"loss": "contrastive"}, {"temperature": 0.1}):
        with pytest.raises(ContractError, match=r"read by regime=places only"):
            TrainSettings.create(protocol="own", **field)
    assert TrainSettings.create(protocol="own", regime="places", loss="contrastive").loss == "contrastive"
    stored = TrainSettings.create(protocol="own").model_dump()
    assert TrainSettings.create(None, stored, epochs=2).epochs == 2  # a stored run holds every field


def test_losses_by_name() -> None:
    assert {name: type(create_pair_loss(name, 0.05)).__name__ for name in PAIR_LOSSES} == {
        "multi-similarity": "PlaceLoss",
        "contrastive": "ContrastiveLoss",
    }
    with pytest.raises(ContractError, match=r"no loss 'triplets' for place batches; choose one of multi-similarity"):
        create_pair_loss("triplets", 0.05)

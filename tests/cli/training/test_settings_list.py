"""`seqdata train --settings`, the flags of common settings, and what is said of one that does not fit."""

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.training.settings_list import FLAGS, UNITS, settings_rows, settings_text
from seqdata.errors import UsageError
from train.recipes import RECIPES
from train.settings import TrainSettings


def test_every_setting_is_listed_with_what_it_means() -> None:
    rows = settings_rows()
    assert [row["name"] for row in rows] == list(TrainSettings.model_fields)
    assert all(row["meaning"] and row["type"] for row in rows)
    assert {*UNITS, *FLAGS} <= set(TrainSettings.model_fields)
    (regime,) = [row for row in rows if row["name"] == "regime"]
    assert (regime["type"], regime["default"]) == ("[triplet|places|joint]", "triplet")
    assert max(map(len, settings_text(rows).splitlines())) <= 80


def test_flags_of_settings_are_flags_of_the_command() -> None:
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(flag in text for flag in FLAGS.values())


def test_a_recipe_stands_in_the_list() -> None:
    text = CliRunner().invoke(app, ["train", "--settings", "--recipe", "sta-triplet"]).stdout
    assert f"lr (--lr): number > 0 ≤ 10, default {RECIPES['sta-triplet']['lr']}" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"negativs": 3}, "no setting 'negativs'; did you mean negatives\\? seqdata train --settings lists them"),
        ({"regime": "places", "negatives": 3}, "'negatives' is read by regime=triplet only"),
        ({"places": 3}, "'places' is read by regime=places only; leave it out, or add --set regime=places"),
        ({"momentum": 0.5}, "'momentum' is read by optimizer=sgd only"),
        ({"lr": 100.0}, "field 'lr'"),
    ],
)
def test_a_setting_that_would_do_nothing_or_is_none_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainSettings.create(protocol="own", **fields)


def test_a_mistyped_recipe_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="no training recipe 'seqvlad-triplt'; did you mean seqvlad-triplet"):
        TrainSettings.create("seqvlad-triplt", protocol="own")

"""Stored features under one policy of precision: their identity where a card rounds, and that of before elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from seqdata.errors import ContractError
from tests.support.fake_dataset import FakeDataset
from train.data.describe_settings import DescribeSettings
from train.data.feature_files import FeatureManifest
from train.models import registry
from train.stages.features import FeatureRequest, write_features
from train.stages.features.request import request_identity

ROOT = Path(__file__).resolve().parents[3]
BEFORE = "37b5126aa80cf0ecf4243de4316ee7bdfedad5a3199c118d5a28204eb9796ef8"
"""Of the request below, by the release before precisions."""


def encoder() -> Any:
    return registry.create("mean-small", encoder="resnet10t", cut="layer1", weights="random", size=None)


def identity(settings: DescribeSettings, device: str) -> str:
    request = FeatureRequest(batch_size=8, sample=64, settings=settings)
    return request_identity(encoder(), FakeDataset(), request, np.arange(10), torch.device(device))


def test_requests_keep_their_identity_but_where_a_card_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity(DescribeSettings("cpu"), "cpu") == BEFORE
    assert identity(DescribeSettings("cpu", "bf16"), "cpu") == BEFORE, "a CPU rounds nothing"
    monkeypatch.setattr("train.devices.pick_device", torch.device)
    ways = [identity(DescribeSettings("cuda", precision), "cuda") for precision in ("fp32", "tf32", "bf16")]
    assert len({BEFORE, *ways}) == 4


def test_a_manifest_names_a_precision_that_rounds(tmp_path: Path) -> None:
    manifest = write_features(
        encoder(), FakeDataset(), tmp_path / "f", FeatureRequest(settings=DescribeSettings("cpu"))
    )
    assert "precision" not in manifest.model_dump(mode="json")
    rounded = FeatureManifest(**{**dict(manifest), "precision": "bf16"})
    assert rounded.model_dump(mode="json")["precision"] == "bf16" and rounded.id != manifest.id


def test_the_published_form_of_results_has_every_field_of_a_manifest() -> None:
    """Those too that are left out at their defaults."""
    schema = json.loads((ROOT / "schemas" / "cli" / "describe.schema.json").read_text())
    assert set(FeatureManifest.model_fields) <= set(schema["oneOf"][0]["properties"])


def test_float16_rows_are_rounded_as_numpy_rounds(tmp_path: Path) -> None:
    """They are brought to float16 where they were computed; all ranges, ties, subnormals and overflow."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(4000) * 10.0 ** rng.integers(-9, 7, 4000)).astype(np.float32)
    values = np.concatenate(
        [values, np.arange(0, 4, 2**-12).astype(np.float32), np.array([6e-8, 65519, 65520], np.float32)]
    )
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(torch.from_numpy(values).to(torch.float16).numpy(), expected)


@pytest.mark.parametrize(
    ("flags", "words"), [(["--precision", "fp64"], "expected fp32"), (["--precision", "bf16"], "leave it out")]
)
def test_the_command_checks_the_precision(flags: list[str], words: str, tmp_path: Path) -> None:
    """Before weights are read or a folder is made."""
    command = ["describe", "--device", "cpu", "--model", "gem-cat-small", "--random-init", *flags]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "f"), str(tmp_path)])
    assert result.exit_code != 0
    with pytest.raises(ContractError, match=words):
        DescribeSettings.from_flags("cpu", flags[1], None)

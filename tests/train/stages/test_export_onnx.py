"""Exporting: what cannot be exported is said with its operator, and nothing of this machine gets into a file."""

from pathlib import Path

import onnx
import pytest
import torch

from seqdata.errors import ContractError
from tests.support.street import MODELS
from train.models import registry as models
from train.stages.export_onnx import TOLERANCE, check_equal, export_model, export_module


class Spectrum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


def test_an_operator_that_onnx_lacks_is_named() -> None:
    with pytest.raises(ContractError, match=r"model spectrum cannot be exported to ONNX \(.*linalg_eig") as error:
        export_module(Spectrum(), torch.eye(3), "spectrum")
    assert "\n" not in str(error.value)


def test_files_hold_no_names_of_this_machine(tmp_path: Path) -> None:
    name, options = MODELS["sum"]
    export_model(models.create(name, weights="random", **options), (24, 32), 3, tmp_path)
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        assert str(Path(__file__).parents[3]).encode() not in data
        assert b".py" not in data
        onnx.checker.check_model(onnx.load(path), full_check=True)


def test_a_wrong_program_is_refused() -> None:
    right = torch.ones(1, 4).numpy()
    check_equal(right * (1 + TOLERANCE / 2), right, "model")
    for factor in (1 + 2 * TOLERANCE, float("nan")):
        with pytest.raises(ContractError, match="its exported program is off by"):
            check_equal(right * factor, right, "model")

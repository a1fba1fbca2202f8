"""The transform's file: round trip, equal bytes, named faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.pca import fit as pca
from indexer.pca import transform
from seqdata.errors import ContractError, InputError


@pytest.fixture
def fitted() -> transform.Transform:
    return pca.fit(np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32), 6, whiten=True)


def test_round_trip(tmp_path: Path, fitted: Any) -> None:
    fitted.save(tmp_path / "t.safetensors")
    again = transform.load(tmp_path / "t.safetensors")
    for name in transform.ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))
        assert getattr(again, name).dtype == getattr(fitted, name).dtype
    assert again.describe() == fitted.describe()
    again.save(tmp_path / "u.safetensors")
    assert (tmp_path / "t.safetensors").read_bytes() == (tmp_path / "u.safetensors").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 100, -5])
def test_cut_file_is_named(tmp_path: Path, fitted: Any, keep: int) -> None:
    path = tmp_path / "t.safetensors"
    fitted.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ContractError, match=r"t\.safetensors"):
        transform.load(path)


def test_foreign_file_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "t.safetensors")
    with pytest.raises(ContractError, match=r"t\.safetensors"):
        transform.load(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match=r"u\.safetensors"):
        transform.load(tmp_path / "u.safetensors")

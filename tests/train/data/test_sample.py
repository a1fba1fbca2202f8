"""The PCA sample in memory and in a file: the same descriptors, nothing left behind, a full disk named."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import train
from indexer.pca import fit as pca
from seqdata.errors import OutputError
from train.data import sample as sample_store
from train.data.sample import described

ROOT = Path(__file__).parents[3]


def test_few_stay_in_memory(tiny, data, tmp_path):
    model, table = tiny(), data.sequences(length=3)[::-1]
    with described(model, data, table, tmp_path / "town") as found:
        assert not isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, train.describe(model, data, table))
    with described(model, data, table[:0], tmp_path / "town") as found:
        assert found.shape == (0, 0)
    assert not (tmp_path / "town").exists()


def test_many_are_mapped_in_track_order_and_give_the_same_transform(tiny, data, tmp_path, monkeypatch):
    model, table = tiny(), data.sequences(length=3)
    seen = []
    size = 4 * len(table) * model.descriptor_size(3)
    monkeypatch.setattr(sample_store, "MEMORY", size - 1)
    expected = train.describe(model, data, table)
    shuffled = table[np.random.default_rng(0).permutation(len(table))]
    told = {"device": "cpu", "progress": lambda done, total: seen.append((done, total))}
    with described(model, data, shuffled, tmp_path / "new" / "town", **told) as found:
        assert isinstance(found, np.memmap) and not found.flags.writeable
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert not list((tmp_path / "new" / "town").iterdir()), "a file without a name"
        mapped, whole = pca.fit(found, 4), pca.fit(expected, 4)
    assert seen[-1] == (len(table), len(table))
    np.testing.assert_allclose(mapped.matrix, whole.matrix, atol=1e-4)
    monkeypatch.setattr(sample_store, "MEMORY", size)
    with described(model, data, table, tmp_path) as found:
        assert not isinstance(found, np.memmap)


class Full:
    """A file on a device without space."""

    def write(self, data):
        raise OSError(errno.ENOSPC, "full")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_refusals_are_named(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_store, "MEMORY", 0)
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(OutputError, match=r"file.*cannot be written"),
        described(tiny(), data, data.sequences(), tmp_path / "file"),
    ):
        pass
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OutputError, match="no space left"), described(tiny(), data, data.sequences(), tmp_path):
        pass


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests.support.fake_dataset import FakeDataset
    from train.models import registry as models
    from train.data import sample as sample_store
    sample_store.MEMORY = 0
    data = FakeDataset()
    model = models.create("seqvlad-small", encoder="resnet10t", cut="layer1", clusters=4, size=None)
    with sample_store.described(model, data, data.sequences(), Path(sys.argv[1])) as found:
        assert found.any()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_nothing(tmp_path):
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "town")]
    ended = subprocess.run(code, cwd=ROOT, check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "town").is_dir() and not list((tmp_path / "town").iterdir())

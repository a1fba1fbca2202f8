"""Fixtures shared by all floors: tiny drives with real JPEGs, a tiny synthetic MSLS dump, and the real material."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores; what they start inherits it

import numpy as np
import pytest
import simplejpeg

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import Dataset
from seqdata.dataset.dataset import open as open_dataset
from seqdata.sources import Listing, open_source
from seqdata.synth import CityPlan, CitySettings, write_msls

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are whole, as in a pipe: workers of pytest-xdist are told the width of the terminal that started them."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of remote datasets and the record of indexes stand in a folder of the test run, not in the user's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="session")
def real() -> Path:
    """The real frames and logs beside the checkout, where they are."""
    if not REAL.is_dir():
        pytest.skip("no real material at ../shared/data")
    return REAL


def jpeg(seed: int, height: int = 24, width: int = 32) -> bytes:
    """A small JPEG that differs from every other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(noise.repeat(4, 0).repeat(4, 1)), quality=90)


def write_drives(raw: Path, frames: dict[str, int], *, step: float = 3.0) -> Path:
    """A `folder` dump: drive name → number of frames; drives named query* are queries, all on one street."""
    raw.mkdir(parents=True, exist_ok=True)
    rows = ["image,easting,northing,zone,drive,role"]
    for number, (drive, count) in enumerate(frames.items()):
        for position in range(count):
            name = f"{drive}-{position:03d}.jpg"
            (raw / name).write_bytes(jpeg(1000 * number + position))
            role = "query" if drive.startswith("query") else "database"
            rows.append(f"{name},{500_000 + step * position},{5_000_000 + 2 * number},32N,{drive},{role}")
    (raw / "positions.csv").write_text("\n".join(rows) + "\n")
    return raw


@pytest.fixture(scope="session")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives of one street: 40 database frames and 30 query frames, 3 m apart."""
    return write_drives(tmp_path_factory.mktemp("drives") / "raw", {"map": 40, "query": 30})


@pytest.fixture(scope="session")
def dataset(drives: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The drives, built with the protocol `own`."""
    out = tmp_path_factory.mktemp("dataset") / "own"
    build(BuildRequest("folder", drives, out, protocol=protocols.load("own")))
    return open_dataset(out)


@pytest.fixture(scope="session")
def cut_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three drives in shards of 64 KiB, so that long drives are cut with a halo."""
    folder = tmp_path_factory.mktemp("cut")
    raw = write_drives(folder / "raw", {"map-a": 130, "map-b": 20, "query": 90})
    settings = BuildSettings(shard_bytes=1 << 16)
    build(BuildRequest("folder", raw, folder / "dataset", settings=settings, protocol=protocols.load("own")))
    return open_dataset(folder / "dataset")


TINY_CITY = CitySettings(
    width=64,
    height=48,
    cities=(
        CityPlan("northfield", "train", 1, 52.0914, 5.1214, query=("winter",)),
        CityPlan("southport", "test", 1, -37.8136, 144.9631, query=("winter",)),
    ),
    street_length=60.0,
    sequences=1,
)


@pytest.fixture(scope="session")
def msls_dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny synthetic MSLS dump with a panorama, a corrupt JPEG and a southern city."""
    out = tmp_path_factory.mktemp("msls") / "raw"
    write_msls(out, settings=TINY_CITY)
    return out


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder: relative path → bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return read


def listed(raw: Path, text: str | bytes, kind: str = "folder") -> Listing:
    """The listing of `raw` after its positions.csv is written."""
    (raw / "positions.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(kind, raw, {}).listing()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """A folder of six images, 0.jpg … 5.jpg."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    return tmp_path

"""Build, describe, index and eval on a Ray cluster of two nodes, a busy worker of each killed: `make ray`.

Every stage is also run in this process alone, and the files of both are compared. Ray's `Cluster` starts the nodes as
processes of this machine, one CPU each, so what is shown is the engine, not a network.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.builder.pipeline.shares import build_in_shares
from indexer.place_index import open_index
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.dataset import open as open_dataset
from seqdata.parallel import Engine
from seqdata.storage.hashing import sha256_json, xxh3_file
from tests.support.street import PROTOCOL, make_run, write_street
from train.data.describe_settings import DescribeSettings
from train.models import registry as models
from train.runs.record import predictions_path
from train.stages.answers import AnswerOptions, answer_protocols
from train.stages.describer import RunDescriber
from train.stages.features import FeatureRequest, write_features, write_features_on

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 6
CPU = DescribeSettings("cpu")
# Hidden files are locks and requests; measured facts are times.
PASSED_OVER = ("measured.json",)


def digest(folder: Path) -> str:
    """One hash of the names and bytes of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    compared = [path for path in files if path.name not in PASSED_OVER and not path.name.startswith(".")]
    return sha256_json([[str(path.relative_to(folder)), xxh3_file(path)] for path in compared])[:16]


@dataclass
class Killer:
    """Kills one busy Ray worker of this process's cluster, at the first progress that it hears of."""

    killed: list[str] = field(default_factory=list)

    def __call__(self, *_: object) -> None:
        """Take a callback of progress, of whatever form."""
        ends = time.monotonic() + 5
        while not self.killed and time.monotonic() < ends:
            for pid in _descendants(os.getpid()):
                title = _title(pid)
                if title.startswith("ray::_run_job") or title.startswith("ray::_Host.run"):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(title.strip())
                    return


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _descendants(root: int) -> list[int]:
    """Processes that a process has started, directly or not."""
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    below: set[int] = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {root})


@dataclass
class Stages:
    """The same four stages, alone or on the cluster, in one folder."""

    folder: Path
    raw: Path
    engine: str

    def dataset(self, heard: Callable[..., None]) -> Path:
        """Build."""
        protocol = protocols.load(str(self.raw.parent / "halves.toml"))
        settings = BuildSettings(shard_bytes=1 << 16)
        out = self.folder / "dataset"
        request = BuildRequest(
            "folder", self.raw, out, settings=settings, protocol=protocol, workers=WORKERS, engine=self._engine
        )
        build(request, heard)
        return out

    def features(self, heard: Callable[..., None]) -> Path:
        """Describe every frame, in small parts, with a PCA."""
        dataset, out = open_dataset(self.folder / "dataset"), self.folder / "features"
        request = FeatureRequest(settings=CPU, batch_size=8, pca=8, sample=40, part_bytes=8 * 2 * 6)
        torch.manual_seed(1)
        model = models.create("mean-small", encoder="resnet10t", cut="layer1", weights="random", size=None)
        if self.engine == "ray":
            write_features_on("ray", WORKERS, model, dataset, out, request, heard)
        else:
            write_features(model, dataset, out, request)
        return out

    def index(self, heard: Callable[..., None]) -> Path:
        """Describe the database, fit a PCA and index."""
        dataset = open_dataset(self.folder / "dataset")
        # The run lies beside both folders, because an index records its name and hash.
        describer = RunDescriber(self.raw.parent / "run", CPU)
        request = IndexRequest(self.folder / "index", dataset.load_protocol("halves"), pca=6)
        if self.engine == "ray":
            return build_in_shares(dataset, describer, request, "ray", WORKERS, heard)
        return build_index(dataset, describer, request)

    def predictions(self, heard: Callable[..., None]) -> Path:
        """Search for the queries of the split."""
        dataset, run = open_dataset(self.folder / "dataset"), self.raw.parent / "run"
        index = open_index(self.folder / "index")
        options = AnswerOptions(settings=CPU, again=True, workers=WORKERS if self.engine == "ray" else 1)
        options = AnswerOptions(**{**options.__dict__, "parts_engine": self._engine})
        (answer,) = answer_protocols(dataset, index, run, [dataset.load_protocol("halves")], options, progress=heard)
        answer.score_and_store(lambda line: None)
        return predictions_path(run, index, answer.protocol).rename(self.folder / "predictions.parquet")

    @property
    def _engine(self) -> Engine:
        return "ray" if self.engine == "ray" else "pool"


def main() -> int:
    """Run all and print the hashes; 1 where a stage differs or no worker was killed in it."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        print("ray is not installed: the two-node run is skipped (pip install 'ray>=2.9')")
        return 0
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    torch.set_num_threads(1)  # as every worker
    is_good = True
    with tempfile.TemporaryDirectory() as place:
        raw = write_street(Path(place) / "raw")
        (raw.parent / "halves.toml").write_text(PROTOCOL)
        alone, spread = (Stages(Path(place) / name, raw, name) for name in ("alone", "ray"))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        try:
            print(f"{len(ray.nodes())} nodes, {int(ray.cluster_resources()['CPU'])} CPUs")
            for name in ("dataset", "features", "index", "predictions"):
                expected = getattr(alone, name)(lambda *_: None)
                if name == "dataset":
                    make_run(open_dataset(expected), raw.parent / "run", "sum")
                killer = Killer()
                made = getattr(spread, name)(killer)
                hashes = [digest(path) if path.is_dir() else xxh3_file(path)[:16] for path in (expected, made)]
                is_same = hashes[0] == hashes[1]
                is_good = is_good and is_same and bool(killer.killed)
                words = "the same" if is_same else "DIFFERENT"
                print(f"{name:<12} alone {hashes[0]}  ray {hashes[1]}  {words}; killed: {killer.killed or 'NONE'}")
        finally:
            ray.shutdown()
            cluster.shutdown()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

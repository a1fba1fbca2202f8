"""Latency of a frame on a robot: a pack of MobileNetV2 with SeqVLAD over the corridor's first lap, its second pushed.

python tests/benchmarks/bench_localizer.py [--data ../shared/data] [--rounds 200]

One torch thread, JPEG bytes in, place out; each part is timed on its own afterwards.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.localizer.places import nearest_places
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import open as open_dataset
from tests.benchmarks.results import record, scaled
from train.models import registry as models
from train.runs.checkpoint import save_model
from train.stages.describer import RunDescriber
from train.stages.pack import PackRequest, write_pack

PROTOCOL = 'name = "corridor"\nsource = "bench"\nlength = 5\nradius = 2.5\nrule = "centre"\n[splits.test]\n'
WARM = 10


def make_pack(weights: Path, corridor: Path, folder: Path) -> Path:
    """Dataset, run, index and pack in `folder`."""
    (folder / "corridor.toml").write_text(PROTOCOL)
    protocol = protocols.load(str(folder / "corridor.toml"))
    build(BuildRequest("folder", corridor, folder / "dataset", protocol=protocol))
    model = models.create("seqvlad-mobilenetv2", weights=weights)
    save_model(folder / "run" / "checkpoints" / "best", model, {})
    dataset = open_dataset(folder / "dataset")
    index = indexer.open(
        build_index(dataset, RunDescriber(folder / "run"), IndexRequest(out=folder / "index", protocol=protocol))
    )
    request = PackRequest(folder / "run", folder / "place.pack", dataset, split="test", precision=0.9)
    return write_pack(index, request)


def measure(call: Callable[[], object], rounds: int) -> str:
    """p50 and p95 of a call in milliseconds."""
    taken = []
    for number in range(rounds + WARM):
        started = time.perf_counter()
        call()
        if number >= WARM:
            taken.append(1000 * (time.perf_counter() - started))
    return f"p50 {np.percentile(taken, 50):7.2f} ms, p95 {np.percentile(taken, 95):7.2f} ms"


def main() -> None:
    """Build the pack, push the second lap, time the whole and its parts."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=scaled(200, 3))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"skipped: no real frames at {arguments.data}")
        return
    weights = arguments.data / "weights" / "mobilenetv2_100_timm_features.pth"
    corridor, rounds = arguments.data / "corridor", arguments.rounds
    with tempfile.TemporaryDirectory() as made:
        pack = make_pack(weights, corridor, Path(made))
        started = time.perf_counter()
        here = indexer.Localizer(pack, keep_rejected=True)
        stored = sum(record.bytes for record in here.manifest.files.values())
        print(
            f"pack of {stored / 1e6:.1f} MB, {len(here.index)} windows, opened in {time.perf_counter() - started:.2f} s"
        )
        frames = [(corridor / f"{number}.jpg").read_bytes() for number in range(44, 81)]
        places = [here.push(frame) for frame in frames]
        found = here.manifest.calibration
        accepted = sum(place.accepted for place in places if place is not None)
        print(f"{accepted} of {len(frames)} frames accepted; on these queries precision {found.precision:.3f}, "
              f"recall {found.recall:.3f} at a distance of {found.threshold:.4f}")  # fmt: skip
        cycle = iter(frames * (rounds // len(frames) + 2))
        pushed = measure(lambda: here.push(next(cycle)), rounds)
        record("a frame pushed, median", float(pushed.split()[1]), "ms")
        print(f"push     {pushed}")
        parts(here, frames[0], rounds)


def parts(here: indexer.Localizer, frame: bytes, rounds: int) -> None:
    """The steps of `push` one by one."""
    with torch.inference_mode():
        feature = here._features(frame)
        window = torch.cat([feature] * here.length)
        descriptor = here._fuse(window).numpy()
        print(f"  decode {measure(lambda: here.manifest.form.pixels(frame), rounds)}")
        print(f"  +resize and encode {measure(lambda: here._features(frame), rounds)}")
        print(f"  fuse   {measure(lambda: here._fuse(window), rounds)}")
        print(f"  search {measure(lambda: nearest_places(here.index, descriptor, 1), rounds)}")


if __name__ == "__main__":
    main()

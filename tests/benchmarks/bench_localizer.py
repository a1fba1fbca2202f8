"""Latency of a frame on a robot: packs over the corridor's first lap, its second pushed; ONNX Runtime against PyTorch.

python tests/benchmarks/bench_localizer.py [--data ../shared/data] [--rounds 100]

One thread, JPEG bytes in, place out. The other side is what packs held before: the same two programs by torch.export,
run eagerly. Both take turns in one process, so that a busy machine slows both.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.localizer.localizer import resample
from indexer.localizer.places import nearest_places
from indexer.localizer.track.follow import follow
from indexer.localizer.track.recording import RecordedFrame, Recording
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import open as open_dataset
from tests.benchmarks.results import exit_status, record, scaled
from train.data.describe import describe
from train.data.describe_settings import DescribeSettings
from train.models import registry as models
from train.models.base import SequenceModel
from train.runs.checkpoint import load_model, save_model
from train.stages.describer import RunDescriber
from train.stages.pack import PackRequest, write_pack

PROTOCOL = 'name = "corridor"\nsource = "bench"\nlength = 5\nradius = 2.5\nrule = "centre"\n[splits.test]\n'
WARM = 10
LEAST = {"seqvlad-mobilenetv2": 2.5, "seqvlad-r18": 1.3}
"""How many times faster a frame must be than by PyTorch."""
# What a start is allowed: seconds and bytes, for the pack of MobileNetV2.
MOST_SECONDS, MOST_MEGABYTES = 0.5, 250.0

START = """
import sys, time
started = time.perf_counter()
import indexer
localizer = indexer.Localizer(sys.argv[1], threads=1)
seconds = time.perf_counter() - started
# Not getrusage: its peak is that of the process that started this one, where that was larger.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(seconds, int(peak) / 1000)
"""


def make_pack(weights: Path | str, corridor: Path, folder: Path, name: str = "seqvlad-mobilenetv2") -> Path:
    """Dataset, run, index and pack in `folder`."""
    (folder / "corridor.toml").write_text(PROTOCOL)
    protocol = protocols.load(str(folder / "corridor.toml"))
    build(BuildRequest("folder", corridor, folder / "dataset", protocol=protocol))
    save_model(folder / "run" / "checkpoints" / "best", models.create(name, weights=weights), {})
    dataset = open_dataset(folder / "dataset")
    index = indexer.open(
        build_index(dataset, RunDescriber(folder / "run"), IndexRequest(out=folder / "index", protocol=protocol))
    )
    request = PackRequest(folder / "run", folder / "place.pack", dataset, split="test", precision=0.5)
    return write_pack(index, request)


class EagerLocalizer:
    """What a pack of schema 1 did: two programs of torch.export, run eagerly."""

    def __init__(self, localizer: indexer.Localizer, model: SequenceModel) -> None:
        size, length = localizer.manifest.size, localizer.length
        frame = torch.zeros(1, 3, *size)

        class Encode(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, frame: torch.Tensor) -> torch.Tensor:
                return self.model.encode_frames(frame)

        class Fuse(Encode):
            def forward(self, features: torch.Tensor) -> torch.Tensor:
                return self.model.fuse(features.unsqueeze(0))

        with torch.no_grad():
            features = torch.cat([model.encode_frames(frame)] * length)
            model.fuse(features[None])
            self.encode = torch.export.export(Encode(), (frame,)).module()
            self.fuse = torch.export.export(Fuse(), (features,)).module()
        self.localizer, self.ring = localizer, deque(maxlen=length)

    def push(self, picture: bytes) -> object:
        """The nearest place, as `Localizer.push` gave it."""
        with torch.inference_mode():
            frame = torch.from_numpy(self.localizer.manifest.form.pixels(picture))[None].float()
            if tuple(frame.shape[-2:]) != self.localizer.manifest.size:
                frame = torch.from_numpy(resample(frame[0].byte().numpy(), self.localizer.manifest.size))
            self.ring.append(self.encode(frame))
            if len(self.ring) < self.ring.maxlen:
                return None
            descriptor = self.fuse(torch.cat(list(self.ring))).numpy()
        return nearest_places(self.localizer.index, descriptor, 1)[0][0]


def measure(calls: dict[str, Callable[[bytes], object]], frames: list[bytes], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of every call, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    pictures = cycle(frames)
    for _ in range(rounds + WARM):
        picture = next(pictures)
        for name, call in calls.items():
            started = time.perf_counter()
            call(picture)
            taken[name].append(1000 * (time.perf_counter() - started))
    return {name: np.array(values[WARM:]) for name, values in taken.items()}


def push_latency(name: str, pack: Path, frames: list[bytes], rounds: int) -> bool:
    """Print and keep p50 and p95 of both sides; whether the ratio is reached."""
    localizer = indexer.Localizer(pack, keep_rejected=True, threads=1)
    eager = EagerLocalizer(localizer, load_model(pack.parent / "run"))
    times = measure({"ONNX Runtime": localizer.push, "PyTorch": eager.push}, frames, rounds)
    for side, values in times.items():
        half, high = np.percentile(values, [50, 95])
        print(f"{name:<22}{side:<14}p50 {half:7.2f} ms, p95 {high:7.2f} ms")
        record(f"{name}, {side}, a frame pushed, median", float(half), "ms")
    ratio = float(np.median(times["PyTorch"]) / np.median(times["ONNX Runtime"]))
    print(f"{name:<22}{ratio:.2f} times as fast (at least {LEAST[name]:g})")
    record(f"{name}, times as fast as PyTorch", ratio, "×", better="higher")
    return ratio >= LEAST[name]


def start(pack: Path) -> bool:
    """A fresh process that opens a pack: seconds from the first import, and its peak memory."""
    ends = [
        subprocess.run([sys.executable, "-c", START, str(pack)], capture_output=True, text=True, check=True).stdout
        for _ in range(scaled(3, 1))
    ]
    seconds, megabytes = np.min([[float(word) for word in end.split()] for end in ends], axis=0)
    print(f"start of Localizer {seconds:.2f} s (≤ {MOST_SECONDS}), {megabytes:.0f} MB (≤ {MOST_MEGABYTES:.0f})")
    record("start of Localizer", seconds, "s")
    record("memory of Localizer", megabytes, "MB")
    return bool(seconds <= MOST_SECONDS and megabytes <= MOST_MEGABYTES)


def whole_recording(pack: Path, frames: list[bytes], folder: Path, count: int) -> bool:
    """`localize` with the filter against describing the same frames alike; peak memory of a long recording."""
    dataset = open_dataset(pack.parent / "dataset")
    describer = RunDescriber(pack.parent / "run", DescribeSettings("cpu", runtime="onnx"))
    windows = dataset.sequences(protocols.load(str(pack.parent / "corridor.toml")), "test", "query")
    source = describer.source(dataset, windows, None)
    describe(describer.network, dataset, windows, device="cpu", source=source)  # exports the program first
    distinct = len(np.unique(dataset.frame_rows(windows)))
    started = time.perf_counter()
    for _ in range(scaled(5, 1)):
        describe(describer.network, dataset, windows, device="cpu", source=source)
    described = scaled(5, 1) * distinct / (time.perf_counter() - started)
    localizer = indexer.Localizer(pack, keep_rejected=True, threads=1, motion="forward")

    def recording(number: int) -> Recording:
        pictures = cycle(frames)
        return Recording("cycle", lambda: (RecordedFrame(str(at), next(pictures)) for at in range(number)), "names")

    rate = follow(localizer, [recording(scaled(5, 1) * distinct)], folder / "short").rate
    ratio = rate / described
    print(f"localize --filter forward {rate:.1f} frames/s, describe {described:.1f}: {ratio:.2f} (at least 0.9)")
    record("localize against describe", ratio, "×", better="higher")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    follow(localizer, [recording(count)], folder / "long")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - before
    print(f"{count} frames: peak memory {grown:+.1f} MB")
    record("peak memory of a long recording, growth", grown, "MB")
    return ratio >= 0.9 and grown < 20


def main() -> int:
    """Make the packs, push the second lap through both sides, start a process, localize a long recording."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=scaled(100, 3))
    parser.add_argument("--soak", type=int, default=scaled(20_000, 30), help="frames of the long recording")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"skipped: no real frames at {arguments.data}")
        return 0
    corridor = arguments.data / "corridor"
    frames = [(corridor / f"{number}.jpg").read_bytes() for number in range(44, 81)]
    weights = {"seqvlad-mobilenetv2": arguments.data / "weights" / "mobilenetv2_100_timm_features.pth"}
    is_good = True
    with tempfile.TemporaryDirectory() as made:
        for name in LEAST:
            folder = Path(made) / name
            folder.mkdir()
            pack = make_pack(weights.get(name, "random"), corridor, folder, name)
            is_good &= push_latency(name, pack, frames, arguments.rounds)
        pack = Path(made) / "seqvlad-mobilenetv2" / "place.pack"
        is_good &= start(pack)
        is_good &= whole_recording(pack, frames, Path(made), arguments.soak)
    return exit_status(is_good)


if __name__ == "__main__":
    sys.exit(main())

"""The share of training time that is spent waiting for data, on a CPU, with real frames read from a built dataset.

python tests/benchmarks/bench_data_wait.py [steps]

Nordland's own recipe on its 64×32 frames, and the triplets of Mereu et al. on 640×480 JPEG photographs with no frame
kept in memory, so that every step decodes all of its frames. SeqNet in place batches on stored features: of 4096
numbers a frame, as published, and of 256, ten times as many steps, whose few milliseconds leave little to hide
behind. Their files are sparse and read as zeros, from the page cache. The figure is the run's own (`wait` in
metrics.jsonl) in its second epoch, and beside it in the first one, which also finds the positives of each query, once
for the whole run.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import seqdata
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from tests.benchmarks.bench_features import tables, write_features
from tests.benchmarks.positions import write_protocol
from tests.benchmarks.results import is_tiny, record, scaled
from tests.benchmarks.street import write_street
from train.loop.fit import fit
from train.settings import TrainSettings

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIMIT = 0.05
PROTOCOL = """
name = "street"
source = "folder"
length = 5
unit = "metres"
rule = "any"
radius = 25.0
[train]
positive_radius = 10.0
negative_radius = 25.0
rule = "any"
[splits.train]
"""


def nordland(folder: Path, steps: int) -> tuple[Any, TrainSettings]:
    """Nordland's sample from its zips, and its recipe."""
    build(
        BuildRequest(
            "nordland",
            DATA / "nordland",
            folder / "nordland",
            settings=BuildSettings(keep_png=True),
            protocol=protocols.load("nordland-tenth"),
        )
    )
    settings = TrainSettings.create(
        "nordland-scratch", protocol="nordland-tenth", weights="random", epochs=2, steps=steps, device="cpu"
    )
    return seqdata.open(folder / "nordland"), settings


def street(folder: Path, steps: int) -> tuple[Any, TrainSettings]:
    """Two drives of one street in real photographs, and the triplets of Mereu et al. on a small backbone."""
    raw = write_street(folder / "raw", scaled(400, 200), drives=2)
    table = raw / "positions.csv"
    table.write_text(table.read_text().replace("5000500,32N,drive1,database", "5000001,32N,drive1,query"))
    (folder / "street.toml").write_text(PROTOCOL)
    protocol = protocols.load(str(folder / "street.toml"))
    build(BuildRequest("folder", raw, folder / "street", protocol=protocol))
    settings = TrainSettings.create(
        "seqvlad-triplet",
        protocol=str(folder / "street.toml"),
        model="seqvlad-r18",
        options={"size": (120, 160)},
        weights="random",
        epochs=2,
        rounds=1,
        round_queries=4 * steps,
        positives_cap=1,
        negatives=2 if is_tiny() else 5,
        kmeans_frames=20,
        cache_bytes=0,
        device="cpu",
    )
    return seqdata.open(folder / "street"), settings


def seqnet(folder: Path, steps: int, width: int) -> tuple[Any, TrainSettings]:
    """Drives of 1.1 % of MSLS, features of `width` numbers, and SeqNet of the same width on them."""
    dataset = tables(0.011 if not is_tiny() else 0.002)
    write_features(folder / f"features-{width}", dataset, width)
    settings = TrainSettings.create(
        "seqnet",
        model="seqnet-vgg16",
        options={"width": width},
        features=str(folder / f"features-{width}"),
        protocol=write_protocol(folder, 5),
        regime="places",
        loss="contrastive",
        places=32,
        steps=steps,
        epochs=2,
        device="cpu",
    )
    return dataset, settings


def seqnet_4096(folder: Path, steps: int) -> tuple[Any, TrainSettings]:
    """SeqNet as published."""
    return seqnet(folder, steps, 4096)


def seqnet_256(folder: Path, steps: int) -> tuple[Any, TrainSettings]:
    """A light SeqNet, for longer."""
    return seqnet(folder, 10 * steps, 256)


def main() -> None:
    """Train all for two epochs and print their share."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else scaled(6, 1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for make in (seqnet_4096, seqnet_256, nordland, street):
            if make is nordland and (is_tiny() or not (DATA / "nordland").is_dir()):
                print("nordland: not at ../shared/data, left out")
                continue
            dataset, settings = make(Path(name), steps)
            run = fit(dataset, settings, Path(name) / f"run-{make.__name__}")
            first, last = map(json.loads, (run / "metrics.jsonl").read_text().splitlines()[1:])
            each = last["seconds"] / last["steps"]
            record(f"{make.__name__}: waiting, second epoch", last["wait"], "of the time")
            print(
                f"{make.__name__:<12} {settings.model}, {last['steps']} steps of {each:.3f} s: waiting for data "
                f"{100 * last['wait']:.2f} % of the time, {100 * first['wait']:.2f} % in the first epoch "
                f"(wanted below {100 * LIMIT:.0f} %)",
                flush=True,
            )


if __name__ == "__main__":
    main()

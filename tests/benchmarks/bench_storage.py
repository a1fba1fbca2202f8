"""What a dataset weighs beside its raw images, for large and small frames: python tests/benchmarks/bench_storage.py."""

import tempfile
from pathlib import Path

import numpy as np
import simplejpeg

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts.manifest import BuildSettings
from tests.benchmarks.results import record, scaled


def write_drive(raw: Path, frames: int, height: int, width: int) -> int:
    """One drive of noisy JPEGs whose names are as long and as random as MSLS keys; returns their bytes."""
    random = np.random.default_rng(0)
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    raw.mkdir()
    rows, total = ["image,latitude,longitude,drive,role"], 0
    for number in range(frames):
        contrast = random.uniform(20, 60)  # sizes must vary, or the padding to whole tar blocks is always the same
        noise = random.normal(128, contrast, (height // 2, width // 2, 3)).clip(0, 255).astype(np.uint8)
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(noise.repeat(2, 0).repeat(2, 1)), quality=90)
        name = "".join(random.choice(letters, 22)) + ".jpg"
        (raw / name).write_bytes(data)
        total += len(data)
        drive, role = ("map", "database") if number < frames // 2 else ("drive", "query")
        latitude = 52 + 2e-5 * (number % (frames // 2)) + random.normal(0, 5e-6)
        rows.append(f"{name},{latitude:.8f},{5 + random.normal(0, 5e-6):.8f},{drive},{role}")
    (raw / "positions.csv").write_text("\n".join(rows))
    return total


def main() -> None:
    """Shards and the frames, trajectories and quarantine tables count; windows and truth are shown apart."""
    print(f"{'frames':<14}{'a frame':>10}{'raw':>12}{'stored':>12}{'ratio':>8}{'extra':>12}{'windows, truth':>16}")
    for frames, height, width in ((scaled(1200, 60), 320, 480), (scaled(4000, 80), 32, 64)):
        with tempfile.TemporaryDirectory() as folder:
            raw = write_drive(Path(folder) / "raw", frames, height, width)
            request = BuildRequest(
                "folder",
                Path(folder) / "raw",
                Path(folder) / "out",
                settings=BuildSettings(shard_bytes=64 << 20),
                protocol=protocols.load("own"),
            )
            manifest = build(request)
            tables = {name: info.bytes for name, info in manifest.tables.items()}
            derived = sum(size for name, size in tables.items() if name.split("-")[0] != name)
            beside = sum(path.stat().st_size for path in (Path(folder) / "out" / "shards").glob("*.parquet"))
            stored = sum(shard.bytes for shard in manifest.shards) + beside + sum(tables.values()) - derived
            extra = record(f"bytes a frame beside {width}x{height} images", (stored - raw) / frames, "B")
            print(
                f"{f'{frames} {width}x{height}':<14}{raw / frames / 1000:>8.1f}kB{raw / 1e6:>10.2f}MB"
                f"{stored / 1e6:>10.2f}MB{stored / raw:>8.4f}{extra:>10.0f} B{derived / frames:>14.0f} B"
            )


if __name__ == "__main__":
    main()

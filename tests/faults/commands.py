"""Every command of the program in a form small enough to be run hundreds of times, and the folder that it works in."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import timm

import seqdata
from cli.program.registry import COMMANDS, INDEX_COMMANDS
from tests.conftest import write_drives
from tests.faults.shim import Outcome, Program
from tests.support.street import write_street

PROTOCOL = """
name = "halves"
source = "made for this test"
length = 3
radius = 7.0
rule = "centre"
[splits.train]
positions = [0, 16]
[splits.val]
positions = [16, 26]
[splits.test]
positions = [26, 44]
"""
RESNET = ("--option", "encoder=resnet10t", "--option", "cut=layer1")
MODEL = ("--model", "mean-small", "--random-init", *RESNET)
SIZE = ("--option", "size=[24,32]")
BUILD = ("build", "folder", "--raw", "raw", "--protocol", "halves.toml", "--workers", "1")
TRAIN = ("train", "ds", *MODEL, *SIZE, "--recipe", "places-finetune", "--device", "cpu", "--protocol", "halves.toml")
HEAD = (
    "train", "ds", "--model", "lstm-small", "--option", "width=8", "--features", "features", "--epochs", "1",
    "--set", "steps=1", "--recipe", "places-finetune", "--device", "cpu", "--protocol", "halves.toml",
)  # fmt: skip
DESCRIPTORS = ("--descriptors", "arrays/queries.npy", "--database", "arrays/database.npy")
PACK = ("pack", "index", "--run", "run", "--dataset", "ds", "--precision", "0.1", "--device", "cpu")
INDEX = ("index", "ds", "--run", "run", "--device", "cpu")
PREPARATION = (
    (*BUILD, "--out", "ds"),
    (*BUILD, "--out", "parts", "--shard-range", "1/1"),
    ("train", "ds", *MODEL, *SIZE, "--epochs", "0", "--device", "cpu", "--protocol", "halves.toml", "--out", "run"),
    (*INDEX, "--out", "index"),
    (*INDEX, "--pca", "8", "--out", "index"),
    (*INDEX, "--pca", "8", "--out", "shares", "--shard-range", "1/2"),
    (*INDEX, "--pca", "8", "--out", "shares", "--shard-range", "2/2"),
    ("eval", "index", "--run", "run", "--device", "cpu"),
    (*PACK, "--out", "place.pack"),
    ("baseline", "ds", "--out", "thumbnails"),
    ("describe", "ds", "--run", "run", "--device", "cpu", "--out", "features"),
)
"""What is built once, with the program itself."""

VOLATILE = ("*/tensorboard/*", "*.jsonl", "*.html", "*run.json", "*measured.json", "*.lock", "*/manifest.json", "*.csv")
"""Files that hold times, or the moment of a measurement; their names are compared, and their bytes are not."""


@dataclass(frozen=True)
class Trial:
    """One command in a folder made by `prepare`.

    Attributes:
        verb: Its name as the program has it.
        arguments: What is typed after `seqdata`.
        again: What is typed to go on after an interruption, where that differs.
        inputs: Files that it reads and that have hashes, as patterns below the folder; a raw dump has none.
        sources: Files that it reads and that have no hashes: a raw dump, queries, a protocol.
        output: Folder or file that it writes, None where it only prints.
        codes_if_there: How it ends where a killed one had written all: most commands end as ever.
        goes_on: Whether the same command goes on after an interruption.
        is_slow: Whether one run takes many seconds: the reduced form then fills the disk only.
    """

    verb: str
    arguments: tuple[str, ...]
    again: tuple[str, ...] | None = None
    inputs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    output: str | None = None
    codes_if_there: tuple[int, ...] = ()
    goes_on: bool = True
    is_slow: bool = False

    @property
    def prints_figures(self) -> bool:
        """Whether what it prints follows from its inputs alone."""
        return self.output is None and self.verb not in ("profile", "doctor", "index show", "index list", "index diff")

    @property
    def resumed(self) -> list[str]:
        """The command that goes on."""
        return list(self.again or self.arguments)


DATASET = ("ds/*.parquet", "ds/manifest.json", "ds/shards/*")
GROWN = ("grown/*.parquet", "grown/*/*.parquet", "grown/manifest.json")
RUN = ("run/run.json", "run/metrics.jsonl", "run/checkpoints/best.*")
VERSION = ("index/versions/*/*",)
TRIALS = (
    Trial("init", ("init",), output="seqdata.toml", codes_if_there=(5,)),
    Trial(
        "synth",
        ("synth", "dump", "--kind", "nordland", "--seconds", "20", "--width", "32", "--height", "32"),
        output="dump",
    ),
    Trial(
        "build", (*BUILD, "--out", "out"), sources=("raw/positions.csv", "raw/*-00?.jpg", "halves.toml"), output="out"
    ),
    Trial("build", (*BUILD, "--out", "out", "--shard-range", "1/1"), sources=("raw/positions.csv",), output="out"),
    Trial("info", ("info", "ds"), inputs=DATASET),
    Trial("verify", ("verify", "ds"), inputs=DATASET),
    Trial("verify", ("verify", "hurt", "--repair", "raw"), sources=("raw/positions.csv",), output="hurt"),
    Trial("quarantine", ("quarantine", "ds"), inputs=("ds/quarantine.parquet", "ds/manifest.json")),
    Trial("protocols", ("protocols",)),
    Trial("sequences", ("sequences", "ds", "--length", "7"), inputs=DATASET, output="ds"),
    Trial("preview", ("preview", "ds"), inputs=DATASET),
    Trial("leakage", ("leakage", "ds", "--protocol", "halves.toml"), inputs=DATASET),
    Trial("export", ("export", "ds", "--out", "out"), inputs=DATASET, output="out"),
    Trial("export", ("export", "ds", "--out", "out", "--format", "folders"), inputs=DATASET, output="out"),
    Trial("merge", ("merge", "parts"), inputs=("parts/shards/*", "parts/.plan*"), output="parts"),
    Trial(
        "append",
        ("append", "ds", "folder", "--raw", "more"),
        inputs=DATASET,
        sources=("more/positions.csv", "more/*-00?.jpg"),
        output="ds",
    ),
    Trial("withdraw", ("withdraw", "ds", "map-003"), inputs=DATASET, output="ds"),
    Trial("compact", ("compact", "grown"), inputs=GROWN, output="grown"),
    Trial("gc", ("gc", "grown"), inputs=GROWN, output="grown"),
    Trial("gc", ("gc", "index"), inputs=VERSION, output="index"),
    Trial(
        "import",
        ("import", "backbone", "backbone.safetensors", "--model", "mean-small", *RESNET, *SIZE, "--out", "out"),
        inputs=("backbone.safetensors",),
        output="out",
    ),
    Trial("models", ("models",)),
    Trial(
        "describe",
        ("describe", "ds", "--run", "run", "--device", "cpu", "--out", "out"),
        inputs=(*DATASET, *RUN),
        output="out",
    ),
    Trial(
        "train",
        (*TRAIN, "--epochs", "1", "--set", "steps=2", "--out", "out"),
        again=(*TRAIN, "--epochs", "1", "--set", "steps=2", "--out", "out", "--resume"),
        inputs=DATASET,
        output="out",
    ),
    Trial(
        "train",
        (*HEAD, "--out", "out"),
        again=(*HEAD, "--out", "out", "--resume"),
        inputs=("features/*",),
        output="out",
    ),
    Trial(
        "eval",
        ("eval", *DESCRIPTORS, "--dataset", "ds", "--protocol", "halves.toml", "--out", "out"),
        inputs=DATASET,
        sources=("arrays/*",),
        output="out",
    ),
    Trial(
        "eval",
        ("eval", "index", "--run", "run"),
        inputs=("run/run.json", "run/predictions/*", *VERSION),
        output="index",
    ),
    Trial(
        "eval",
        # A run remembers where its dataset was, which is not this copy of it.
        ("eval", "index", "--run", "run", "--dataset", "ds", "--again", "--device", "cpu"),
        inputs=(*DATASET, *RUN, *VERSION),
        output="index",
    ),
    Trial("baseline", ("baseline", "ds", "--out", "out"), inputs=DATASET, output="out"),
    Trial(
        "baseline",
        ("baseline", "ds", "--method", "seqslam", "--features", "features", "--out", "out", "--device", "cpu"),
        inputs=("features/*",),
        output="out",
    ),
    Trial(
        "search",
        ("search", "index", "query", "--run", "run", "--device", "cpu"),
        inputs=(*RUN, *VERSION),
        sources=("query/*.jpg",),
    ),
    Trial(
        "pack",
        (*PACK, "--out", "out"),
        inputs=(*DATASET, *RUN, *VERSION),
        output="out",
        is_slow=True,
    ),
    Trial(
        "report",
        ("report", "index", "--run", "run", "--dataset", "ds", "--out", "out/page.html"),
        inputs=(*DATASET, *VERSION),
        output="out",
    ),
    Trial(
        "localize",
        ("localize", "place.pack", "query", "--threads", "1", "--out", "out"),
        inputs=("place.pack/*", "place.pack/index/*"),
        sources=("query/*.jpg",),
        output="out",
        # The track of a live camera cannot be recorded again: another --out begins anew.
        goes_on=False,
    ),
    Trial(
        "compare",
        ("compare", "run", "thumbnails", "--dataset", "ds"),
        inputs=("run/predictions/*", "thumbnails/*.parquet"),
    ),
    # It times the decoder and counts free bytes: what it prints is never twice the same.
    Trial("doctor", ("doctor",)),
    Trial("experiment", ("experiment",)),
    Trial(
        "profile",
        ("profile", *MODEL[:2], "--option", "cut=layer1", "--repeats", "1", "--database", "0", "--device", "cpu"),
    ),
    Trial("demo", ("demo", "--help")),
    Trial("index build", (*INDEX, "--pca", "8", "--out", "out"), inputs=(*DATASET, *RUN), output="out"),
    Trial(
        "index merge",
        ("index", "merge", "ds", "--index", "shares"),
        inputs=("shares/parts/*/*",),
        output="shares",
        codes_if_there=(3,),
    ),
    Trial(
        "index append",
        ("index", "append", "grown", "--run", "run", "--index", "index", "--device", "cpu"),
        inputs=(*GROWN, *RUN, *VERSION),
        output="index",
    ),
    Trial("index list", ("index", "list", "--index", "index"), inputs=VERSION),
    Trial("index show", ("index", "show", "--index", "index"), inputs=VERSION),
    Trial("index diff", ("index", "diff", "latest", "first", "--index", "index"), inputs=VERSION),
    Trial("index verify", ("index", "verify", "--index", "index"), inputs=VERSION),
    Trial("index tag", ("index", "tag", "good", "latest", "--index", "index"), inputs=VERSION, output="index"),
    Trial("index rollback", ("index", "rollback", "first", "--index", "index"), inputs=VERSION, output="index"),
    Trial("index gc", ("index", "gc", "--index", "index"), inputs=VERSION, output="index"),
)


def verbs() -> set[str]:
    """Every command that the program has."""
    return set(COMMANDS) | {f"index {name}" for name in INDEX_COMMANDS}


def prepare(program: Program, folder: Path) -> Path:
    """Make the folder that every trial gets a copy of."""
    write_street(folder / "raw")
    (folder / "halves.toml").write_text(PROTOCOL)
    write_drives(folder / "more", {"map-late": 44})
    (folder / "query").mkdir()
    for number in range(20, 30):
        shutil.copy(folder / f"raw/query-{number:03d}.jpg", folder / "query")
    for command in PREPARATION:
        assert_ends(program.run(list(command), folder), 0)
    first = min((folder / "index/versions").glob("*"), key=lambda version: version.stat().st_mtime_ns)
    assert_ends(program.run(["index", "tag", "first", first.name, "--index", "index"], folder), 0)
    backbone = timm.create_model("resnet10t").state_dict()
    safetensors.torch.save_file(backbone, folder / "backbone.safetensors")
    _write_arrays(folder)
    shutil.copytree(folder / "ds", folder / "hurt")
    for name in ("shards/part-000000.tar", "trajectories.parquet"):
        data = bytearray((folder / "hurt" / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "hurt" / name).write_bytes(data)
    shutil.copytree(folder / "ds", folder / "grown")
    assert_ends(program.run(["append", "grown", "folder", "--raw", "more"], folder), 0)
    return folder


def _write_arrays(folder: Path) -> None:
    """Descriptors of another program: one of every window of the protocol's test split."""
    dataset = seqdata.open(folder / "ds")
    (folder / "arrays").mkdir()
    for role, name in (("query", "queries"), ("database", "database")):
        windows = dataset.sequences(str(folder / "halves.toml"), "test", role)
        vectors = np.random.default_rng(len(role)).normal(size=(windows.height, 8)).astype(np.float32)
        np.save(folder / "arrays" / f"{name}.npy", vectors)


def assert_ends(outcome: Outcome, *codes: int) -> None:
    """A command ended by itself, with one of these exit codes, and without noise."""
    assert outcome.is_clean, (outcome.code, outcome.errors[-2000:])
    assert outcome.code in codes, (outcome.code, outcome.output[-500:], outcome.errors[-2000:])


def is_volatile(name: str) -> bool:
    """Whether a file's bytes differ between two equal commands."""
    return any(Path(name).match(pattern) for pattern in VOLATILE)


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder by its name; of volatile ones only the name counts."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    # TensorBoard puts the second and the process into the name of its file.
    names = {re.sub(r"(?<=events\.out).*", "", path.relative_to(folder).as_posix()): path for path in files}
    return {
        name: "" if is_volatile(name) else hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items()
    }

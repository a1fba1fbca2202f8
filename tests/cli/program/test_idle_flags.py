"""A flag that would do nothing is refused: it was meant to do something."""

from pathlib import Path

import pytest

from tests.cli.test_commands import here
from tests.conftest import write_drives

IDLE = [
    ("synth dump --track-zone 32N", "--track-zone: only together with --track"),
    ("synth dump --seconds 20", "--seconds: a synthetic city has streets, not one drive"),
    ("synth dump --kind nordland --layout tar", "--layout tar: nordland has folder, zip, sections"),
    ("build folder raw --pose rtk --dry-run", "pose"),
    ("build folder raw --buffer 5 --dry-run", "option buffer belongs to a cut along the route"),
    ("verify --option clean_list=x", "--option: only together with --repair"),
    ("export --format folders --shard-megabytes 5", "--shard-megabytes: only together with --format sequences"),
    ("export --length 3 --protocol own", "--length and --stride are set by the protocol own"),
    ("protocols own extra", "expected seqdata protocols show NAME"),
    ("models --length 3", "--length: only together with the name of a model to show"),
    ("models show mean-small --dataset datasets/raw", "--dataset: only together with models get"),
    ("models get mean-small --weights w.pth --random-init", "--weights w.pth and --random-init: name one of them"),
    (
        "describe --model mean-small --weights w.pth --random-init",
        "--weights w.pth and --random-init: name one of them",
    ),
    ("describe --model mean-small --seed 3", "--seed: only together with --pca"),
    ("train --weights w.pth --random-init", "--weights w.pth and --random-init: name one of them"),
    ("train --settings --set lr=1", "--set: only together with a training"),
    ("train datasets/raw --settings", "DATASET: only together with a training"),
    ("localize p --self-test --filter forward", "--filter: only together with a recording"),
    ("train --settings --epochs 3", "--epochs: only together with a training, and not with --settings"),
    ("index --random-init", "--random-init: only together with --model"),
    ("index --whiten", "--whiten: only together with --pca"),
    ("index --sample 9", "--sample: only together with --pca"),
    ("index --memory 8GB", "--memory: only together with --kind auto"),
    ("index --recall-target .9", "--recall-target: only together with an approximate --kind"),
    ("index --engine pool", "--engine: only together with --workers"),
    ("index --shard-range 1/2 --workers 2", "--workers: only together with a whole build"),
    ("index tag old latest --delete", "leave VERSION out"),
    ("eval --metric l2", "--metric: only together with --descriptors"),
    ("eval --features f", "--features: only together with --rerank"),
    ("eval --shard-range 1/2 --workers 2", "--workers: only together with a whole evaluation"),
    ("eval --shard-range 1/2 --full", "--full: only together with a whole evaluation"),
    ("eval --shard-range 1/2 --rerank 5", "--rerank: only together with a whole evaluation"),
    ("eval --ids rows", "--ids: only together with --predictions"),
    ("eval --predictions p.csv --device cpu", "--device: only together with an index or --features"),
    ("eval --predictions p.csv --again", "--again: only together with an index"),
    ("baseline --device cpu", "--device: only together with --features"),
    ("baseline --features f --softening 3", "--softening: only together with thumbnails"),
    ("compare a.parquet b.parquet --device cpu", "--device: only together with an index as A"),
    ("search raw/map-000.jpg --length 4", "--length: only together with --database"),
    ("search raw --database raw --model mean-small --engine cpu", "--engine: only together with an index"),
    ("search raw --database raw --model mean-small --split test", "--split: only together with an index"),
    ("localize place.pack drive --start 3", "--start: only together with --truth"),
    ("localize place.pack --self-test --out track", "--out: only together with a recording"),
    ("experiment --scale smoke", "--scale: only together with the name of an experiment"),
    ("profile --database 0 --dimensions 64", "--dimensions: only together with a database to search"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with a dataset of two drives."""
    folder = tmp_path_factory.mktemp("work")
    write_drives(folder / "raw", {"map": 12, "query": 10})
    assert here(folder, "build", "folder", "raw").returncode == 0
    return folder


@pytest.mark.parametrize(("line", "words"), IDLE, ids=lambda value: value.replace(" ", "_"))
def test_an_idle_flag_is_one_line(line: str, words: str, work: Path) -> None:
    ended = here(work, *line.split())
    assert words in ended.stderr
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr


@pytest.mark.parametrize(
    "line",
    [
        "leakage --protocol own --radius 5",
        "baseline --split tset",
        "export --protocol own --split tset",
        "index --split tset --model mean-small --random-init",
    ],
)
def test_a_split_that_is_not_there_names_those_that_are(line: str, work: Path) -> None:
    ended = here(work, *line.split())
    assert ended.returncode == 2, ended.stderr
    assert "it has test" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: protocol own: no split '")


def test_a_parent_of_dumps_is_told_what_to_type(work: Path) -> None:
    ended = here(work, "build", "auto", ".", "--dry-run")
    assert ended.returncode == 3
    assert "type one of: seqdata build folder raw" in ended.stderr

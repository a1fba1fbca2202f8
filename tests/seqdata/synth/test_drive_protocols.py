"""The protocols beside synthetic laps and seasons: both splits hold windows, and queries have positives."""

from pathlib import Path

import pytest

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.dataset.dataset import open as open_dataset
from seqdata.dataset.info import protocol_counts
from seqdata.synth import NordlandSettings, RobotcarSettings, write_nordland, write_robotcar


def write(kind: str, raw: Path) -> Path:
    """A small dump of a kind; returns its protocol file."""
    if kind == "robotcar":
        return write_robotcar(raw, settings=RobotcarSettings(seconds=20, width=32, height=24), seed=1).protocol
    return write_nordland(raw, settings=NordlandSettings(seconds=60), seed=1).protocol


@pytest.mark.parametrize(("kind", "name"), [("robotcar", "demo-laps"), ("nordland", "demo-seasons")])
def test_a_dump_is_built_under_its_own_protocol(kind: str, name: str, tmp_path: Path) -> None:
    protocol = protocols.load(str(write(kind, tmp_path / "raw")))
    assert (protocol.name, protocol.expected_counts) == (name, {})
    out = tmp_path / "out"
    build(BuildRequest(kind, tmp_path / "raw", out, protocol=protocol))
    dataset = open_dataset(out)
    splits = protocol_counts(dataset, protocol)["splits"]
    assert list(splits) == ["train", "test"]
    for counts in splits.values():
        assert min(counts["database"], counts["query"]) >= 8
        assert counts["without_positive"] <= counts["query"] // 4
    # What is trained on is never tested on.
    rows = {split: set(dataset.frame_rows(dataset.sequences(protocol, split)).ravel().tolist()) for split in splits}
    assert not rows["train"] & rows["test"]

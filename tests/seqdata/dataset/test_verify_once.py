"""What is read once: the manifests of a verified dataset, and the windows of one command."""

from pathlib import Path

import polars as pl
import pytest

from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.contracts import manifest as manifests
from seqdata.dataset.dataset import open as open_dataset
from seqdata.dataset.verify import verify
from seqdata.dataset.versions import withdraw
from seqdata.sequences.sequencer import Sequencer


def test_verify_parses_each_manifest_once(drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "dataset"
    build(BuildRequest("folder", drives, out))
    for key in open_dataset(out).frames.select("key").collect()["key"].to_list()[:3]:
        withdraw(out, [key], "privacy")
    parsed: list[str] = []
    whole = manifests.parse_manifest
    monkeypatch.setattr(manifests, "parse_manifest", lambda data, path: parsed.append(str(path)) or whole(data, path))
    assert list(verify(out)) == []
    assert len(parsed) == len(set(parsed)) == 4


def test_a_build_cuts_its_windows_once(drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[str] = []
    whole = Sequencer._cut_windows

    def cut(self: Sequencer, policy: object, *arguments: object) -> pl.DataFrame:
        cuts.append(str(policy))
        return whole(self, policy, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sequencer, "_cut_windows", cut)
    protocol = protocols.load("own")
    build(BuildRequest("folder", drives, tmp_path / "dataset", protocol=protocol))
    assert len(cuts) == 1
    dataset = open_dataset(tmp_path / "dataset")
    tables = [dataset.sequences(protocol, "test", role) for role in ("database", "query") for _ in range(2)]
    assert len(cuts) == 2
    # What is handed out belongs to the caller: changing it changes nothing that is cut later.
    tables[0].insert_column(0, pl.Series("mine", range(tables[0].height)))
    dataset.sequences(length=2).insert_column(0, pl.Series("mine", [0] * dataset.sequences(length=2).height))
    assert "mine" not in dataset.sequences(length=2).columns

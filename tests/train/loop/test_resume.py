"""Mid-epoch resume: a run that was stopped, killed or cut at any step ends in the numbers of an unbroken one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import timm
import torch

import train
from seqdata import protocols
from seqdata.contracts.toml_files import schema_root
from seqdata.errors import ContractError, InputError, Interrupted
from seqdata.storage.hashing import xxh3_file
from tests.support.fake_dataset import FakeDataset, write_protocol
from tests.train.loop.test_fit import settings
from train.loop import fit as fit_module
from train.runs import checkpoint
from train.runs.folder import environment
from train.runs.record import recorded_protocol
from train.sampling import mined_files as tuples
from train.sampling import regimes
from train.sampling.mining import Triplets
from train.sampling.pairs import Radii
from train.sampling.windows import TrainData

ROOT = Path(__file__).resolve().parents[3]
TIMES = {"wait", "seconds"}
FIELDS = {"triplet": {"erase": 0.3, "mirror": True}, "places": {"regime": "places", "steps": 4, "mirror": True}}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An unbroken run of 2 epochs of 4 steps for each regime, and its protocol."""
    folder = tmp_path_factory.mktemp("whole")
    protocol = write_protocol(folder)
    runs = {}
    for regime, fields in FIELDS.items():
        runs[regime] = train.fit(FakeDataset(), settings(protocol, **fields), folder / regime)
    return protocol, runs


def metrics(run: Any) -> Any:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in entry.items() if name not in TIMES} for entry in lines]


def states(run: Any) -> Any:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())


def assert_same(run: Any, whole: Any) -> None:
    assert metrics(run) == metrics(whole)
    for name in ("best.safetensors", "last.safetensors", "last.optimizer.safetensors"):
        first, second = (checkpoint.read_tensors(folder / "checkpoints" / name) for folder in (run, whole))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert states(run) == []


def at_event(wanted: Any, name: Any = signal.SIGINT) -> Any:
    """A progress callback that sends a signal at the `wanted` = (phase, epoch's event) -th event of that phase."""
    seen = {"train": 0, "mine": 0, "validate": 0, "epoch": 0}

    def progress(phase: Any, done: Any, total: Any, values: Any) -> None:
        seen[phase] += 1
        if (phase, seen[phase]) == wanted:
            signal.raise_signal(name)

    return progress


@pytest.mark.parametrize("regime", ["triplet", "places"])
@pytest.mark.parametrize(
    "where", [("train", 1), ("train", 2), ("train", 3), ("train", 4), ("train", 6), ("validate", 3)]
)
def test_a_stop_anywhere_resumes_to_the_same_numbers(wholes: Any, tmp_path: Path, regime: Any, where: Any) -> None:
    protocol, runs = wholes
    chosen, before = settings(protocol, **FIELDS[regime]), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="--resume goes on"):
        train.fit(FakeDataset(), chosen, tmp_path / "run", progress=at_event(where))
    assert signal.getsignal(signal.SIGINT) is before
    assert (
        len(states(tmp_path / "run")) == 1
        and json.loads((tmp_path / "run" / "run.json").read_text())["finished"] is False
    )
    train.fit(FakeDataset(), chosen, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", runs[regime])


def test_stops_in_mining_by_either_signal_and_again_and_again(wholes: Any, tmp_path: Path) -> None:
    protocol, runs = wholes
    chosen = settings(protocol, **FIELDS["triplet"])
    for i, where in enumerate([("validate", 1), ("mine", 1), ("mine", 2), ("train", 1), ("train", 1)]):
        with pytest.raises(Interrupted):
            train.fit(FakeDataset(), chosen, tmp_path / "run", progress=at_event(where, signal.SIGTERM), resume=i > 0)
    train.fit(FakeDataset(), chosen, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", runs["triplet"])


def test_a_second_signal_stops_at_once(wholes: Any, tmp_path: Path) -> None:
    def twice(phase: Any, done: Any, total: Any, values: Any) -> None:
        if phase == "train":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train.fit(FakeDataset(), settings(wholes[0]), tmp_path / "run", progress=twice)
    assert states(tmp_path / "run") == []


def test_processes_that_die_or_are_told_to_end(wholes: Any, tmp_path: Path) -> None:
    """Real processes: kill -9 in the middle of a round, between two saves, and SIGTERM."""
    protocol, runs = wholes
    cases = {"SIGKILL": ("triplet", 7, -9), "SIGTERM": ("places", 6, 143)}
    running = {}
    for name, (regime, step, _) in cases.items():
        chosen = settings(protocol, **FIELDS[regime], save_every=1 if name == "SIGKILL" else 0)
        (tmp_path / f"{name}.json").write_text(chosen.model_dump_json())
        command = [
            sys.executable,
            "-m",
            "tests.support.run_process",
            tmp_path / name,
            tmp_path / f"{name}.json",
            name,
            step,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        running[name] = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
    for name, (regime, step, code) in cases.items():
        told, _ = running[name].communicate(timeout=120)
        assert running[name].returncode == code, told
        done = step - 1 if name == "SIGKILL" else step
        assert states(tmp_path / name) == [f"step-{(done - 1) // 4 + 1:04d}-{_address(regime, done)}"]
        chosen = settings(protocol, **FIELDS[regime], save_every=1 if name == "SIGKILL" else 0)
        train.fit(FakeDataset(), chosen, tmp_path / name, resume=True)
        assert_same(tmp_path / name, runs[regime])


def _address(regime: Any, done: Any) -> Any:
    at = (done - 1) % 4
    return f"{at // 2:02d}-{at % 2 + 1:06d}" if regime == "triplet" else f"00-{at + 1:06d}"


def test_saved_states_replace_each_other_and_a_torn_one_is_not_seen(wholes: Any, tmp_path: Path) -> None:
    protocol, runs = wholes
    seen = []

    def look(phase: Any, done: Any, total: Any, values: Any) -> None:
        if phase == "train":
            seen.append(states(tmp_path / "run"))
            (tmp_path / "run" / "checkpoints" / ".step-0009-00-000001.tmp").mkdir(exist_ok=True)

    chosen = settings(protocol, **FIELDS["triplet"], save_every=3)
    train.fit(FakeDataset(), chosen, tmp_path / "run", progress=look)
    assert [max((name for name in names if name[0] == "s"), default="") for names in seen] == [
        "", "", "", "step-0001-01-000001", "", "", "", "step-0002-01-000001",
    ]  # fmt: skip
    assert_same(tmp_path / "run", runs["triplet"])


@pytest.mark.parametrize("broken", ["add_metrics", "last"])
def test_a_finished_epoch_survives_a_death_before_its_files_are_written(
    wholes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    """Dead after the epoch was kept as a whole but before (or among) its files: no half state is used."""
    protocol, runs = wholes
    chosen = settings(protocol, **FIELDS["triplet"])
    real_add, real_save = fit_module.RunFolder.add_metrics, checkpoint.save_optimizer

    def add(self: Any, entry: Any) -> None:
        if entry["epoch"] == 1 and broken == "add_metrics":
            raise KeyboardInterrupt
        real_add(self, entry)

    def save(stem: Any, optimizer: Any, details: Any, head: Any = None) -> None:
        if stem.name == "last" and details["course"]["epoch"] == 1 and broken == "last":
            raise KeyboardInterrupt
        real_save(stem, optimizer, details, head)

    with monkeypatch.context() as patched:
        patched.setattr(fit_module.RunFolder, "add_metrics", add)
        patched.setattr(checkpoint, "save_optimizer", save)
        with pytest.raises(KeyboardInterrupt):
            train.fit(FakeDataset(), chosen, tmp_path / "run")
    assert states(tmp_path / "run") == ["epoch-0001"]
    train.fit(FakeDataset(), chosen, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", runs["triplet"])


def test_epochs_and_patience_may_grow_where_the_schedule_allows(wholes: Any, tmp_path: Path) -> None:
    protocol, runs = wholes
    fields = FIELDS["triplet"]
    run = train.fit(FakeDataset(), settings(protocol, **fields, epochs=1, patience=1), tmp_path / "run")
    train.fit(FakeDataset(), settings(protocol, **fields, epochs=2, patience=5), run, resume=True)
    assert_same(run, runs["triplet"])
    cosine = train.fit(FakeDataset(), settings(protocol, epochs=0, schedule="cosine"), tmp_path / "cosine")
    with pytest.raises(ContractError, match=r"epochs: 0 then, 2 now: its cosine schedule ends with the last epoch"):
        train.fit(FakeDataset(), settings(protocol, epochs=2, schedule="cosine"), cosine, resume=True)


def test_a_run_of_an_older_version_goes_on(wholes: Any, tmp_path: Path) -> None:
    protocol, runs = wholes
    fields = FIELDS["triplet"]
    run = train.fit(FakeDataset(), settings(protocol, **fields, epochs=1), tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    added = {
        "heading_max",
        "lr_groups",
        "momentum",
        "halve_every",
        "accumulate",
        "save_every",
        "compile",
        "checkpointing",
    }
    record["settings"] = {name: value for name, value in record["settings"].items() if name not in added}
    record["course"] = {**record["settings"]}
    (run / "run.json").write_text(json.dumps(record))
    train.fit(FakeDataset(), settings(protocol, **fields), run, resume=True)
    assert_same(run, runs["triplet"])


def test_a_resumed_run_keeps_the_model_that_it_recorded(wholes: Any, tmp_path: Path) -> None:
    """Not what its preset is by now: here another deviation of pixels, as an earlier version may have had."""
    protocol, _ = wholes
    chosen = settings(protocol, **FIELDS["triplet"])
    with pytest.raises(Interrupted):
        train.fit(FakeDataset(), chosen, tmp_path / "run", progress=at_event(("train", 3)))
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    record["model"] |= {"patch_normalised": False, "std": [0.5, 0.5, 0.5]}
    path.write_text(json.dumps(record))
    run = train.fit(FakeDataset(), chosen, tmp_path / "run", resume=True)
    assert json.loads(path.read_text())["model"] == record["model"]
    assert train.load_model(run).preprocess.std.flatten().tolist() == [0.5] * 3


def test_a_run_goes_on_under_the_version_of_its_protocol(tmp_path: Path) -> None:
    """A shipped protocol has a newer version than the one that the run was trained under."""
    data: Any = FakeDataset()
    earlier = protocols.load("msls-sta@bd6fe22509f9")
    record = {"protocol": {"name": earlier.name, "hash": earlier.hash}, "settings": {"protocol": earlier.name}}
    assert recorded_protocol(data, record) == earlier != protocols.load("msls-sta")
    own = tmp_path / "own.toml"
    own.write_text((schema_root() / "protocols" / "own.toml").read_text().replace('"own"', '"mine"'))
    record = {"protocol": {"name": "mine", "hash": "0"}, "settings": {"protocol": str(own)}}
    assert recorded_protocol(data, record).name == "mine"


def test_resume_needs_no_weights_and_says_which_it_had(wholes: Any, tmp_path: Path) -> None:
    """The file is gone after the run began; before its first epoch was kept it is still needed."""
    protocol, _ = wholes
    torch.manual_seed(5)
    file = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet10t").state_dict(), file)
    chosen = settings(protocol, **FIELDS["triplet"], weights=str(file))
    whole = train.fit(FakeDataset(), chosen, tmp_path / "whole")
    for name, where in {"early": ("validate", 1), "late": ("train", 3)}.items():
        with pytest.raises(Interrupted):
            train.fit(FakeDataset(), chosen, tmp_path / name, progress=at_event(where))
    hashed = xxh3_file(file)
    file.unlink()
    with pytest.raises(InputError, match="no such weights file"):
        train.fit(FakeDataset(), chosen, tmp_path / "early", resume=True)
    run = train.fit(FakeDataset(), chosen, tmp_path / "late", resume=True)
    assert_same(run, whole)
    record = json.loads((run / "run.json").read_text())
    assert record["weights_hash"] == hashed and record["model"]["weights"] == str(file)
    assert json.loads((run / "checkpoints" / "last.json").read_text())["model"]["weights"] == str(file)
    assert json.loads((wholes[1]["triplet"] / "run.json").read_text())["weights_hash"] is None


def test_a_run_keeps_every_environment_it_saw(wholes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on(gpu: Any, epochs: Any) -> Any:
        monkeypatch.setattr("train.loop.setup.environment", lambda: {"gpu": gpu})
        chosen = settings(wholes[0], **FIELDS["places"], epochs=epochs)
        return json.loads((train.fit(FakeDataset(), chosen, tmp_path / "run", resume=True) / "run.json").read_text())

    first = on("A100", 0)
    assert first["environment"] == {"gpu": "A100", "processes": "1", "device": "cpu"}
    assert first["later_environments"] == []
    for epochs, gpu in enumerate(("A100", "H100", "A100", "H100")):
        record = on(gpu, min(epochs, 1))
    assert record["environment"] == first["environment"]
    assert [later["gpu"] for later in record["later_environments"]] == ["H100"] and record["finished"]


def test_the_environment_names_cuda_and_its_devices_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("cuda" in environment()) == ("gpu" in environment()) == torch.cuda.is_available()
    for name, value in {"is_available": True, "device_count": 2, "get_device_name": "A100"}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    found = environment()
    assert (found["gpu"], found["cuda"]) == ("A100, A100", "12.9") and found["torch"]


def stopped_in_a_round(protocol: Any, tmp_path: Path) -> Any:
    chosen = settings(protocol, **FIELDS["triplet"])
    with pytest.raises(Interrupted):
        train.fit(FakeDataset(), chosen, tmp_path / "run", progress=at_event(("train", 3)))
    return chosen, tmp_path / "run", tmp_path / "run" / "mined" / "epoch-0001-round-01.parquet"


def test_a_round_goes_on_with_its_own_tuples_and_refuses_stale_ones(
    wholes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, run, path = stopped_in_a_round(wholes[0], tmp_path)
    table = pq.read_table(path)
    assert table.column_names == ["query", "positive", "negatives"] and len(table) == 6
    origin = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert origin["dataset"] == "f" * 64 and origin["epoch"] == "1" and origin["round"] == "1"
    for field, stale in {"dataset": "e" * 64, "weights": "0" * 32, "protocol": "other"}.items():
        pq.write_table(table.replace_schema_metadata({**origin, field: stale}), path)
        with pytest.raises(ContractError, match=f"round-01.parquet: stale tuples, {field} is"):
            train.fit(FakeDataset(), chosen, run, resume=True)
    path.unlink()
    with pytest.raises(ContractError, match="missing"):
        train.fit(FakeDataset(), chosen, run, resume=True)
    pq.write_table(table, path)
    train.fit(FakeDataset(), chosen, run, resume=True)
    assert_same(run, wholes[1]["triplet"])


def test_tuples_come_back_as_they_were(tmp_path: Path) -> None:
    import numpy as np

    made = Triplets(np.arange(3), np.arange(3) + 7, np.arange(6).reshape(3, 2))
    origin = tuples.Origin("d", "p", "w", 3, 4)
    tuples.save(tmp_path, made, origin)
    found = tuples.load(tmp_path, origin)
    for name in ("query", "positive", "negatives"):
        assert np.array_equal(getattr(made, name), getattr(found, name)) and getattr(found, name).dtype == np.int64


def test_skipping_steps_reads_no_pixels(data: FakeDataset, protocol_file: Path) -> None:
    from seqdata import protocols

    chosen = settings(protocol_file, regime="places", steps=4)
    windows = TrainData.from_split(data, protocols.load(protocol_file))
    regime = regimes.create(data, windows, Radii(2.5, 6.0), chosen)
    first = [step.windows.tolist() for step in regime.round(1, 0, None).steps]
    again = [step.windows.tolist() for step in regime.round(1, 0, None).steps]
    assert first == again and len(first) == regime.round(1, 0, None).count == 4 and data.read_rows == []

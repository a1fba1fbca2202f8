"""`seqdata train` and `describe` as typed: resuming, stored features, parts by name, torchrun, and what is printed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from cli.main import app
from cli.output import Bar
from seqdata import protocols
from seqdata.build.builder import BuildRequest, build
from seqdata.errors import ContractError, InputError, SeqdataError
from tests.conftest import write_drives
from train.runs.checkpoint import read_tensors

BIN = Path(sys.executable).parent
PROTOCOL = """
name = "street"
source = "folder"
length = 3
radius = 10.0
[train]
positive_radius = 4.0
negative_radius = 8.0
[splits.train]
[splits.val]
"""
TINY = ["--model", "seqvlad-small", "--option", "encoder=resnet10t", "--option", "cut=layer1", "--option", "clusters=4"]
SHORT = [
    "--set", "regime=places", "--set", "places=3", "--set", "steps=12", "--set", "lr=1e-3", "--set", "kmeans_frames=8",
    "--epochs", "2", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a built dataset, its protocol and a file of weights."""
    folder = tmp_path_factory.mktemp("training")
    raw = write_drives(folder / "raw", {"map": 40, "query": 30})
    (folder / "street.toml").write_text(PROTOCOL)
    protocol = protocols.load(str(folder / "street.toml"))
    build(BuildRequest("folder", raw, folder / "datasets" / "street", protocol=protocol))
    torch.manual_seed(5)
    safetensors.torch.save_file(timm.create_model("resnet10t").state_dict(), folder / "resnet10t.safetensors")
    return folder


@pytest.fixture(scope="module")
def whole(work: Any) -> Any:
    """An unbroken run of two epochs from the weights file, in a process of its own: its folder and its stderr."""
    ended = started(work, "--weights", "resnet10t.safetensors", "--out", "whole", *TINY, *SHORT)
    told = ended.communicate(timeout=120)[1]
    assert ended.returncode == 0, told
    return work / "whole", told


def started(work: Any, *arguments: Any) -> Any:
    command = [str(BIN / "seqdata"), "train", "datasets/street", *arguments]
    # A stated width would break the lines of a log.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.Popen(
        command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture
def seqdata(work: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A command in the work folder, within this process; its stdout and stderr."""
    monkeypatch.chdir(work)

    def run(*arguments: Any) -> Any:
        app([str(argument) for argument in arguments], standalone_mode=False)
        return capsys.readouterr()

    return run


def losses(run: Any) -> Any:
    return [json.loads(line).get("losses") for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same(run: Any, whole: Any) -> None:
    assert losses(run) == losses(whole)
    first, second = (read_tensors(folder / "checkpoints" / "last.safetensors") for folder in (run, whole))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_stderr_in_a_pipe_gets_one_line_an_epoch(whole: Any) -> None:
    *progress, end = whole[1].splitlines()
    # On a slow machine lines of progress stand between them ("epoch 1/2 train: 3 of 9 steps …").
    lines = [line for line in progress if re.match(r"epoch \d: ", line)]
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1", "epoch 2"], progress
    assert re.fullmatch(r"took [\d.]+ s; next: seqdata index --run whole", end)
    assert all(re.fullmatch(r"epoch \d: ([\w@ ]+ [\d.e+-]+%?(, )?)+", line) and "val R@5 " in line for line in lines)


def test_a_killed_run_goes_on_by_resume_alone(work: Any, whole: Any, seqdata: Any) -> None:
    """Without its flags, its weights file, and at last its name; toml and newest dataset do not count."""
    weights = work / "resnet10t.safetensors"
    weights.with_name("lent.safetensors").write_bytes(weights.read_bytes())
    broken = work / "runs" / "broken"
    process = started(
        work, "--weights", "lent.safetensors", "--out", "runs/broken", *TINY, *SHORT, "--set", "save_every=1"
    )
    while not list(broken.glob("checkpoints/step-0001-00-00000[2-9]")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -9 and len(losses(broken)) == 1
    weights.with_name("lent.safetensors").unlink()
    shutil.copytree(broken, work / "named")
    shutil.copytree(whole[0], work / "runs" / "ended")
    os.utime(work / "runs" / "ended" / "run.json")
    (work / "datasets" / "newer").mkdir()
    (work / "datasets" / "newer" / "manifest.json").write_text("{}")
    (work / "seqdata.toml").write_text('[train]\nmodel = "sta-small"\nepochs = 9\n')
    try:
        seqdata("train", "--resume", "--out", "named")
        assert "resuming runs/broken (the newest unfinished" in seqdata("train", "--resume").err
        with pytest.raises(ContractError, match=r"cannot resume, course differs \(lr: 0.001 then, 0.01 now"):
            seqdata("train", "--resume", "--out", "named", "--set", "lr=0.01")
        with pytest.raises(InputError, match="no unfinished run"):
            seqdata("train", "--resume")
    finally:
        (work / "seqdata.toml").unlink()
        shutil.rmtree(work / "datasets" / "newer")
    for run in (broken, work / "named"):
        assert_same(run, whole[0])
        record = json.loads((run / "run.json").read_text())
        assert record["model"]["weights"] == record["settings"]["weights"] == "lent.safetensors"
        assert record["weights_hash"] == json.loads((whole[0] / "run.json").read_text())["weights_hash"] is not None


def test_the_same_command_with_resume_and_a_longer_run(work: Any, seqdata: Any) -> None:
    (work / "seqdata.toml").write_text("[train]\nseed = 3\n")  # over the recipe, whether it is new or goes on
    flags = ["--recipe", "places-finetune", "--random-init", "--out", "longer", *TINY, "--device", "cpu", "--set",
             "places=3", "--set", "steps=2", "--set", "kmeans_frames=8", "--set", "schedule=none"]  # fmt: skip
    try:
        seqdata("train", "datasets/street", *flags, "--epochs", "1")
        seqdata("train", "datasets/street", *flags, "--epochs", "1", "--resume")
    finally:
        (work / "seqdata.toml").unlink()
    seqdata("train", "--resume", "--out", "longer", "--epochs", "2")
    assert len(losses(work / "longer")) == 3
    assert json.loads((work / "longer" / "run.json").read_text())["settings"]["seed"] == 3


def test_resume_runs_no_code_that_was_not_named_again(work: Any, whole: Any, seqdata: Any) -> None:
    shutil.copytree(whole[0], work / "foreign")
    record = json.loads((work / "foreign" / "run.json").read_text())
    record["model"]["name"] = "absent.module:factory"
    (work / "foreign" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ContractError, match="field 'model' is not that of its settings"):
        seqdata("train", "--resume", "--out", "foreign")
    record["settings"]["model"] = "absent.module:factory"
    (work / "foreign" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ContractError, match=r"add --model-from absent\.module:factory"):
        seqdata("train", "--resume", "--out", "foreign")
    with pytest.raises(SeqdataError, match="cannot be imported"):
        seqdata("train", "--resume", "--out", "foreign", "--model-from", "absent.module:factory")


def test_a_head_trains_on_described_features(work: Any, seqdata: Any) -> None:
    plain = ["--random-init", "--option", "encoder=resnet10t", "--option", "cut=layer1"]
    described = seqdata("describe", "datasets/street", "--model", "mean-small", *plain, "--out", "f", "--json")
    assert json.loads(described.out)["rows"] == 70
    head = ["--model", "seqnet-small", "--option", "width=8", "--recipe", "seqnet", "--set", "round_queries=8"]
    short = ["--set", "negatives=2", "--set", "rounds=1", "--epochs", "1", "--device", "cpu", "--out", "head"]
    result = json.loads(seqdata("train", "datasets/street", "--features", "f", *head, *short, "--json").out)
    assert result["epochs"] == 1 and result["descriptor_size"] == 8
    record = json.loads((work / "head" / "run.json").read_text())
    assert record["features"] == json.loads(described.out)["id"] and record["weights_hash"] is None
    assert record["model"]["fusion"] == "seqnet" and record["model"]["pooling"] == "avg"


def test_parts_are_named_one_by_one(work: Any, seqdata: Any) -> None:
    parts = ["--encoder", "resnet10t", "--pool", "gem", "--fusion", "cat", "--option", "cut=layer1"]
    result = json.loads(
        seqdata("train", "datasets/street", *parts, "--random-init", "--epochs", "0", "--out", "parts", "--json").out
    )
    model = result["model"]
    assert [model[key] for key in ("name", "encoder", "pooling", "fusion")] == ["frames", "resnet10t", "gem", "cat"]
    with pytest.raises(ContractError, match="vlad sums residuals"):
        seqdata("train", "datasets/street", "--encoder", "resnet10t", "--pool", "vlad", "--fusion", "cat")


@pytest.mark.parametrize(
    "given", ["lr=1e38", "lr=Infinity", 'lr_groups={"encoder": 1e38}', "weight_decay=1e38", "base=1"]
)
def test_a_setting_that_cannot_be_is_named(given: Any, seqdata: Any) -> None:
    with pytest.raises(ContractError, match=given.partition("=")[0]):
        seqdata("train", "datasets/street", "--random-init", *TINY, "--set", given)


def test_torchrun_trains_one_run(work: Any, monkeypatch: pytest.MonkeyPatch, seqdata: Any) -> None:
    flags = ["datasets/street", "--random-init", *TINY, "--set", "regime=places", "--set", "places=3", "--set",
             "steps=3", "--set", "lr=1e-5", "--set", "kmeans_frames=8", "--epochs", "1", "--device", "cpu"]  # fmt: skip
    command = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", BIN / "seqdata", "train"]
    ended = subprocess.run(
        [*map(str, command), *flags, "--out", "together", "--json"],
        cwd=work, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["epochs"] == 1 and ended.stderr.count("epoch 1:") == 1
    assert json.loads((work / "together" / "run.json").read_text())["environment"]["processes"] == "2"
    seqdata("train", *flags, "--out", "alone")
    assert losses(work / "together")[1] == pytest.approx(losses(work / "alone")[1], rel=1e-5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for resume in ([], ["--resume"]):
        with pytest.raises(ContractError, match="name its folder with --out"):
            seqdata("train", *flags, *resume)


class Terminal(io.StringIO):
    def isatty(self) -> Any:
        return True


def test_on_a_terminal_the_bar_says_epoch_stage_and_loss(
    work: Any, monkeypatch: pytest.MonkeyPatch, seqdata: Any
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    seqdata("train", "datasets/street", "--random-init", *TINY, *SHORT, "--set", "mirror=true", "--out", "shown")
    text = terminal.getvalue()
    assert "epoch 0/2 validate:" in text and "epoch 2/2 validate:" in text
    assert re.search(r"epoch 1/2 train: [^\r]*\| 1/12 [^\r]*loss \d\.\d{4}, epoch 0:\d\d left", text)
    assert text.count("\nepoch 1: ") + text.count("\repoch 1: ") == 1


def test_a_bar_that_comes_back_to_a_stage_keeps_its_rate_and_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar("step")
    bar.update("train", 250, 500)
    bar.update("mine", 1, 40)
    bar.update("mine", 40, 40)
    bar.update("train", 251, 500, "loss 0.5")
    for done in (252, 253, 254):
        time.sleep(0.12)
        bar.update("train", done, 500, f"loss {done}")
        assert f"{done}/500" in terminal.getvalue()[-400:] and f"loss {done}" in terminal.getvalue()[-400:]
    assert 1 < bar._bar.format_dict["rate"] < 9
    bar.update("train", 3, 500)  # the same stage from its start
    assert bar._bar.n == 3
    bar.close()


def test_code_is_named_by_model_from_alone(
    work: Any, seqdata: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module of a stranger's folder would leave a file behind; no settings file, flag or record makes it run."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\ndef make(**_): raise SystemExit('made')\n")
    (tmp_path / "seqdata.toml").write_text('[train]\nmodel = "evil:make"\n')
    street = str(work / "datasets" / "street")
    monkeypatch.chdir(tmp_path)
    for command in (["train", street], ["describe", street], ["index"], ["info", street]):
        with pytest.raises(ContractError, match=r"seqdata\.toml: field 'train\.model' names code, 'evil:make'"):
            app([*command], standalone_mode=False)
    (tmp_path / "seqdata.toml").unlink()
    for command in (
        ["train", street, "--model", "evil:make"],
        ["train", street, "--model", "evil:make", "--model-from", "evil:other"],
        ["train", street, "--set", "model=evil:make"],
        ["describe", street, "--model", "evil:make"],
        ["models", "show", "evil:make"],
        ["profile", "--model", "evil:make"],
    ):
        with pytest.raises(ContractError, match=r"'evil:make' is code; .* --model-from evil:make"):
            app([*command], standalone_mode=False)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SystemExit, match="made"):
        app(["models", "show", "--model-from", "evil:make"], standalone_mode=False)
    assert (tmp_path / "ran").exists()


def test_a_runs_remote_dataset_is_not_contacted_unasked(
    work: Any, whole: Any, seqdata: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.config import Config
    from cli.lookup import find_dataset

    def contacted(*_: object) -> Any:
        raise AssertionError("contacted")

    monkeypatch.setattr("seqdata.storage.remote.filesystem", contacted)
    monkeypatch.setattr("seqdata.storage.store.filesystem", contacted)
    for url in (
        "http://evil.example/set",
        "s3://user:secret@evil/set",
        "simplecache::http://evil.example",
        "http:/evil",
    ):
        with pytest.raises(
            InputError, match="which is not contacted unasked; if you trust it, name its folder"
        ) as error:
            find_dataset(Config(work / "nowhere"), None, "0" * 64, url)
        assert "secret" not in str(error.value)
    record = json.loads((whole[0] / "run.json").read_text())
    shutil.copytree(whole[0], work / "remote")
    record |= {"dataset_path": "http://evil.example/set", "dataset": "0" * 64}
    (work / "remote" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"the run names http://evil\.example/set, which is not contacted unasked"):
        seqdata("train", "--resume", "--out", "remote")

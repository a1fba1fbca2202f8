"""The loop: a run's files, resume, early stop, the controls, and what stops it."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from indexer.evaluation import predictions
from indexer.evaluation.recall import recall_at
from seqdata import protocols
from seqdata.errors import (
    ContractError,
    DivergedError,
    InputError,
    MissingDependencyError,
    NotEnoughDataError,
    OutputError,
)
from seqdata.frames.prefetch import prefetch
from tests.support.fake_dataset import FakeDataset
from train.data.describe_settings import DescribeSettings
from train.loop.validation import Validator, search
from train.models import registry as models
from train.runs import checkpoint
from train.sampling.windows import TrainData, drive_groups, shifted
from train.settings import TrainSettings
from train.stages.features import FeatureRequest, write_features

OPTIONS = {"encoder": "resnet10t", "cut": "layer1", "clusters": 4}


def settings(protocol: Any, **fields: Any) -> Any:
    base = {
        "model": "seqvlad-small",
        "options": OPTIONS,
        "weights": "random",
        "protocol": protocol,
        "lr": 1e-3,
        "round_queries": 6,
        "rounds": 2,
        "negatives": 2,
        "batch": 3,
        "places": 4,
        "steps": 3,
        "epochs": 2,
        "device": "cpu",
        "kmeans_frames": 10,
        "light": 0.2,
        "shift": 0.1,
    }
    # As a recipe gives them, so that a regime need not read them all.
    return TrainSettings.create(None, {key: value for key, value in base.items() if key not in fields}, **fields)


def losses(run: Any) -> Any:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {entry["epoch"]: entry.get("losses") for entry in map(json.loads, lines)}


@pytest.mark.parametrize("fields", [{"regime": "triplet"}, {"regime": "places", "loss": "contrastive"}])
def test_run_folder_is_whole_and_loads(data: FakeDataset, protocol_file: Path, tmp_path: Path, fields: Any) -> None:
    seen = []
    chosen = settings(protocol_file, **fields)
    run = train.fit(data, chosen, tmp_path / "run", progress=lambda *event: seen.append(event[0]))
    record = json.loads((run / "run.json").read_text())
    assert record["finished"] and record["dataset"] == data.id and record["protocol"]["name"] == "fake"
    assert TrainSettings.model_validate(record["settings"]) == chosen
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"best.safetensors", "best.json", "last.safetensors", "last.json", "last.optimizer.safetensors"} <= names
    assert list((run / "tensorboard").iterdir())
    assert {"train", "validate", "epoch"} <= set(seen)
    assert sorted(losses(run)) == [0, 1, 2] and all(np.isfinite(losses(run)[1]))
    model = train.load_model(run / "checkpoints" / "last.json")
    window = torch.from_numpy(data.read(data.sequences(length=3), [0, 5]))
    again = train.load_model(run / "checkpoints" / "last.safetensors")
    assert torch.equal(model(window), again(window)) and not model.training


@pytest.mark.parametrize("regime", ["triplet", "places"])
def test_resume_equals_an_unbroken_run(data: FakeDataset, protocol_file: Path, tmp_path: Path, regime: Any) -> None:
    chosen = settings(protocol_file, regime=regime, epochs=3, schedule="cosine", warmup=2, mirror=True, erase=0.3)

    def kill_in_epoch_two(phase: Any, done: Any, total: Any, values: Any) -> None:
        if phase == "train" and values["epoch"] == 2 and done == 2:
            raise KeyboardInterrupt

    whole = train.fit(data, chosen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.fit(data, chosen, tmp_path / "broken", progress=kill_in_epoch_two)
    assert sorted(losses(tmp_path / "broken")) == [0, 1]
    broken = train.fit(data, chosen, tmp_path / "broken", resume=True)
    assert losses(broken) == losses(whole)
    for name in ("best.safetensors", "last.safetensors", "last.optimizer.safetensors"):
        first, second = (checkpoint.read_tensors(run / "checkpoints" / name) for run in (whole, broken))
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert train.fit(data, chosen, tmp_path / "broken", resume=True) == broken


def test_another_run_is_not_resumed_and_a_full_folder_is_refused(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    run = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "run")
    with pytest.raises(OutputError, match="--resume"):
        train.fit(data, settings(protocol_file, epochs=0), run)
    with pytest.raises(ContractError, match=r"lr: 0\.001 then, 0\.1 now"):
        train.fit(data, settings(protocol_file, epochs=0, lr=0.1), run, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train.fit(data, settings(protocol_file), tmp_path / "other", resume=True)


def test_no_epochs_writes_the_untrained_model(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    run = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "run")
    assert sorted(losses(run)) == [0]
    same = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "again")
    first, second = train.load_model(run), train.load_model(same)
    assert torch.equal(first.pooling.centres, second.pooling.centres)
    assert first.pooling.centres.norm(dim=1).max() < 1.01


def test_early_stop(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    chosen = settings(protocol_file, regime="places", epochs=9, patience=2, lr=1e-12)
    run = train.fit(data, chosen, tmp_path / "run")
    assert max(losses(run)) == 2
    assert json.loads((run / "checkpoints" / "best.json").read_text())["epoch"] == 0


def test_a_frozen_encoder_and_no_validation(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    data.drives = tuple(drive for drive in data.drives if drive.split == "train")
    data.__post_init__()
    chosen = settings(protocol_file, model="gem-cat-small", options={**OPTIONS, "trainable": "none"}, epochs=1)
    run = train.fit(data, chosen, tmp_path / "run")
    assert json.loads((run / "checkpoints" / "best.json").read_text())["epoch"] == 1


def test_a_loss_that_is_not_finite_names_its_sequences(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.sampling.regimes.TripletLoss.forward", lambda self, q, p, n: q.sum() * float("nan"))
    with pytest.raises(DivergedError, match=r"epoch 1, step 0, on sequences query-[ab]\[\d+\]"):
        train.fit(data, settings(protocol_file), tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "diverged.json").read_text())["sequences"]) == 12


def test_shifted_control_shows_other_frames(data: FakeDataset, protocol_file: Path) -> None:
    protocol = protocols.load(protocol_file)
    plain, moved = TrainData.from_split(data, protocol), TrainData.from_split(data, protocol, shift=4)
    offset = len(moved.queries)
    first = moved.database.with_row_index("row").join(
        plain.database.with_row_index("old"), on=["trajectory", "first"], how="inner"
    )
    new, old = first["row"].to_numpy(), first["old"].to_numpy()
    assert len(new) == len(moved.database) == len(plain.database) - 8
    assert np.array_equal(moved.frame_rows[offset + new], plain.frame_rows[offset + old] + 4)
    assert shifted(plain.database, -1)[0]["first"].min() == plain.database["first"].min() + 1


def test_drive_groups_follow_windows() -> None:
    inverse = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert drive_groups(inverse, 10).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_recalls_and_search_equal_loops(data: FakeDataset, protocol_file: Path) -> None:
    generator = np.random.default_rng(0)
    query, database = (generator.normal(size=(n, 3)).astype(np.float32) for n in (11, 17))
    labels = generator.integers(0, 2, 11).astype(str), generator.integers(0, 2, 17).astype(str)
    gap = np.linalg.norm(query[:, None] - database[None], axis=2)
    assert search(query, database, 5)[1].tolist() == np.argsort(gap, 1)[:, :5].tolist()
    gap[labels[0][:, None] != labels[1][None]] = np.inf
    assert search(query, database, 3, labels)[1].tolist() == np.argsort(gap, 1)[:, :3].tolist()
    validator = Validator(data, protocols.load(protocol_file))
    nearest = generator.integers(0, len(validator.database), (len(validator.queries), 10))
    pairs = set(validator.truth.positives.select("query", "database").iter_rows())
    counted = {q for q, _ in pairs}
    answers = predictions.table(np.tile(np.arange(10, dtype=np.float32), (len(nearest), 1)), nearest)
    recalls = recall_at(answers, validator.truth)
    for n in (1, 5, 10):
        hits = sum(any((q, int(d)) in pairs for d in nearest[q, :n]) for q in counted)
        assert recalls[n] == hits / len(counted)


class OneDrive(FakeDataset):
    """Its queries are the database windows themselves."""

    def sequences(self, protocol: Any = None, split: Any = None, role: Any = None, **options: Any) -> Any:
        return super().sequences(protocol, split, "database", **options)


def test_validation_never_matches_windows_that_share_a_frame(protocol_file: Path) -> None:
    """Against a literal loop; each query's own window would be its nearest, and its neighbours its positives."""
    protocol = protocols.load(protocol_file)
    validator = Validator(OneDrive(), protocol)
    count, length = len(validator.database), protocol.length
    vectors = np.random.default_rng(1).normal(size=(2 * count, 3)).astype(np.float32)
    vectors[count:] = vectors[:count]
    found = validator(lambda table: vectors)
    first = validator.database["first"].to_numpy()
    pairs = set(OneDrive().protocol_positives(protocol, "val").select("query", "database").iter_rows())
    apart = [[d for d in range(count) if abs(first[q] - first[d]) >= length] for q in range(count)]
    asked = [q for q in range(count) if any((q, d) in pairs for d in apart[q])]
    for n in (1, 5, 10):
        gaps = {}
        for q in asked:
            distances = np.linalg.norm(vectors[apart[q]] - vectors[q], axis=1)
            gaps[q] = [apart[q][at] for at in np.argsort(distances, kind="stable")[:n]]
        assert found[f"r{n}"] == sum(any((q, d) in pairs for d in gaps[q]) for q in asked) / len(asked)
    assert 0 < found["r1"] < 1


def test_damaged_checkpoints_are_named(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    run = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint here"):
        train.load_model(tmp_path)
    best = run / "checkpoints" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100])
    with pytest.raises(ContractError, match="damaged"):
        train.load_model(run)
    record = json.loads((run / "checkpoints" / "best.json").read_text())
    (run / "checkpoints" / "best.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(ContractError, match="format 99"):
        train.load_model(run)


def test_weights_are_never_silently_random(
    data: FakeDataset, protocol_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(name: Any, options: Any) -> None:
        raise MissingDependencyError(f"pretrained weights of '{name}'")

    monkeypatch.setattr("train.models.encoders.weights._download", offline)
    assert TrainSettings.create("p1-triplet", protocol=protocol_file).weights == "pretrained"
    with pytest.raises(MissingDependencyError, match="resnet10t"):
        train.fit(data, settings(protocol_file, weights=None), tmp_path / "run")


def test_two_batches_are_read_ahead_and_no_more() -> None:
    started, asked = [], threading.Semaphore(0)

    def load(item: Any) -> Any:
        started.append(item)
        asked.release()
        return item

    found = prefetch(range(9), load)
    assert next(found) == 0
    for _ in range(3):
        assert asked.acquire(timeout=10)
    assert not asked.acquire(timeout=0.1) and started == [0, 1, 2]
    found.close()
    assert started == [0, 1, 2]


def test_wrong_settings_are_named(protocol_file: Path) -> None:
    with pytest.raises(ContractError, match="'lr'"):
        settings(protocol_file, lr=-1.0)
    with pytest.raises(ContractError, match="seqvlad-triplet"):
        TrainSettings.create("no-such", protocol=protocol_file)
    assert TrainSettings.create("places-scratch", protocol=protocol_file, epochs=3).epochs == 3


@pytest.mark.parametrize("role", ["query", "database"])
def test_no_epochs_need_no_training_windows(data: FakeDataset, protocol_file: Path, tmp_path: Path, role: str) -> None:
    """An untrained model takes its VLAD words from whatever windows there are; a trained one needs both roles."""
    data.drives = tuple(drive for drive in data.drives if drive.split == "val" and drive.role == role)
    data.__post_init__()
    run = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "run")
    assert train.load_model(run).pooling.centres.isfinite().all()
    with pytest.raises(NotEnoughDataError, match="both are needed to train"):
        train.fit(data, settings(protocol_file, epochs=1), tmp_path / "trained")
    data.drives = ()
    with pytest.raises(NotEnoughDataError, match="no split"):
        train.fit(data, settings(protocol_file, epochs=0), tmp_path / "nothing")


def test_a_checkpoint_with_nan_is_refused_by_the_tensors_name(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    run = train.fit(data, settings(protocol_file, epochs=0), tmp_path / "run")
    for stem in ("best", "last"):
        path = run / "checkpoints" / f"{stem}.safetensors"
        tensors = checkpoint.read_tensors(path)
        tensors["pooling.centres"][0] = float("nan")
        checkpoint.write_tensors(path, tensors)
    with pytest.raises(ContractError, match=r"weights of 'pooling\.centres' cannot be used"):
        train.load_model(run)
    with pytest.raises(ContractError, match=r"weights of 'pooling\.centres' cannot be used"):
        train.fit(data, settings(protocol_file, epochs=1), run, resume=True)


def test_stored_features_are_verified_before_a_head_trains_on_them(
    data: FakeDataset, protocol_file: Path, tmp_path: Path
) -> None:
    encoder = models.create("netvlad-small", encoder="resnet10t", cut="layer1", clusters=4, size=None)
    write_features(encoder, data, tmp_path / "features", FeatureRequest(settings=DescribeSettings("cpu")))
    part = next((tmp_path / "features").glob("part-*.npy"))
    content = bytearray(part.read_bytes())
    content[-7] ^= 1
    part.write_bytes(content)
    chosen = settings(protocol_file, model="seqnet-small", options={}, features=str(tmp_path / "features"))
    with pytest.raises(ContractError, match=r"part-00000\.npy: not the bytes that were written"):
        train.fit(data, chosen, tmp_path / "run")


def test_anyloc_takes_its_words_from_the_dataset(data: FakeDataset, protocol_file: Path, tmp_path: Path) -> None:
    """No epoch: the words are means of the value facet's unit tokens, and describe what was never trained."""
    options = {"encoder": "test_vit", "size": (32, 32), "cut": "blocks.1", "facet": "value", "clusters": 3}
    options |= {"trainable": "none", "encoder_options": {"dynamic_img_size": True}}
    chosen = settings(protocol_file, model="anyloc-dinov2-s", options=options, epochs=0, kmeans_frames=10)
    model = train.load_model(train.fit(data, chosen, tmp_path / "run"))
    assert model.pooling.hard and model.descriptor_size(3) == 3 * model.encoder.channels
    with torch.no_grad():
        tokens = torch.nn.functional.normalize(model.tokens(torch.from_numpy(data.pixels)).flatten(0, 1), dim=-1)
        words = model.vlad.centres.detach()
        own = tokens[(tokens @ torch.nn.functional.normalize(words, dim=-1).T).argmax(1) == 0]
    # Ten frames of all were looked at, so a word is near the mean of all its tokens.
    assert float(torch.nn.functional.cosine_similarity(own.mean(0), words[0], dim=0)) > 0.9
    assert bool((words.norm(dim=1) <= 1.0 + 1e-6).all())

"""A pack on its own: the same places as `seqdata search`, without the training code, and every damage named."""

import io
import json
import resource
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import indexer
from indexer.builder.pipeline.build import build_index
from indexer.builder.pipeline.request import IndexRequest
from indexer.localizer.localizer import Localizer
from indexer.localizer.pack import FRAMES, INDEX, MANIFEST, WINDOW, read_pack, read_pack_manifest
from seqdata import protocols
from seqdata.dataset.dataset import Dataset
from seqdata.errors import ContractError, InputError, NotEnoughDataError, OutputError, SeqdataError
from tests.conftest import jpeg
from tests.support.street import LENGTH, MODELS, PLACES, build_street, make_index, make_run, write_street
from train.data.describe_settings import DescribeSettings
from train.runs.checkpoint import load_model
from train.stages.calibrate import judge_index, lacks, threshold_of
from train.stages.describer import RunDescriber
from train.stages.pack import PackRequest, calibration_split, write_pack
from train.stages.search import search_frames


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street(tmp_path_factory.mktemp("street") / "raw")


@pytest.fixture(scope="module")
def street(raw: Path) -> Dataset:
    return build_street(raw, raw.parent / "dataset")


@pytest.fixture(scope="module")
def built(street: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[indexer.PlaceIndex, Path]:
    return make_index(street, tmp_path_factory.mktemp("built"), "sum", pca=6)


@pytest.fixture(scope="module")
def request_(built: tuple[indexer.PlaceIndex, Path], street: Dataset) -> PackRequest:
    return PackRequest(run=built[1], out=built[1].parent / "place.pack", dataset=street, precision=0.8, device="cpu")


@pytest.fixture(scope="module")
def packed(built: tuple[indexer.PlaceIndex, Path], request_: PackRequest) -> Path:
    return write_pack(built[0], request_)


@pytest.fixture
def frames(raw: Path) -> list[Path]:
    return sorted(raw.glob("query-*.jpg"))[20:35]


def localized(pack: Path, frames: list[Path]) -> list[tuple[str, float, float]]:
    """Key, distance and similarity of each successive window without overlap, as search cuts them."""
    here = Localizer(pack, keep_rejected=True)
    found = [here.push(frame) for frame in frames][LENGTH - 1 :: LENGTH]
    return [(place.key, place.distance, place.similarity) for place in found if place is not None]


@pytest.mark.parametrize("kind", [*MODELS, *PLACES])
def test_a_localizer_finds_what_search_finds(street: Dataset, tmp_path: Path, frames: list[Path], kind: str) -> None:
    index, run = make_index(street, tmp_path, kind, pca=None if kind == "cat" else 5)
    pack = write_pack(index, PackRequest(run=run, out=tmp_path / "place.pack", device="cpu"))
    found = localized(pack, frames)
    wanted = list(search_frames(index, frames, RunDescriber(run, DescribeSettings("cpu")), 1))
    assert len(found) == len(wanted) == 5
    assert [key for key, _, _ in found] == [answer.places[0]["key"] for answer in wanted]
    for number, name in ((1, "distance"), (2, "similarity")):
        numbers = [answer.places[0][name] for answer in wanted]
        np.testing.assert_allclose([each[number] for each in found], numbers, rtol=1e-4, atol=2e-5)


def test_another_process_without_the_training_code(
    built: tuple[indexer.PlaceIndex, Path], packed: Path, frames: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(packed, tmp_path / "moved")
    script = textwrap.dedent("""
        import dataclasses, json, sys
        for name in ("train", "cli", "timm", "torch", "torchvision", "polars", "fsspec", "scipy", "shapely", "onnx"):
            sys.modules[name] = None
        import indexer
        here = indexer.Localizer(sys.argv[1], keep_rejected=True)
        print(json.dumps([place and dataclasses.asdict(place) for place in map(here.push, sys.argv[2:])]))
    """)
    root = Path(indexer.__file__).parents[1]
    command = [sys.executable, "-c", script, str(tmp_path / "moved"), *map(str, frames)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    places = json.loads(ended.stdout)
    assert places[: LENGTH - 1] == [None] * (LENGTH - 1)
    wanted = search_frames(built[0], frames, RunDescriber(built[1], DescribeSettings("cpu")), 1)
    for place, answer in zip(places[LENGTH - 1 :: LENGTH], wanted, strict=True):
        (best,) = answer.places
        assert {name: place[name] for name in best.keys() & place.keys() if name not in ("distance", "similarity")} == {
            name: best[name] for name in best.keys() & place.keys() if name not in ("distance", "similarity")
        }
        assert place["distance"] == pytest.approx(best["distance"], abs=2e-5)


def test_the_threshold_is_a_literal_computation(
    built: tuple[indexer.PlaceIndex, Path], packed: Path, street: Dataset
) -> None:
    index, run = built
    model = load_model(run)

    def described(drive: str) -> np.ndarray:
        rows = street.frame_columns("trajectory", "position").with_row_index("row")
        rows = rows.filter(rows["trajectory"] == drive).sort("position")["row"].to_list()[:20]
        windows = torch.from_numpy(np.stack([street.read_frames(rows[at : at + LENGTH]) for at in range(18)]))
        with torch.no_grad():
            return index.transform.apply(model(windows).numpy()).astype(np.float64)

    queries, database = described("query"), described("map")
    apart, right = [], []
    for number, query in enumerate(queries):
        distances = [float(np.sqrt(((query - place) ** 2).sum())) for place in database]
        apart.append(min(distances))
        right.append(abs(distances.index(min(distances)) - number) * 3.0 < 7.0)
    best = None
    for threshold in sorted(apart):
        accepted = [hit for each, hit in zip(apart, right, strict=True) if each <= threshold]
        if sum(accepted) / len(accepted) >= 0.8:
            best = threshold, sum(accepted) / len(accepted), sum(accepted) / 18, len(accepted)
    found = read_pack_manifest(packed).calibration
    assert found is not None and best is not None and 0 < best[2] < 1
    assert found.threshold == pytest.approx(best[0], abs=1e-5)
    assert (found.precision, found.recall, found.accepted) == pytest.approx(best[1:])
    assert (found.queries, found.answerable, found.split, found.target_precision) == (18, 18, "val", 0.8)
    assert found.protocol == index_label(index)


def index_label(index: indexer.PlaceIndex) -> str:
    return protocols.parse(index.manifest.inputs["protocol"], "manifest").label


def test_the_index_itself_is_searched_where_its_own_split_calibrates(
    built: tuple[indexer.PlaceIndex, Path], request_: PackRequest, tmp_path: Path
) -> None:
    pack = write_pack(built[0], replace(request_, out=tmp_path / "p", split="test", precision=0.3))
    found = read_pack_manifest(pack).calibration
    assert found is not None and (found.split, found.queries) == ("test", 22)


def test_one_drive_in_both_roles_is_calibrated_on_other_places(street: Dataset, tmp_path: Path) -> None:
    """Against a direct loop: a window that shares a frame is neither nearest nor a positive."""
    run = make_run(street, tmp_path / "run", "sum")
    both = protocols.Split(database=("map",), query=("map",))
    halves = street.load_protocol("halves")
    near = halves.model_copy(update={"name": "self", "splits": {"test": both}})  # 7 m: all positives share a frame
    protocol = near.model_copy(update={"radius": 70.0})
    request = IndexRequest(out=tmp_path / "self", protocol=protocol, split="test")
    index = indexer.open(build_index(street, RunDescriber(run, DescribeSettings("cpu")), request))
    assert lacks(street, near, "test") == "query with a positive"
    assert lacks(street, protocol, "test") is None
    model = load_model(run)
    judgement = judge_index(index, model, street, "test", device="cpu")
    found = threshold_of(judgement, index, street, "test", 0.5)
    rows = street.frame_rows(street.sequences(protocol, "test", "query"))
    with torch.no_grad():
        vectors = model(torch.from_numpy(np.stack([street.read_frames(each) for each in rows]))).numpy()
    apart, right = [], []
    for number, vector in enumerate(vectors):
        others = [row for row in range(42) if abs(row - number) >= LENGTH]
        distances = [float(np.linalg.norm(vectors[row] - vector)) for row in others]
        apart.append(min(distances))
        right.append(abs(others[distances.index(min(distances))] - number) * 3.0 < 70.0)
    wanted = max(
        threshold
        for threshold in apart
        if np.mean([hit for each, hit in zip(apart, right, strict=True) if each <= threshold]) >= 0.5
    )
    assert found.threshold == pytest.approx(wanted, abs=1e-5)
    assert found.threshold > 0
    assert (found.queries, found.answerable) == (42, 42)


def test_push_rejects_resets_and_takes_any_form(packed: Path, raw: Path, frames: list[Path]) -> None:
    from seqdata.frames.decode import decode_image

    here, all_ = Localizer(packed), Localizer(packed, keep_rejected=True)
    stranger = [jpeg(9000 + number) for number in range(8)]
    calibration = here.manifest.calibration
    assert calibration is not None
    for picture in [*frames, *stranger]:
        found, kept = here.push(picture), all_.push(picture)
        if kept is None:
            assert found is None
            continue
        assert kept.accepted == (kept.distance <= calibration.threshold)
        assert kept.confidence == calibration.confidence(kept.distance)
        assert found == (kept if kept.accepted else None)
    here.reset()
    assert [here.push(picture) for picture in frames[: LENGTH - 1]] == [None, None]
    forms = [frames[0].read_bytes(), str(frames[1]), decode_image(frames[2].read_bytes())]
    all_.reset()
    mixed = [all_.push(picture) for picture in forms][-1]
    all_.reset()
    assert mixed == [all_.push(picture) for picture in frames[:LENGTH]][-1]
    assert mixed is not None and mixed.zone == "32N" and mixed.trajectory == "map"


def test_a_bad_frame_leaves_the_ring_as_it_was(packed: Path, frames: list[Path]) -> None:
    one, other = Localizer(packed, keep_rejected=True), Localizer(packed, keep_rejected=True)
    for picture in frames[: LENGTH - 1]:
        one.push(picture)
        other.push(picture)
    for bad, error in ((b"no picture", InputError), (np.zeros((4, 4)), ContractError), ("absent.jpg", InputError)):
        with pytest.raises(error):
            one.push(bad)
    assert one.push(frames[LENGTH - 1]) == other.push(frames[LENGTH - 1]) is not None


def test_no_split_to_calibrate_on_is_said(built: tuple[indexer.PlaceIndex, Path], request_: PackRequest) -> None:
    index, run = built
    pack = write_pack(index, PackRequest(run=run, out=run.parent / "plain.pack", device="cpu"))
    manifest = read_pack_manifest(pack)
    assert manifest.calibration is None
    assert "every place is accepted" in manifest.calibration_note
    assert calibration_split(index, None) == "val"
    with pytest.raises(ContractError, match="no split 'nope'"):
        calibration_split(index, "nope")
    with pytest.raises(NotEnoughDataError, match=r"split empty of halves@.* has no query"):
        write_pack(index, replace(request_, out=run.parent / "none.pack", split="empty"))
    assert sorted(path.name for path in run.parent.glob("*none.pack*")) == []


def test_a_program_holds_only_the_weights_that_it_uses(packed: Path) -> None:
    """A sum of frames has no weights: the encoder's stand in the frame program alone."""
    weights = {name: _weights(packed / name) for name in (FRAMES, WINDOW)}
    assert weights[FRAMES] > 5
    assert weights[WINDOW] == 0


def _weights(path: Path) -> int:
    """Tensors of more than a few numbers: shapes and indices are no weights."""
    return sum(np.prod(tensor.dims) > 8 for tensor in onnx.load(path).graph.initializer)


def test_packing_again_changes_nothing_and_other_things_stay(
    built: tuple[indexer.PlaceIndex, Path], request_: PackRequest, packed: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    assert write_pack(built[0], request_) == packed
    assert {path: path.stat().st_mtime_ns for path in packed.rglob("*")} == before
    with pytest.raises(OutputError, match="holds something else"):
        write_pack(built[0], replace(request_, precision=0.7))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        write_pack(built[0], replace(request_, out=tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_models_run_is_refused(street: Dataset, built: tuple[indexer.PlaceIndex, Path], tmp_path: Path) -> None:
    other = make_run(street, tmp_path / "run", "lstm")
    with pytest.raises(ContractError, match="another checkpoint"):
        write_pack(built[0], PackRequest(run=other, out=tmp_path / "p"))


def test_every_damaged_file_is_named_before_it_is_opened(packed: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = [*read_pack(packed).files]
    assert {FRAMES, WINDOW, f"{INDEX}/{MANIFEST}"} <= {*names}
    for name in names:
        for damage in ("byte", "cut", "gone"):
            copy = tmp_path / f"{damage}-{name.replace('/', '-')}"
            shutil.copytree(packed, copy)
            data = bytearray((copy / name).read_bytes())
            data[int(generator.integers(len(data)))] ^= 1
            (copy / name).write_bytes(data if damage == "byte" else data[: len(data) // 2])
            if damage == "gone":
                (copy / name).unlink()
            with pytest.raises(ContractError, match=Path(name).name):
                Localizer(copy)


def test_fuzzed_manifests_end_in_a_named_error(packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    whole = json.loads((packed / MANIFEST).read_text())
    changes = [{field: value} for field in whole for value in (None, 3.5, [], {"x": 1}, "word")]
    changes += [{"files": {**whole["files"], name: whole["files"][FRAMES]}} for name in ("/etc/passwd", "../x", "a\\b")]
    changes += [{"files": {}}, {"kind": "index"}, {"schema_version": 9}, {"length": 0}]
    refused = 0
    for change in changes:
        (copy / MANIFEST).write_text(json.dumps({**whole, **change}))
        try:
            read_pack(copy)
        except SeqdataError as error:
            assert MANIFEST in str(error) or INDEX in str(error)
            refused += 1
    # Ten fields are free text, five may be absent or another number, three may be empty or hold anything.
    assert refused == len(changes) - 18
    (copy / MANIFEST).write_text(json.dumps({**whole, "index": "0" * 16}))
    with pytest.raises(ContractError, match="the pack's is 0000"):
        Localizer(copy)
    for text in ("", "{", "[]", "null", '{"kind": "pack"}'):
        (copy / MANIFEST).write_text(text)
        with pytest.raises(ContractError, match="not the manifest of a pack"):
            read_pack(copy)
    with pytest.raises(InputError, match="no pack here"):
        Localizer(tmp_path / "absent")


def test_a_link_out_of_the_pack_is_refused(packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    (copy / FRAMES).unlink()
    (copy / FRAMES).symlink_to(packed / FRAMES)
    with pytest.raises(ContractError, match=r"frames\.onnx: missing, or a link"):
        Localizer(copy)


def test_frames_as_cameras_give_them(packed: Path, frames: list[Path]) -> None:
    """BGR, grey of 8 and 16 bits, RGBA, read-only and strided arrays, bytes and Pillow images: one place each."""
    rgb = np.asarray(Image.open(frames[0]).convert("RGB"))
    grey = np.asarray(Image.open(frames[0]).convert("L"))
    wide = np.zeros((rgb.shape[0], 2 * rgb.shape[1], 3), np.uint8)
    wide[:, ::2] = rgb
    locked = rgb.copy()
    locked.flags.writeable = False
    png = io.BytesIO()
    Image.fromarray(rgb).save(png, "PNG")

    def distance(picture: Any, **options: Any) -> float:
        here = Localizer(packed, keep_rejected=True, **options)
        place = [here.push(picture) for _ in range(LENGTH)][-1]
        assert place is not None
        return place.distance

    colour = distance(rgb)
    alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    for picture in (wide[:, ::2], locked, np.concatenate([rgb, alpha], 2), Image.fromarray(rgb)):
        assert distance(picture) == colour
    # A file's pixels are stored as JPEG by a build, so a file goes the same way.
    assert distance(png.getvalue()) == pytest.approx(colour, abs=2e-3)
    assert (
        distance(rgb[..., ::-1], colours="bgr")
        == distance(np.concatenate([rgb[..., ::-1], alpha], 2), colours="bgr")
        == colour
    )
    assert distance(rgb[..., ::-1]) != colour
    deep = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    assert distance(grey[..., None]) == distance(grey)
    assert distance(grey.astype(np.uint16) * 257) == pytest.approx(distance(deep.getvalue()), abs=2e-3)
    for bad in (frames[0].read_bytes()[:-200], rgb.astype(np.float32), rgb[:0], None):
        with pytest.raises(SeqdataError) as error:
            distance(bad)
        assert "\n" not in str(error.value)


def test_int8_says_what_it_cost(built: tuple[indexer.PlaceIndex, Path], request_: PackRequest, tmp_path: Path) -> None:
    pack = write_pack(built[0], replace(request_, out=tmp_path / "int8.pack", quantise="int8", precision=0.3))
    plain = write_pack(built[0], replace(request_, out=tmp_path / "plain.pack", precision=0.3))
    quantised = read_pack_manifest(pack).quantised
    assert quantised is not None and quantised.recall_before is not None and quantised.recall_after is not None
    assert 0 <= quantised.recall_after <= 1
    assert (pack / FRAMES).read_bytes() != (plain / FRAMES).read_bytes()
    operators = {node.op_type for node in onnx.load(pack / FRAMES).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_memory_and_answers_of_a_long_drive(packed: Path, frames: list[Path]) -> None:
    """Two thousand frames: the same answers round after round, and no memory that grows."""
    here = Localizer(packed, keep_rejected=True, threads=1, motion="forward")
    pictures = [frame.read_bytes() for frame in frames]
    rounds = []
    for _ in range(2000 // len(pictures)):
        here.reset()
        rounds.append([here.push(picture, float(number)) for number, picture in enumerate(pictures)])
        if len(rounds) == 20:
            before = resident_bytes()
    assert all(answers == rounds[0] for answers in rounds)
    assert resident_bytes() - before < 16 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

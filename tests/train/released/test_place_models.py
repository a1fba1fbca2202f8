"""Files of models of places: their whole layouts against our models, and descriptors against the programs' formulas."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqdata.errors import MissingDependencyError
from tests.support import place_literal as literal
from tests.support import place_names as names
from tests.support import released_names
from tests.support.released_literal import State, normalised, part
from tests.support.serving.http import FileServer, Kind, serve
from tests.train.released.test_importing import imported, pixels
from train.models.card import outline
from train.models.frame_model import FrameModel
from train.models.place_models import DOWNLOADED, PLACE_MODELS, import_kind
from train.released.download import download
from train.released.programs import PROGRAMS
from train.released.reading import Program

LAYOUTS: dict[str, tuple[str, Callable[[], Any], str, int]] = {
    "SALAD": ("salad", names.salad, "salad", 8448),
    "CliqueMining": ("cliquemining", names.salad, "salad", 8448),
    "MegaLoc": ("megaloc", names.megaloc, "megaloc", 8448),
    "MegaLoc, newer": ("megaloc", lambda: names.megaloc(newer=True), "megaloc", 8448),
    "BoQ, DINOv2": ("boq", names.boq_dinov2, "boq-dinov2", 12288),
    "BoQ, ResNet-50": ("boq", names.boq_r50, "boq-r50", 16384),
    "MixVPR 4096": ("mixvpr", names.mixvpr, "mixvpr-r50", 4096),
    "MixVPR 512": ("mixvpr", lambda: names.mixvpr(256, 2), "mixvpr-r50", 512),
    "CosPlace": ("cosplace", names.cosplace_r50, "cosplace-r50", 2048),
    "EigenPlaces": ("eigenplaces", lambda: names.cosplace_r18(out=256), "eigenplaces-r18", 256),
    "JIST": ("jist", names.jist, "jist-r18", 512),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_every_tensor_of_a_whole_release_has_its_place(case: str) -> None:
    """All names and shapes, on the meta device: nothing is left over, nothing is missing."""
    kind, layout, name, size = LAYOUTS[case]
    tensors = {key: torch.empty(shape, device="meta") for key, shape in layout().items()}
    assert PROGRAMS[kind].recognises(list(tensors))
    reading = PROGRAMS[kind].read(tensors, {})
    assert reading.model == name
    model = outline(name, **reading.options)
    own = model.state_dict()
    assert model.descriptor_size(1) == size and set(own) == set(reading.state)
    axes = {key: [n for n in value.shape if n != 1] for key, value in reading.state.items()}
    assert [key for key in own if key != reading.positions and axes[key] != [n for n in own[key].shape if n != 1]] == []


def salad(state: State, frame: Tensor) -> Tensor:
    return literal.salad(literal.dinov2(part(state, "backbone.model."), frame, 6)[0], part(state, "aggregator."))


def megaloc(state: State, frame: Tensor) -> Tensor:
    tokens = literal.dinov2(part(state, "backbone.model."), frame, 6)[0]
    vector = literal.salad(tokens, part(state, "aggregator.agg."))
    return F.normalize(literal.linear(vector, part(state, "aggregator."), "linear"), dim=0)


def boq(state: State, frame: Tensor) -> Tensor:
    tokens = literal.dinov2(part(state, "backbone.dino."), frame, 6, final_norm=False)[0, 1:]
    rows = frame.shape[-2] // 14
    return literal.boq(tokens.T.unflatten(1, (rows, -1)), part(state, "aggregator."))


def boq_r50(state: State, frame: Tensor) -> Tensor:
    tokens = literal.resnet(part(state, "backbone.net."), frame, ("0", "1", "4", "5", "6"))[0]
    return literal.boq(tokens.T.unflatten(1, (frame.shape[-2] // 16, -1)), part(state, "aggregator."))


def mixvpr(state: State, frame: Tensor) -> Tensor:
    stages = ("conv1", "bn1", "layer1", "layer2", "layer3")
    return literal.mixvpr(literal.resnet(part(state, "backbone.model."), frame, stages)[0], part(state, "aggregator."))


def cosplace(state: State, frame: Tensor) -> Tensor:
    tokens = literal.resnet(part(state, "backbone."), frame, ("0", "1", "4", "5", "6", "7"))[0]
    return literal.cosplace(tokens, part(state, "aggregation."))


SMALL = {"blocks": 2, "channels": 384}
CASES: dict[str, tuple[str, Callable[[], Any], Callable[[State, Tensor], Tensor], tuple[int, int]]] = {
    "salad": ("salad", lambda: names.salad(**SMALL), salad, (126, 126)),
    "megaloc": ("megaloc", lambda: names.megaloc(**SMALL, out=64), megaloc, (126, 126)),
    "boq-dinov2": ("boq", lambda: names.boq_dinov2(**SMALL, width=128), boq, (70, 98)),
    "boq-r50": ("boq", names.boq_r50, boq_r50, (64, 96)),
    "mixvpr-r50": ("mixvpr", lambda: names.mixvpr(64, 2, side=4), mixvpr, (64, 64)),
    "cosplace-r18": ("cosplace", lambda: names.cosplace_r18(out=32), cosplace, (96, 128)),
}
"""Small files of each layout: kind, shapes, the program's vector of one frame, pixels of frames.

CliqueMining's model is SALAD's, EigenPlaces' is CosPlace's.
"""


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_descriptors_are_the_program_s(name: str, tmp_path: Path) -> None:
    """In float64, where the two ways of computing must agree to rounding; a window is the mean of its frames."""
    kind, shapes, vector, size = CASES[name]
    state = released_names.filled(shapes())
    model = imported(tmp_path, kind, {"state_dict": state}, options={"size": size})
    assert isinstance(model, FrameModel) and model.size == size
    model, frames = model.double(), pixels(2, size).double()
    state = {key: value.double() for key, value in state.items()}
    expected = torch.stack([vector(state, normalised(frame[None])) for frame in frames])
    # Frames themselves are prepared in float32.
    torch.testing.assert_close(model.encode_frames(frames), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(frames[None, :1])[0], expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(frames[None])[0], F.normalize(expected.mean(0), dim=0), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_jist_is_a_raw_generalised_mean_of_cosplace(tmp_path: Path) -> None:
    state = released_names.filled(names.jist())
    model, size = imported(tmp_path, "jist", state, options={"size": (64, 96)}), (64, 96)
    frames = pixels(3, size)
    stages = ("0", "1", "4", "5", "6", "7")
    tokens = literal.resnet(part(state, "model.backbone."), normalised(frames), stages)
    vectors = torch.stack([literal.cosplace(frame, part(state, "model.aggregation.")) for frame in tokens])
    p = state["seq_gem.p"]
    expected = vectors.clamp(min=1e-6).pow(p).mean(0).pow(1 / p)
    torch.testing.assert_close(model(frames[None])[0], expected, atol=2e-5, rtol=1e-3)


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FileServer, Program]]:
    """A program whose file lies on a server of this machine, and torch.hub's folder below `tmp_path`."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "served").mkdir()
    torch.save({"a": torch.ones(1)}, tmp_path / "served" / "megaloc.torch")
    with serve(tmp_path / "served") as server:
        yield server, replace(PROGRAMS["megaloc"], address=f"{server.url}/megaloc.torch")


def test_a_release_is_downloaded_once_and_only_read(release: tuple[FileServer, Program]) -> None:
    server, program = release
    paths = [download("megaloc", program) for _ in range(2)]
    assert paths[0] == paths[1] and paths[0].name == "megaloc.torch"
    assert paths[0].read_bytes() == (server.folder / "megaloc.torch").read_bytes()
    assert len(server.asked("megaloc.torch")) == 1


@pytest.mark.parametrize("kind", ["cut", "reset", "status"])
def test_a_release_that_breaks_off_leaves_no_file(kind: Kind, release: tuple[FileServer, Program]) -> None:
    server, program = release
    server.misbehave(kind)
    with pytest.raises(MissingDependencyError, match=r"cannot be downloaded \(.* import megaloc FILE"):
        download("megaloc", program)
    assert not [path for path in Path(torch.hub.get_dir()).rglob("*") if path.is_file()]
    assert download("megaloc", program).is_file()


def test_what_is_said_to_be_downloaded_has_an_address() -> None:
    """Its file is of that very preset, by its name."""
    kinds = {import_kind(name) for name in DOWNLOADED}
    assert kinds == {kind for kind, program in PROGRAMS.items() if program.address}
    assert {import_kind(name) for name in PLACE_MODELS} - {None} <= PROGRAMS.keys()
    assert "dinov2" in PROGRAMS["boq"].address and "ResNet50" in PROGRAMS["cosplace"].address


@pytest.mark.parametrize("kind", [name for name, program in PROGRAMS.items() if program.address])
def test_addresses_are_fixed_releases(kind: str) -> None:
    assert (
        PROGRAMS[kind].address.startswith("https://github.com/") and "/releases/download/v1.0" in PROGRAMS[kind].address
    )


def test_without_network_or_address_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    unreachable = replace(PROGRAMS["salad"], address="http://127.0.0.1:1/dino_salad.ckpt")
    with pytest.raises(MissingDependencyError, match=r"cannot be downloaded \(.*refused.* import salad FILE") as e:
        download("salad", unreachable)
    assert "\n" not in str(e.value)
    with pytest.raises(MissingDependencyError, match=r"github.com/amaralibey/MixVPR says.* import mixvpr FILE"):
        download("mixvpr", PROGRAMS["mixvpr"])
    with pytest.raises(MissingDependencyError, match="has no address of its own; name it: seqdata import sta FILE"):
        download("sta", PROGRAMS["sta"])

"""What a protocol pins about reading is the build's default; only a named protocol can be contradicted."""

from dataclasses import replace
from pathlib import Path

import pytest

from seqdata import protocols
from seqdata.build.builder import build
from seqdata.build.request import BuildRequest, choose_protocol, follow_protocol
from seqdata.contracts.manifest import BuildSettings
from seqdata.dataset.versions import append
from seqdata.errors import InputError
from seqdata.synth import RobotcarSettings, write_robotcar


@pytest.fixture(scope="module")
def laps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RobotCar dump of two short laps."""
    settings = RobotcarSettings(seconds=12, width=64, height=48)
    return write_robotcar(tmp_path_factory.mktemp("robotcar") / "raw", settings=settings, seed=3).root


def request(raw: Path, out: Path | str = "out", protocol: str = "robotcar-seqvlad", **options: str) -> BuildRequest:
    return BuildRequest("robotcar", raw, out, options, protocol=protocols.load(protocol))


def test_pins_are_taken_where_the_request_says_nothing(laps: Path) -> None:
    followed, taken = follow_protocol(request(laps, pose="rtk"))
    assert taken == {"pose-mode": "nearest"}
    assert followed.options == {"pose": "rtk", "pose_mode": "nearest"}
    assert follow_protocol(followed) == (followed, {})  # so that array jobs and resumed builds agree
    _, taken = follow_protocol(request(laps, protocol="oxford1-sta"))
    assert taken == {"pose-mode": "nearest", "crop": "top1280x800"}


def test_spacing_and_rule_are_taken_unless_they_were_set(laps: Path) -> None:
    arc = protocols.load("robotcar-2m").model_copy(update={"spacing": 5.0, "spacing_rule": "arc"})
    open_request = replace(request(laps), protocol=arc)
    followed, taken = follow_protocol(open_request)
    assert (followed.settings.resample_metres, followed.settings.resample_rule) == (5.0, "arc")
    assert taken == {"pose-mode": "nearest", "resample": "5", "rule": "arc"}
    own_metres, taken = follow_protocol(replace(open_request, settings=BuildSettings(resample_metres=3.0)))
    assert own_metres.settings.resample_metres == 3.0
    assert taken == {"pose-mode": "nearest", "rule": "arc"}


@pytest.mark.parametrize(
    ("options", "settings", "flag"),
    [
        ({"pose": "ins"}, BuildSettings(), "give --pose rtk"),
        ({"pose_mode": "interpolate"}, BuildSettings(), "give --pose-mode nearest"),
        ({"pose_gap": "2"}, BuildSettings(), r"give --pose-gap 0\.5"),
        ({}, BuildSettings(resample_rule="arc"), "give --rule greedy"),
    ],
)
def test_a_contradiction_is_refused_or_the_default_protocol_gives_way(
    options: dict[str, str], settings: BuildSettings, flag: str, laps: Path
) -> None:
    contradicting = replace(request(laps, **options), settings=settings)
    with pytest.raises(InputError, match=f"{flag}, or name another --protocol"):
        follow_protocol(contradicting)
    settled, sentence = choose_protocol(contradicting)
    assert settled.protocol is not None
    assert settled.protocol.name == "own"
    assert sentence.startswith("built under own")
    assert follow_protocol(settled)[1] == {}


def test_what_fits_keeps_its_protocol(laps: Path) -> None:
    for fitting in (request(laps), replace(request(laps), protocol=None), request(laps, pose_mode="nearest")):
        assert choose_protocol(fitting) == (fitting, "")


def test_a_build_that_says_nothing_is_the_one_that_names_the_pins(laps: Path, tmp_path: Path) -> None:
    """Equal ids: datasets of people who typed `--option pose_mode=nearest` stay what they were."""
    silent = build(request(laps, tmp_path / "silent"))
    named = build(request(laps, tmp_path / "named", pose_mode="nearest"))
    assert silent.id == named.id
    assert silent.source.options == {"pose_mode": "nearest"}
    appended = append(BuildRequest("robotcar", laps, tmp_path / "silent"))
    assert (appended.listed, appended.skipped) == (0, silent.counts.frames)

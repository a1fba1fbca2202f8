"""The ROS 2 node without ROS: a stub of rclpy's few names, messages of every encoding, and what it publishes."""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import indexer
from seqdata.errors import InputError

EXAMPLE = Path(indexer.__file__).parents[1] / "examples" / "ros2_localizer.py"


class Message(SimpleNamespace):
    """A message whose nested fields come into being when they are named."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, Message())
        return getattr(self, name)


class Node:
    def __init__(self, name: str) -> None:
        self.name, self.published, self.warnings = name, {}, []

    def declare_parameter(self, name: str, default: object) -> SimpleNamespace:
        return SimpleNamespace(value=default)

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.setdefault(topic, []).append)

    def create_subscription(self, kind: type, topic: str, call: Callable[..., None], profile: object) -> None:
        self.topic = topic

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(warning=self.warnings.append)


class FakeLocalizer:
    """Takes frames, and knows a place from the second one on."""

    def __init__(self, pack: str, device: str) -> None:
        self.pushed: list[tuple[np.ndarray, float]] = []

    def push(self, image: np.ndarray, time: float) -> SimpleNamespace | None:
        if not image.any():
            raise InputError("the frame: nothing to see")
        self.pushed.append((image, time))
        place = SimpleNamespace(latitude=48.1, longitude=16.3, easting=100.0, northing=200.0, heading=0.0)
        return place if len(self.pushed) > 1 else None


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    fix = type("NavSatFix", (Message,), {"COVARIANCE_TYPE_APPROXIMATED": 1})
    names: dict[str, dict[str, Any]] = {
        "rclpy": {}, "rclpy.node": {"Node": Node}, "rclpy.qos": {"qos_profile_sensor_data": None},
        "geometry_msgs": {}, "geometry_msgs.msg": {"PoseWithCovarianceStamped": Message}, "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message, "NavSatFix": fix, "NavSatStatus": SimpleNamespace(STATUS_FIX=0)},
    }  # fmt: skip
    for name, values in names.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(indexer, "Localizer", FakeLocalizer, raising=False)
    spec = importlib.util.spec_from_file_location("ros2_localizer", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def message(encoding: str, data: np.ndarray, padding: int = 0, seconds: int = 5) -> Message:
    rows = data.reshape(len(data), -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    stamp = SimpleNamespace(sec=seconds, nanosec=250_000_000)
    return Message(
        encoding=encoding, height=data.shape[0], width=data.shape[1], step=padded.shape[1], is_bigendian=0,
        data=padded.tobytes(), header=Message(stamp=stamp),
    )  # fmt: skip


def test_every_encoding_becomes_the_same_pixels(example: ModuleType) -> None:
    rgb = np.random.default_rng(0).integers(1, 256, (6, 5, 3), np.uint8)
    alpha = np.full((6, 5, 1), 255, np.uint8)
    for encoding, data in (
        ("rgb8", rgb),
        ("bgr8", rgb[..., ::-1].copy()),
        ("rgba8", np.concatenate([rgb, alpha], 2)),
        ("bgra8", np.concatenate([rgb[..., ::-1], alpha], 2)),
    ):
        np.testing.assert_array_equal(example.pixels(message(encoding, data, padding=3)), rgb)
    np.testing.assert_array_equal(example.pixels(message("mono8", rgb[..., 0].copy(), 2)), rgb[..., 0])
    deep = rgb[..., 0].astype(np.uint16) * 257
    np.testing.assert_array_equal(example.pixels(message("mono16", deep, 4)), deep)


def test_the_node_publishes_accepted_places_and_passes_over_bad_frames(example: ModuleType) -> None:
    node = example.LocalizerNode()
    frame = np.ones((6, 5, 3), np.uint8)
    for picture, encoding in ((frame, "rgb8"), (0 * frame, "rgb8"), (frame, "yuv422"), (frame, "rgb8")):
        node.on_image(message(encoding, picture))
    assert len(node.warnings) == 2
    assert [time for _, time in node.localizer.pushed] == [5.25, 5.25]
    (fix,), (pose,) = node.published["fix"], node.published["pose"]
    assert (fix.latitude, fix.longitude) == (48.1, 16.3)
    assert (pose.pose.pose.position.x, pose.pose.pose.position.y) == (100.0, 200.0)
    # Heading north is a quarter turn from east.
    assert pose.pose.pose.orientation.z == pytest.approx(np.sin(np.pi / 4))


def test_the_node_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 80

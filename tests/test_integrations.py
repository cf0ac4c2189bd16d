"""docs/integrations.md runs, and its ROS node answers photos in a ROS that is only its names."""

import array
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation
from test_readme import ROOT, check

import relocal
from relocal.datasets.nerfstudio import read_nerfstudio
from relocal.scene import Scene, load_scene

PAGE = "docs/integrations.md"
NODE = "relocal_node.py"


@pytest.fixture(scope="module")
def ran(tiny_room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page's examples were run."""
    folder = tmp_path_factory.mktemp("integrations")
    shutil.copytree(tiny_room, folder / "room")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        check("", {}, PAGE)
    return folder


def rows_of(scene: Scene) -> list[int]:
    return scene.indices("test").tolist()


@pytest.mark.docs
@pytest.mark.slow
def test_the_session_is_found(ran: Path) -> None:
    found = json.loads((ran / "map_from_session.json").read_text())
    truth = np.array([[0, 0, 1, -2], [1, 0, 0, 1], [0, 1, 0, 1.4], [0, 0, 0, 1]])
    assert np.abs(np.array(found["map_from_session"]) - truth).max() < 0.05
    assert len(found["pairs"]) == 8
    assert found["residual"]["median_position"] < 0.05


@pytest.mark.docs
@pytest.mark.slow
def test_each_tool_reads_the_answers_near_the_truth(ran: Path) -> None:
    scene = load_scene(ran / "scene")
    rows = rows_of(scene)
    truth = scene.poses[rows].position.numpy()
    tum = np.loadtxt(ran / "estimates.tum")
    euroc = np.loadtxt(ran / "estimates.csv", delimiter=",")
    model = pycolmap.Reconstruction(str(ran / "estimates"))
    names = [f"room/{scene.images[i]}" for i in rows]
    centres = {image.name: image.projection_center() for image in model.images.values()}
    again = read_nerfstudio(ran / "transforms.json")
    assert list(again.images) == names
    for found in (tum[:, 1:4], euroc[:, 1:4], [centres[name] for name in names]):
        assert np.abs(np.array(found) - truth).max() < 0.1
    assert np.abs(again.poses.position.numpy() - truth).max() < 0.1
    turns = [Rotation.from_matrix(scene.poses[i].rotation.numpy()) for i in rows]
    for quaternions, first in ((tum[:, 4:], False), (euroc[:, 4:], True)):
        found = Rotation.from_quat(quaternions, scalar_first=first)
        off = (found * Rotation.concatenate(turns).inv()).magnitude()
        assert np.degrees(off).max() < 3


# --- the ROS node ----------------------------------------------------------------------------


@dataclass
class Stamp:
    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    stamp: Stamp = field(default_factory=Stamp)
    frame_id: str = ""


@dataclass
class Point:
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0


@dataclass
class Quaternion(Point):
    w: float = 1.0


@dataclass
class OnePose:
    position: Point = field(default_factory=Point)
    orientation: Quaternion = field(default_factory=Quaternion)


@dataclass
class PoseWithCovariance:
    pose: OnePose = field(default_factory=OnePose)
    covariance: np.ndarray = field(default_factory=lambda: np.zeros(36))


@dataclass
class PoseWithCovarianceStamped:
    header: Header = field(default_factory=Header)
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)


@dataclass
class CompressedImage:
    header: Header
    format: str
    data: "array.array[int]"


def set_message_fields(message: Any, values: dict[str, Any]) -> None:
    """Puts values into fields that are there and of that type, as ``rosidl_runtime_py`` does."""
    for name, value in values.items():
        old = getattr(message, name)
        if isinstance(old, np.ndarray):
            assert len(value) == len(old)
            setattr(message, name, np.array(value, dtype=old.dtype))
        elif isinstance(old, int | float | str):
            assert type(value) is type(old)
            setattr(message, name, value)
        else:
            set_message_fields(old, value)


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.warned: list[str] = []
        self.published: list[Any] = []
        self.topics: dict[str, type] = {}
        self.heard: Callable[[Any], None]

    def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
        self.topics[topic] = kind
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(
        self, kind: type, topic: str, heard: Callable[[Any], None], depth: int
    ) -> None:
        self.topics[topic] = kind
        self.heard = heard

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.warned.append)


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """As much of ROS 2 as the node asks for; gives the nodes that are spun."""
    spun: list[Node] = []
    contents: dict[str, dict[str, Any]] = {
        "rclpy": {"init": lambda: None, "spin": spun.append},
        "rclpy.node": {"Node": Node},
        "rosidl_runtime_py": {"set_message_fields": set_message_fields},
        "geometry_msgs": {},
        "geometry_msgs.msg": {"PoseWithCovarianceStamped": PoseWithCovarianceStamped},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"CompressedImage": CompressedImage},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return spun


@pytest.mark.docs
@pytest.mark.slow
def test_the_node_answers_photos_and_outlives_a_damaged_one(
    ran: Path, ros: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran)
    runpy.run_path(NODE)
    (node,) = ros
    assert node.topics == {
        "pose": PoseWithCovarianceStamped,
        "image/compressed": CompressedImage,
    }
    scene = load_scene("scene")
    for number, i in enumerate(rows_of(scene)[:2]):
        photo = array.array("B", scene.path(i).read_bytes())
        header = Header(Stamp(100 + number, 250), "camera_optical")
        node.heard(CompressedImage(header, "jpeg", photo))
    node.heard(CompressedImage(Header(), "jpeg", array.array("B", b"no photo")))
    grey = np.full((240, 320, 3), 128, np.uint8)
    blank = array.array("B", bytes(cv2.imencode(".png", grey)[1]))
    node.heard(CompressedImage(Header(), "png", blank))  # in which it cannot tell anything
    assert len(node.warned) == 1
    assert [one.header.stamp for one in node.published] == [Stamp(100, 250), Stamp(101, 250)]
    localizer = relocal.Structure(relocal.load_map("map"))
    camera = relocal.Camera.pinhole(320, 240, 288.0, 288.0, 160.0, 120.0)
    for message, i in zip(node.published, rows_of(scene), strict=False):
        estimate = localizer.localize(scene.path(i), camera)
        assert estimate is not None
        assert message.header.frame_id == "map"
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        assert [place.x, place.y, place.z] == pytest.approx(estimate.pose.position.tolist())
        found = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        np.testing.assert_allclose(found, estimate.pose.rotation.numpy(), atol=1e-9)
        assert estimate.sigma_m is not None
        assert estimate.sigma_deg is not None
        sigmas = [estimate.sigma_m] * 3 + [np.radians(estimate.sigma_deg)] * 3
        np.testing.assert_allclose(message.pose.covariance.reshape(6, 6), np.diag(sigmas) ** 2)


@pytest.mark.docs
def test_the_node_is_thirty_lines() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    found = re.search(rf"<!-- file: {NODE} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found
    code = [line for line in found[1].splitlines() if line.strip()]
    assert len(code) <= 30

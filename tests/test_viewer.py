"""The viewer: what is gathered, drawn and said, without a browser."""

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("viser", reason="the viewer is an extra: pip install 'relocal[view]'")

from relocal.cli import main
from relocal.errors import InputError
from relocal.evaluation import Report, evaluate
from relocal.localizers import open_localizer
from relocal.metrics import pose_errors
from relocal.pose import Pose
from relocal.report import load_report, save_report
from relocal.scene import Scene
from relocal.viewer import Gathered, gather, view
from relocal.viewer.panel import nearest_training, photo_pair, plain, thumbnail
from relocal.viewer.place import frame_of, start_viser
from relocal.viewer.recording import record, viewer_page
from relocal.viewer.viewing import Viewer


@pytest.fixture(scope="module")
def report(tiny_run: Path, tiny_map: Path, tiny_scene: Scene) -> Report:
    both = {"run": open_localizer(tiny_run), "map": open_localizer(tiny_map)}
    return evaluate(both, tiny_scene)


@pytest.fixture(scope="module")
def saved(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "one"
    save_report(report, folder)
    return folder


@pytest.fixture
def server() -> Iterator[Any]:
    server = start_viser("127.0.0.1", 0)
    yield server
    server.stop()


def folder_of(scene: Scene) -> Path:
    assert scene.folder is not None
    return scene.folder


def test_a_saved_report_is_read_as_it_was(report: Report, saved: Path) -> None:
    again = load_report(saved)
    assert (again.images, again.unit, again.scene) == (report.images, report.unit, report.scene)
    for name, result in report.methods.items():
        found = again.methods[name]
        assert np.array_equal(found.errors.position, result.errors.position)
        for one, other in zip(found.estimates, result.estimates, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert torch.equal(one.position, other.position.double())
    assert torch.equal(again.training.position, report.training.position.double())
    assert report.points is not None
    assert again.points is not None
    assert np.allclose(again.points[0], report.points[0], atol=1e-5)
    assert np.array_equal(again.points[1], report.points[1])


@pytest.mark.parametrize("wrong", ["{}", "[]", '{"rows": 3}', '{"rows": [1]}'])
def test_a_damaged_report_is_refused_by_name(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(wrong, "utf-8")
    with pytest.raises(InputError, match=r"report\.json: is not what evaluate wrote"):
        load_report(tmp_path)


def test_what_can_be_looked_at(
    saved: Path, tiny_scene: Scene, tiny_run: Path, report: Report
) -> None:
    scene = folder_of(tiny_scene)
    alone = gather([scene])
    assert alone.report.images == tiny_scene.images
    assert not alone.report.methods
    asked = gather([tiny_run, scene])
    assert asked.report.localizers() == [tiny_run.name]
    read = gather([scene, saved])
    assert read.scene is not None
    assert [read.scene.images[i] for i in read.rows] == list(report.images)
    assert gather([saved]).scene is None


def test_what_does_not_belong_together_is_refused(
    saved: Path, tiny_scene: Scene, tiny_run: Path, tmp_path: Path
) -> None:
    scene = folder_of(tiny_scene)
    other = shutil.copytree(saved, tmp_path / "other")
    content = json.loads((other / "report.json").read_text("utf-8"))
    (other / "report.json").write_text(json.dumps({**content, "scene": "elsewhere"}), "utf-8")
    for folders, reason in (
        ([tiny_run], "give its scene, too"),
        ([], "give a scene"),
        ([scene, scene], "second scene"),
        ([saved, saved], "second report"),
        ([saved, tiny_run], "has its answers already"),
        ([other, scene], "is a report on 'elsewhere'"),
        ([tmp_path / "none"], "none"),
    ):
        with pytest.raises(InputError, match=reason):
            gather(folders)


def test_positions_and_cameras_are_drawn_where_they_are(
    server: Any, saved: Path, tiny_scene: Scene
) -> None:
    gathered = gather([saved, folder_of(tiny_scene)])
    report = gathered.report
    name = report.localizers()[0]
    viewer = Viewer(server, gathered, name)
    scene = server.scene
    drawn = scene.get_handle_by_name("/true/positions").points
    frame = frame_of(report.training)
    truth = frame.poses(report.truth)
    assert np.allclose(drawn, truth.position.numpy(), atol=1e-6)
    found = report.methods[name].estimates
    answers = [frame.points(pose.position).tolist() for pose in found if pose is not None]
    assert np.allclose(scene.get_handle_by_name("/predicted/positions").points, answers, atol=1e-6)
    joins = scene.get_handle_by_name("/joins").points
    assert np.allclose(joins[:, 1], answers, atol=1e-6)
    camera = scene.get_handle_by_name("/true/cameras/3")
    assert np.allclose(camera.position, truth.position[3])
    assert np.allclose(camera.wxyz, report.truth.quaternion[3])
    viewer.show_frame(3)
    assert np.allclose(scene.get_handle_by_name("/frame/true").position, truth.position[3])
    assert plain(report.images[3]) in viewer.text.content


def test_the_filter_keeps_the_share_that_it_says(server: Any, report: Report) -> None:
    viewer = Viewer(server, Gathered(report), report.localizers()[0])
    errors, count = viewer.errors(), len(report.images)
    viewer.band.value = (0, 50)
    viewer._filter(None)
    best = viewer.shown()
    assert best.sum() == count // 2
    assert errors[best].max() <= errors[~best].min()
    drawn = server.scene.get_handle_by_name("/true/positions").points
    assert len(drawn) == count // 2
    hidden = [i for i, camera in viewer.cameras.items() if not camera.visible]
    assert hidden == [i for i in viewer.cameras if not best[i]]
    viewer.band.value = (100, 100)
    viewer._filter(None)
    assert viewer.shown().sum() == 1
    assert errors[viewer.shown()] == errors.max()
    viewer.band.value = (0, 0)
    viewer._filter(None)
    assert errors[viewer.shown()] == errors.min()


def click(viewer: Viewer, camera: str) -> None:
    """What the browser's message of a click on a camera does, without a browser."""
    for entry in viewer.server.scene.get_handle_by_name(camera)._impl.click_cb:
        entry.callback(None)
    viewer._step(None)  # as the slider that it moved


def test_another_method_and_another_frame_can_be_chosen(
    server: Any, saved: Path, tiny_scene: Scene
) -> None:
    gathered = gather([saved, folder_of(tiny_scene)])
    first, second = gathered.report.localizers()
    viewer = Viewer(server, gathered, first)
    before = server.scene.get_handle_by_name("/predicted/positions").points
    picture = viewer.figure.image
    viewer.choice.value = second
    viewer._choose(None)
    after = server.scene.get_handle_by_name("/predicted/positions").points
    assert before.shape != after.shape or not np.allclose(before, after)
    assert f"{second}: " in viewer.text.content
    assert not np.array_equal(picture, viewer.figure.image)
    click(viewer, "/true/cameras/4")
    assert viewer.frame == 4
    click(viewer, "/predicted/cameras/2")
    assert viewer.frame == 2


def test_lines_are_brighter_the_larger_the_error(server: Any, saved: Path) -> None:
    gathered = gather([saved])
    method = gathered.report.localizers()[0]
    viewer = Viewer(server, gathered, method)
    answered = [pose is not None for pose in gathered.report.methods[method].estimates]
    order = viewer.errors()[answered].argsort()
    colours = server.scene.get_handle_by_name("/joins").colors[order, 0]
    brightness = colours @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) > -1).all()
    assert brightness[-1] > brightness[0] + 50


def test_sizes_of_cameras_and_points_can_be_chosen(
    server: Any, saved: Path, tiny_scene: Scene
) -> None:
    gathered = gather([saved, folder_of(tiny_scene)])
    scene, viewer = server.scene, Viewer(server, gathered, gathered.report.localizers()[0])
    names = ("/true/cameras/2", "/predicted/cameras/2", "/frame/true", "/frame/predicted")
    before = [scene.get_handle_by_name(name).scale for name in names]
    point = scene.get_handle_by_name("/points").point_size
    viewer.camera_size.value, viewer.point_size.value = 2.0, 3.0
    viewer._resize(None)
    viewer.show_answers()  # as after a filter: sizes stay
    viewer.show_frame(viewer.frame)
    after = [scene.get_handle_by_name(name).scale for name in names]
    assert np.allclose(after, 2 * np.array(before))
    assert scene.get_handle_by_name("/points").point_size == pytest.approx(3 * point)


def test_photos_without_an_answer_are_said_and_not_drawn(server: Any, report: Report) -> None:
    name = report.localizers()[0]
    none = [None] * len(report.images)
    failed = replace(report.methods[name], estimates=none, errors=pose_errors(none, report.truth))
    viewer = Viewer(server, Gathered(replace(report, methods={name: failed})), name)
    assert not server.scene.get_handle_by_name("/predicted/positions").visible
    assert server.scene.get_handle_by_name("/frame/predicted") is None
    assert "no answer" in viewer.text.content


def test_a_scene_that_nothing_was_asked_about(server: Any, tiny_scene: Scene) -> None:
    viewer = Viewer(server, gather([folder_of(tiny_scene)]), None)
    assert viewer.shown().all()
    viewer.show_frame(len(tiny_scene) - 1)
    assert plain(tiny_scene.images[-1]) in viewer.text.content
    assert viewer.photos.visible


def test_the_nearest_training_photo_is_another_one(tiny_scene: Scene) -> None:
    gathered = gather([folder_of(tiny_scene)])
    train = tiny_scene.indices("train").tolist()
    position = tiny_scene.poses.position
    for frame in train[:5]:
        near = nearest_training(gathered, frame)
        assert near in train
        assert near != frame
        apart = (position[train] - position[frame]).norm(dim=1)
        assert float((position[near] - position[frame]).norm()) <= float(apart.median())


def test_a_photo_that_is_gone_is_left_grey(tiny_scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(tiny_scene), tmp_path / "scene")
    gathered = gather([folder])
    whole = photo_pair(gathered, 0)
    assert whole is not None
    gathered.scene.path(0).unlink()  # pyright: ignore[reportOptionalMemberAccess]
    assert thumbnail(gathered, 0, 64) is None
    pair = photo_pair(gathered, 0)
    assert pair is not None
    assert np.array_equal(pair[100, 100], (128, 128, 128))


def test_names_are_shown_as_they_are_written() -> None:
    assert plain("kitchen-2/a.jpg") == "kitchen-2/a.jpg"
    for sign in "*_`[](){}<>&#|!":
        assert plain(f"a{sign}b") == f"a&#{ord(sign)};b"


def test_a_run_and_a_map_of_the_same_name_are_both_shown(
    tiny_run: Path, tiny_map: Path, tiny_scene: Scene
) -> None:
    assert tiny_run.name == tiny_map.name
    assert len(gather([tiny_run, tiny_map, folder_of(tiny_scene)]).report.localizers()) == 2


def test_recordings_made_at_once_leave_printing_alone(report: Report) -> None:
    before = sys.stdout
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: record(report.training), range(16)))
    assert all(made)
    assert sys.stdout is before


def test_sizes_follow_the_cameras() -> None:
    far = Pose(torch.tensor([[0.0, 0, 0], [200.0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0]] * 2))
    near = replace(far, position=far.position / 100)
    assert frame_of(far).length == pytest.approx(100 * frame_of(near).length)
    assert frame_of(Pose.identity(1)).length > 0


def test_a_recording_is_made_without_a_browser(report: Report) -> None:
    page = viewer_page()
    assert page is not None
    assert page.is_file()
    bare = record(report.training, report.points)
    answer = record(report.training, report.points, answer=report.truth[0], sigma=0.1)
    assert len(answer) > len(bare) > 1000
    assert record(Pose.identity(1))  # a run that knows one pose


def test_a_port_that_is_taken_and_a_method_that_is_not_there_are_refused(report: Report) -> None:
    gathered = Gathered(report)
    server = view(gathered, port=0)
    try:
        with pytest.raises(InputError, match="is taken"):
            view(gathered, port=server.get_port())
    finally:
        server.stop()
    with pytest.raises(InputError, match=r"--method: there is no 'mab'\. Did you mean map"):
        view(gathered, method="mab")


def test_the_verb_draws_the_figure_without_a_browser(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "figure.png"
    with pytest.raises(SystemExit) as end:
        main(["view", str(saved), "--screenshot", str(picture)])
    assert end.value.code == 0
    with Image.open(picture) as image:
        assert min(image.size) > 500
    for wrong, reason in (
        (["--screenshot", "a.jpg"], "must end in .png"),
        (["--screenshot", "none/a.png"], "no folder none"),
        (["--host", "203.0.113.7"], "--host 203.0.113.7: cannot be listened at"),
        (["--method", "nobody"], "there is no 'nobody'"),
        (["--port", "0"], "must be 1 to 65535"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["view", str(saved), *wrong])
        assert end.value.code == 2
        assert reason in capsys.readouterr().err

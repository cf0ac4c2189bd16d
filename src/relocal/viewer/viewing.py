"""Viewing: what was gathered, in the browser, with controls to look into it."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relocal.camera import Camera
from relocal.errors import unknown
from relocal.viewer.gathering import ALL_IMAGES, Gathered
from relocal.viewer.panel import (
    errors_picture,
    frame_text,
    photo_pair,
    place_text,
    plain,
    thumbnail,
)
from relocal.viewer.place import (
    CAMERA,
    DOT,
    GREY,
    ORANGE,
    POINT,
    PURPLE,
    add_camera,
    draw_place,
    start_viser,
)

MOST_CAMERAS = 150
"""So many cameras are drawn with their photos, evenly spaced; of the others, where they were."""
_CURRENT = 2.5  # how much larger the frame is drawn that is looked at
_COLOURS = "plasma"
_HIDDEN = np.zeros((1, 3), dtype=np.float32)


def view(
    gathered: Gathered, *, host: str = "127.0.0.1", port: int = 8080, method: str | None = None
) -> Any:
    """Shows map points, true (orange) and predicted (purple) cameras in the browser.

    Args:
        gathered: What there is to look at.
        host: The address to listen at.
        port: The port to listen at.
        method: Whose answers are shown first; by default the first localizer's.

    Returns:
        The ``viser.ViserServer``: ``sleep_forever()`` keeps it, ``stop()`` ends it.

    Raises:
        InputError: If viser is not installed, the method is not known, or the port is taken.
    """
    methods = methods_of(gathered)
    if method is not None and method not in methods:
        raise unknown("--method", method, methods)
    server = start_viser(host, port)
    Viewer(server, gathered, method or next(iter(methods), None))
    return server


def methods_of(gathered: Gathered) -> list[str]:
    """Whose answers can be shown: the localizers, then the baselines."""
    first = gathered.report.localizers()
    return [*first, *(name for name in gathered.report.methods if name not in first)]


class Viewer:
    """The picture and its controls.

    Args:
        server: A ``viser.ViserServer``.
        gathered: What there is to look at.
        method: Whose answers are shown first; None where nothing was asked.
    """

    def __init__(self, server: Any, gathered: Gathered, method: str | None) -> None:
        self.server, self.gathered, self.report = server, gathered, gathered.report
        self.method, self.frame = method, 0
        self.shares = (0.0, 100.0)
        self._lock = threading.RLock()  # callbacks come from many threads
        report = self.report
        known = report.training if len(report.training) else report.truth
        self.drawn = draw_place(server, report.points, known)
        self._add_positions("/training", self._here(report.training.position), GREY)
        self._add_controls()
        self.cameras = self._add_cameras()
        self.show_answers()
        self.show_frame(0)

    def show_answers(self) -> None:
        """Draws the true and predicted positions of the frames that are not filtered out."""
        with self._lock:
            shown, truth = self.shown(), self._here(self.report.truth.position)
            for i, camera in self.cameras.items():
                camera.visible = bool(shown[i])
            self._add_positions("/true", truth[shown], ORANGE)
            if self.method is None:
                return
            answers = self.report.methods[self.method].estimates
            found = {i: p for i, p in enumerate(answers) if p is not None and shown[i]}
            at = [pose.position.double() for pose in found.values()]
            places = self._here(torch.stack(at) if at else torch.zeros(0, 3))
            self._add_positions("/predicted", places, PURPLE)
            self._add_joins(truth[list(found)], places, self.errors()[list(found)])
            for i in self.cameras:
                self._replace_camera(f"/predicted/cameras/{i}", i if i in found else None)

    def show_frame(self, frame: int) -> None:
        """Draws one frame large, and says what is known of it."""
        with self._lock:
            self.frame = frame
            size, camera = _CURRENT * self._camera_size, self._camera(frame)
            scene, truth = self.server.scene, self.drawn.poses(self.report.truth[frame])
            photo = thumbnail(self.gathered, frame, 320)
            add_camera(scene, "/frame/true", truth, camera, size, ORANGE, photo)
            self._replace_camera("/frame/predicted", frame, size)
            self.text.content = frame_text(self.gathered, self.method, frame)
            pair = photo_pair(self.gathered, frame)
            self.photos.visible = pair is not None
            if pair is not None:
                self.photos.image = pair

    def errors(self) -> Float[np.ndarray, " n"]:
        """Position errors of the method that is shown; zeros where nothing was asked."""
        if self.method is None:
            return np.zeros(len(self.report.images))
        return self.report.methods[self.method].errors.position

    def shown(self) -> Bool[np.ndarray, " n"]:
        """Which frames lie between the two shares of the frames in the order of their errors."""
        rank = self.errors().argsort(kind="stable").argsort(kind="stable") + 1
        share = 100 * rank / len(rank)
        return (share >= self.shares[0]) & (share <= max(self.shares[1], share.min()))

    def _add_controls(self) -> None:
        gui, report = self.server.gui, self.report
        asked = "" if self.method is None else f", {report.regime}"
        split = "" if report.split == ALL_IMAGES else f"{report.split} "
        count = f"{len(report.images)} {split}images{asked}"
        middle = place_text(self.drawn.origin, report.extent)
        about = (
            f"Drawn about {middle} {report.unit}, a unit is {self.drawn.length:.4g} {report.unit}."
        )
        gui.add_markdown(f"**{plain(report.scene)}**: {plain(count)}. {plain(about)}")
        if self.method is not None:
            names = methods_of(self.gathered)
            self.choice = gui.add_dropdown("Answers of", names, initial_value=self.method)
            self.choice.on_update(self._choose)
            hint = "Frames whose position error lies between these shares of all"
            ends = {"initial_value": (0, 100), "hint": hint}
            self.band = gui.add_multi_slider("Best to worst, %", 0, 100, 1, **ends)
            self.band.on_update(self._filter)
        last = max(len(report.images) - 1, 1)
        self.slider = gui.add_slider("Frame", 0, last, 1, 0, disabled=len(report.images) == 1)
        self.slider.on_update(self._step)
        self.text = gui.add_markdown("")
        self.photos = gui.add_image(np.zeros((2, 4, 3), dtype=np.uint8), visible=False)
        if self.method is not None:
            self.figure = gui.add_image(errors_picture(report, self.method))
        self.camera_size = gui.add_slider("Size of cameras", 0.1, 3, 0.1, 1)
        self.camera_size.on_update(self._resize)
        self.point_size = gui.add_slider("Size of points", 0.1, 5, 0.1, 1)
        self.point_size.on_update(self._resize)

    def _choose(self, event: Any) -> None:
        with self._lock:
            self.method = str(self.choice.value)
            self.figure.image = errors_picture(self.report, self.method)
            self.show_answers()
            self.show_frame(self.frame)

    def _filter(self, event: Any) -> None:
        least, most = self.band.value
        self.shares = (float(least), float(most))
        self.show_answers()

    def _resize(self, event: Any) -> None:
        with self._lock:
            for i, camera in self.cameras.items():
                camera.scale = self._camera_size
                predicted = self.server.scene.get_handle_by_name(f"/predicted/cameras/{i}")
                if predicted is not None:
                    predicted.scale = self._camera_size
            self.show_frame(self.frame)
            points = self.server.scene.get_handle_by_name("/points")
            if points is not None:
                points.point_size = POINT * self.point_size.value

    @property
    def _camera_size(self) -> float:
        return CAMERA * self.camera_size.value

    def _step(self, event: Any) -> None:
        self.show_frame(int(self.slider.value))

    def _add_cameras(self) -> Mapping[int, Any]:
        """The true cameras by the frame's number, with their photos; a click shows the frame."""
        report, found = self.report, {}
        for i in range(0, len(report.images), -(-len(report.images) // MOST_CAMERAS)):
            photo = thumbnail(self.gathered, i, 96)
            found[i] = add_camera(
                self.server.scene,
                f"/true/cameras/{i}",
                self.drawn.poses(report.truth[i]),
                self._camera(i),
                self._camera_size,
                ORANGE,
                photo,
            )
            found[i].on_click(self._picked(i))
        return found

    def _picked(self, frame: int) -> Callable[[Any], None]:
        def pick(event: Any) -> None:
            self.slider.value = frame  # which shows it

        return pick

    def _replace_camera(self, name: str, frame: int | None, size: float | None = None) -> None:
        """The predicted camera of a frame under a name, or none."""
        pose = None
        if frame is not None and self.method is not None:
            pose = self.report.methods[self.method].estimates[frame]
        if frame is None or pose is None:
            if (old := self.server.scene.get_handle_by_name(name)) is not None:
                old.remove()
            return
        size = size or self._camera_size
        here = self.drawn.poses(pose)
        made = add_camera(self.server.scene, name, here, self._camera(frame), size, PURPLE)
        if name.startswith("/predicted"):
            made.on_click(self._picked(frame))

    def _here(self, positions: Float[Tensor, "k 3"]) -> Float[np.ndarray, "k 3"]:
        """Positions of the scene in the frame that is drawn in."""
        return self.drawn.points(positions).float().numpy()

    def _camera(self, frame: int) -> Camera | None:
        scene = self.gathered.scene
        return None if scene is None else scene.camera(self.gathered.rows[frame])

    def _add_positions(
        self, name: str, places: Float[np.ndarray, "k 3"], colour: tuple[int, ...]
    ) -> None:
        self.server.scene.add_point_cloud(
            f"{name}/positions",
            points=places if len(places) else _HIDDEN,
            colors=colour,
            point_size=DOT / 3,
            point_shape="circle",
            precision="float32",
            visible=len(places) > 0,
        )

    def _add_joins(
        self,
        truth: Float[np.ndarray, "k 3"],
        found: Float[np.ndarray, "k 3"],
        errors: Float[np.ndarray, " k"],
    ) -> None:
        """Lines from true to predicted positions, from dark to bright with the error."""
        from matplotlib import colormaps

        if not len(truth):
            truth = found = _HIDDEN
            errors = np.zeros(1)
        given = self.errors()[np.isfinite(self.errors())]
        most = max(float(np.quantile(given, 0.95)) if len(given) else 0.0, 1e-9)
        colours = colormaps[_COLOURS](np.clip(0.15 + 0.85 * errors / most, 0, 1))[:, :3]
        self.server.scene.add_line_segments(
            "/joins",
            points=np.stack([truth, found], axis=1),
            colors=np.repeat((255 * colours).astype(np.uint8)[:, None], 2, axis=1),
            thickness=2,
            thickness_units="screen",
        )

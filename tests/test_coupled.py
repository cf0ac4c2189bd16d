"""Coupled terms: what they do not see, what their twins take away, and what they are made of."""

import math
from dataclasses import replace

import pytest
import torch
from loss_cases import (
    DEPTH,
    TERMS,
    about,
    build,
    build_term,
    draw_quaternions,
    draw_target,
    moved,
    taken,
)
from torch.testing import assert_close

from relocal.camera import Camera
from relocal.losses import COUPLED
from relocal.pose import Pose, quaternion_multiply
from relocal.types import Prediction, Target

# Terms that have nothing to cancel: the twin is less wherever both errors are there.
NEVER_CANCEL = {"se3", "product"}

every_form = pytest.mark.parametrize("form", ["norm", "squared"])
every_term = pytest.mark.parametrize("name", TERMS)
every_coupled = pytest.mark.parametrize("name", COUPLED)


pytestmark = pytest.mark.usefixtures("double")


# Null sets.


def rolled(target: Target) -> Prediction:
    roll = about(torch.tensor([0.0, 0.0, 1.0]), torch.linspace(0.1, 3, 6))
    return Prediction(target.pose.position, quaternion_multiply(target.quaternion, roll))


def orbited(target: Target) -> Prediction:
    """Each camera turned about the point that it looks at, at depth d."""
    back = -DEPTH * target.pose.look_direction
    turn = Pose(torch.zeros(6, 3), about(torch.randn(6, 3), 0.8))
    return moved(target, turn.apply(back) - back, turn.quaternion)


@every_form
def test_sightline_is_blind_to_roll_and_orbits(target: Target, form: str) -> None:
    sightline, twin = build_term("sightline", form), build_term("twin:sightline", form)
    for term, prediction in ((sightline, orbited), (sightline, rolled), (twin, rolled)):
        value = term(prediction(target), target, 1.0)
        assert_close(value, torch.zeros(6), rtol=0, atol=1e-12)


@every_form
@pytest.mark.parametrize("name", [name for name in TERMS if "sightline" not in name])
def test_other_terms_are_blind_to_nothing(target: Target, form: str, name: str) -> None:
    term, many = build_term(name, form), draw_target(3000)
    for prediction in (rolled(target), orbited(target)):
        assert (term(prediction, target, 1.0) > 1e-3).all()
    shift, angle = DEPTH * torch.randn(3000, 3), torch.randn(3000)
    size = 1e-3 / (shift.norm(dim=-1) + DEPTH * angle.abs())
    small = moved(many, size[:, None] * shift, about(torch.randn(3000, 3), size * angle))
    value = term(small, many, 1.0)
    assert ((value if form == "norm" else value.sqrt()) > 2e-5).all()


@every_form
@pytest.mark.parametrize("twin", ["", "twin:"])
def test_points_are_blind_to_turns_about_the_line_that_they_lie_on(form: str, twin: str) -> None:
    target, way = draw_target(6), torch.randn(6, 1, 3)
    start = torch.zeros(6, 1, 3) if twin else torch.randn(6, 1, 3)
    line = target.pose.position[:, None] + start
    points = line + torch.linspace(1, 4, 9)[:, None] * way
    seen = replace(target, points=points, visible=torch.ones(6, 9, dtype=torch.bool))
    turn = Pose(torch.zeros(6, 3), about(way[:, 0], 0.7))
    shift = line[:, 0] + turn.apply(-start[:, 0]) - target.pose.position
    prediction = moved(seen, shift, turn.quaternion)
    value = build_term(f"{twin}points", form)(prediction, seen, 1.0)
    assert_close(value, torch.zeros(6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["points", "bearing", "twin:points", "twin:bearing"])
def test_image_that_sees_no_point_adds_nothing(target: Target, name: str) -> None:
    assert target.visible is not None
    assert target.points is not None
    prediction, term = moved(target, 0.5, draw_quaternions(6)), build_term(name)
    visible = target.visible & (torch.arange(6) > 0)[:, None]
    value = term(prediction, replace(target, visible=visible), 1.0)
    assert value[0] == 0
    assert (value[1:] > 0).all()
    none = replace(target, points=target.points[:, :0], visible=visible[:, :0])
    assert (term(prediction, none, 1.0) == 0).all()


# Decoupled twins.


@every_form
@every_coupled
def test_twin_is_the_term_when_either_error_is_zero(target: Target, name: str, form: str) -> None:
    term, twin = build_term(name, form), build_term(f"twin:{name}", form)
    for alone in (moved(target, torch.randn(6, 3)), moved(target, turn=draw_quaternions(6))):
        assert_close(twin(alone, target, 1.0), term(alone, target, 1.0))


@every_form
@every_coupled
def test_twin_lets_no_errors_cancel(name: str, form: str) -> None:
    term, twin = build_term(name, form), build_term(f"twin:{name}", form)
    # Points on the plane that the cameras orbit about, where all terms take them to be.
    target = draw_target(6)
    ahead = torch.cat([0.3 * torch.randn(6, 9, 2), torch.ones(6, 9, 1)], dim=-1)
    points = target.pose[:, None].apply(DEPTH * ahead)
    target = replace(target, points=points, visible=torch.ones(6, 9, dtype=torch.bool))
    orbit = orbited(target)
    together = twin(orbit, target, 1.0)
    if name in NEVER_CANCEL:
        assert (together < term(orbit, target, 1.0)).all()
    else:
        assert (together > term(orbit, target, 1.0)).all()
    for part in ({"position": target.pose.position}, {"rotation": target.quaternion}):
        assert (together >= twin(replace(orbit, **part), target, 1.0) - 1e-12).all()


@every_form
def test_bearing_is_bounded(target: Target, form: str) -> None:
    for scale in (1.0, 1e3, 1e6):
        far = moved(target, scale * torch.randn(6, 3), draw_quaternions(6))
        for name, bound in (("bearing", 2.0), ("twin:bearing", math.sqrt(8))):
            value = build_term(name, form)(far, target, 1.0)
            assert (value <= (bound if form == "norm" else bound**2)).all()


# What they are made of.


@every_term
def test_padding_does_not_count(target: Target, name: str) -> None:
    assert target.points is not None
    assert target.visible is not None
    prediction, term = moved(target, 0.5, draw_quaternions(6)), build_term(name)
    value = term(prediction, target, 1.0)
    for i, visible in enumerate(target.visible):
        one = taken(target, slice(i, i + 1))
        seen = replace(
            one, points=target.points[i : i + 1, visible], visible=visible[None, visible]
        )
        alone = Prediction(prediction.position[i : i + 1], prediction.rotation[i : i + 1])
        assert_close(term(alone, seen, 1.0), value[i : i + 1])


@every_form
@pytest.mark.parametrize("twin", ["", "twin:"])
def test_bearing_without_points_sees_those_of_the_frustum(form: str, twin: str) -> None:
    target = draw_target(6)
    w, h = target.camera.width, target.camera.height
    corners = torch.tensor([[0.0, 0], [w, 0], [0, h], [w, h]])
    rays = torch.cat(
        [target.camera[:, None].unproject(corners), torch.tensor([0.0, 0, 1]).expand(6, 1, 3)], 1
    )
    points = target.pose[:, None].apply(DEPTH * rays)
    frustum = replace(target, points=points, visible=torch.ones(6, 5, dtype=torch.bool))
    bare = replace(target, points=None, visible=None)
    prediction, term = moved(target, 0.5, draw_quaternions(6)), build_term(f"{twin}bearing", form)
    assert_close(term(prediction, bare, 1.0), term(prediction, frustum, 1.0))


@pytest.mark.parametrize("name", ["sightline", "frustum", "se3", "product"])
def test_depth_of_an_image_is_that_of_the_points_it_sees(target: Target, name: str) -> None:
    points = target.points
    assert points is not None
    assert target.visible is not None
    few = torch.arange(6) < 2  # images that see too few points to tell
    visible = target.visible & (~few[:, None] | (torch.arange(14) < 7))
    target = replace(target, visible=visible)
    prediction = moved(target, 0.5, draw_quaternions(6))
    value = build_term(name, depth_of="image")(prediction, target, 1.0)
    for i in range(6):
        one = taken(target, slice(i, i + 1))
        alone = Prediction(prediction.position[i : i + 1], prediction.rotation[i : i + 1])
        inside = target.pose[i].inverse().apply(points[i, visible[i]])
        depth = DEPTH if few[i] else float(inside[:, 2].sort().values[(len(inside) - 1) // 2])
        flat = replace(one, depth=torch.tensor([1.0, depth, 9.0]))
        assert_close(value[i : i + 1], build_term(name)(alone, flat, 1.0))
    few_points = replace(target, points=points[:, :3], visible=visible[:, :3])
    own, of_scene = build_term(name, depth_of="image"), build_term(name)
    assert_close(own(prediction, few_points, 1.0), of_scene(prediction, few_points, 1.0))


@every_form
def test_grid_is_the_mean_over_rays_through_the_whole_image(target: Target, form: str) -> None:
    prediction, d = moved(target, 0.5, draw_quaternions(6)), DEPTH
    turned = prediction.pose().rotation - target.pose.rotation
    total = torch.zeros(6)
    for u in torch.linspace(0, 224, 5):
        for v in torch.linspace(0, 192, 5):
            ray = target.camera.unproject(torch.stack([u, v]))
            gap = (0.5 + d * (turned @ ray[..., None])[..., 0]).norm(dim=-1)
            total += gap if form == "norm" else gap**2
    value = build_term("frustum", form, rays="grid")(prediction, target, 1.0)
    assert_close(value, total / 25)


def test_sum_is_the_base_and_gamma_times_the_terms(target: Target) -> None:
    at = (moved(target, torch.randn(6, 3), draw_quaternions(6)), target, 1.0)
    frustum, twin = build_term("frustum", "squared"), build_term("twin:sightline", "squared")
    value = build("posenet+frustum+twin:sightline", gamma=0.3, beta=2.0, form="squared")(*at)
    assert_close(value, build("posenet", beta=2.0)(*at) + 0.3 * (frustum(*at) + twin(*at)))


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_gamma_follows_its_schedule(target: Target, progress: float) -> None:
    prediction = moved(target, torch.randn(6, 3), draw_quaternions(6))
    base = build("posenet")(prediction, target, progress)
    term = build_term("frustum")(prediction, target, progress)
    for schedule, share in (("constant", 1.0), ("rise", progress), ("fall", 1 - progress)):
        loss = build("posenet+frustum", gamma=0.3, gamma_schedule=schedule)
        assert_close(loss(prediction, target, progress), base + 0.3 * share * term)


@pytest.mark.parametrize("rays", ["corners", "grid"])
def test_frustum_takes_one_distorted_camera_for_all(target: Target, rays: str) -> None:
    params = torch.tensor([200.0, 220.0, 112.0, 100.0, -0.1, 0.01, 1e-3, 1e-3])
    one, prediction = Camera("OPENCV", 224, 192, params), moved(target, 0.5, draw_quaternions(6))
    each = replace(one, params=params.expand(6, 8))
    term = build_term("frustum", "norm", rays=rays)
    values = [
        term(prediction, replace(target, camera=camera), 1.0)
        for camera in (one, each, one.undistorted())
    ]
    assert_close(values[0], values[1])
    assert ((values[0] - values[2]).abs() > 1e-4).all()

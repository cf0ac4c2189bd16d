"""Names and options of losses: what is refused, what a loss needs, and the text form."""

import math
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import CASES, TERMS, build, draw_quaternions, make, moved
from torch import Tensor, nn
from torch.testing import assert_close

from relocal.errors import InputError
from relocal.losses import (
    LOSSES,
    LossConfig,
    check_rotation,
    check_scene,
    loss_text,
    needs_depth,
    needs_points,
    needs_range,
    parse_loss,
)
from relocal.losses.config import option_types
from relocal.pose import ROTATIONS
from relocal.types import Prediction, Target

pytestmark = pytest.mark.usefixtures("double")


# What losses need.

NEED_DEPTH = {"reprojection", "homography", *(t for t in TERMS if "points" not in t)}
NEED_RANGE = {"homography"}
NEED_POINTS = {"reprojection", "points", "twin:points"}
# It takes the depth only where there are no points.
DEPTH_OR_POINTS = {"bearing", "twin:bearing"}


def parts_of(case: str) -> set[str]:
    return set(case.partition("/")[0].split("+"))


@pytest.mark.parametrize("case", CASES)
def test_loss_declares_what_it_needs(target: Target, case: str) -> None:
    loss, parts = make(case), parts_of(case)
    points = bool(parts & NEED_POINTS) or "depth_of=image" in case
    assert needs_depth(loss) == bool(parts & NEED_DEPTH)
    assert needs_range(loss) == bool(parts & NEED_RANGE)
    assert needs_points(loss) == points
    accepted = {"6d"} if parts & {"chordal"} else {"quaternion"}
    prediction = moved(target)
    for name in accepted:
        rotation = ROTATIONS[name].encode(prediction.rotation)
        prediction = replace(prediction, rotation=rotation, rotation_name=name)
    bare = replace(target, points=None, visible=None)
    flat = replace(target, depth=None)
    if points:
        with pytest.raises(InputError, match="triangulate"):
            loss(prediction, bare, 1.0)
    else:
        assert loss(prediction, bare, 1.0).isfinite().all()
    if needs_depth(loss) and not parts & DEPTH_OR_POINTS:
        with pytest.raises(InputError, match=r"--loss\.depth"):
            loss(prediction, flat, 1.0)
    else:
        assert loss(prediction, flat, 1.0).isfinite().all()


KNOWN, MEDIAN_ONLY = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([math.nan, 2.0, math.nan])


@pytest.mark.parametrize(
    ("name", "depth", "has_points", "message"),
    [
        ("posenet", None, False, None),
        ("posenet+frustum", MEDIAN_ONLY, False, None),
        ("posenet+frustum", None, False, r"depth, and attic has no map points: .*--loss\.depth"),
        ("posenet+points", MEDIAN_ONLY, False, "uses map points, and attic .*triangulate"),
        ("posenet+points", KNOWN, True, None),
        ("posenet+bearing", MEDIAN_ONLY, False, None),
        ("homography", MEDIAN_ONLY, False, "near and far depth, and attic .*triangulate"),
        ("homography", KNOWN, True, None),
        ("reprojection", MEDIAN_ONLY, False, "uses map points"),
    ],
)
def test_scene_without_what_a_loss_needs_is_refused(
    name: str, depth: Tensor | None, has_points: bool, message: str | None
) -> None:
    if message is None:
        check_scene(build(name), name, "attic", depth, has_points)
        return
    with pytest.raises(InputError, match=message):
        check_scene(build(name), name, "attic", depth, has_points)


@pytest.mark.parametrize(
    ("case", "accepted"),
    [
        ("default", set(ROTATIONS)),
        ("chordal+frustum", {"6d", "9d"}),
        ("default/quaternion=raw", {"quaternion"}),
        ("posenet+points/quaternion=raw", {"quaternion"}),
        ("posenet/quaternion=unit", set(ROTATIONS)),
    ],
)
def test_rotations_that_a_loss_does_not_accept_are_refused(case: str, accepted: set[str]) -> None:
    for rotation in ROTATIONS:
        if rotation in accepted:
            check_rotation(make(case), rotation)
            continue
        with pytest.raises(InputError, match=f"--model.rotation {rotation}: .* takes only"):
            check_rotation(make(case), rotation)


def test_default_takes_unit_quaternions_of_other_rotations(target: Target) -> None:
    prediction = moved(target, 0.3, draw_quaternions(6))
    rotation = ROTATIONS["log_quaternion"].encode(prediction.rotation)
    other = replace(prediction, rotation=rotation, rotation_name="log_quaternion")
    assert_close(
        make("default")(other, target, 1.0), make("default/quaternion=unit")(other, target, 1.0)
    )


def test_nll_refuses_a_model_that_does_not_say_how_sure_it_is(target: Target) -> None:
    with pytest.raises(InputError, match="--loss nll: this model does not say"):
        make("nll")(replace(moved(target), log_var=None), target, 1.0)


# Names and options.

REFUSED = [
    ("defalt", {}, "^--loss: .*'defalt'.* Did you mean default"),
    ("default+frustrum", {}, "coupled term: .*'frustrum'. Did you mean frustum"),
    ("default+twin:sightlin", {}, "term: .*'twin:sightlin'. Did you mean twin:sightline"),
    ("default+", {}, "coupled term: .*''. Known: bearing, frustum, points"),
    ("twin:frustum", {}, r"added to a base loss: position\+twin:frustum"),
    ("default+frustum+frustum", {}, "twice"),
    ("position", {"beta": 2.0}, r"^--loss\.beta: position"),
    ("rotation+frustum", {"match_sign": True}, r"^--loss\.match_sign: rotation\+frustum"),
    ("posenet", {"alpha": 1.0}, r"^--loss\.alpha: posenet"),
    ("default", {"form": "squared"}, r"^--loss\.form: default"),
    ("default", {"gamma": 2.0}, r"^--loss\.gamma: default"),
    ("default", {"gamma_schedule": "rise"}, r"^--loss\.gamma_schedule: default"),
    ("default", {"depth": 0.0}, r"^--loss\.depth: must be above 0"),
    ("default+points", {"depth_of": "image"}, r"^--loss\.depth_of: default\+points"),
    ("default+sightline", {"rays": "grid"}, r"^--loss\.rays: default\+sightline"),
    ("geodesic", {"quaternion": "raw"}, r"^--loss\.quaternion: geodesic"),
    ("default", {"noise": "laplace"}, r"^--loss\.noise: default"),
    ("nll", {"robust": "huber"}, r"^--loss\.robust: nll"),
    ("default", {"robust_x": 1.0}, r"^--loss\.robust_x: needs --loss\.robust huber"),
    ("default", {"robust": "l1", "robust_q": 1.0}, r"^--loss\.robust_q: needs --loss\.robust"),
    ("default", {"robust": "huber", "robust_x": 0.0}, r"^--loss\.robust_x: must be above 0"),
    ("default", {"robust": "huber", "robust_shape": 1.0}, r"^--loss\.robust_shape: needs .*barron"),
    ("default", {"robust": "barron", "robust_shape": 3.0}, r"^--loss\.robust_shape: .*at most 2"),
    ("position", {"robust": "huber", "robust_q": 1.0}, r"^--loss\.robust_q: position"),
    ("rotation", {"robust": "huber", "robust_x": 1.0}, r"^--loss\.robust_x: rotation"),
    *(
        ("default+frustum", {option: value}, rf"^--loss\.{option}: .* not {value}")
        for option in ("alpha", "beta", "gamma", "depth", "robust_x", "robust_q")
        for value in (math.nan, math.inf, -1.0)
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_wrong_names_and_unused_options_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(name, **options)


def test_word_that_a_file_gives_wrong_is_refused() -> None:
    config = LossConfig()
    object.__setattr__(config, "gamma_schedule", "rising")  # the tests' type checks stop it earlier
    with pytest.raises(InputError, match=r"^--loss\.gamma_schedule: .*Did you mean rise"):
        config.__post_init__()


def test_robust_options_reach_the_loss(target: Target) -> None:
    prediction = moved(target, 5.0, draw_quaternions(6))
    options = {"robust_x": 0.3, "robust_q": 0.2, "robust_shape": 1.0}
    value = build("geodesic", beta=1.0, robust="barron", **options)(prediction, target, 1.0)
    dx, angle = (build(name)(prediction, target, 1.0) for name in ("position", "rotation"))
    parts = (c * ((1 + (r / c) ** 2).sqrt() - 1) for r, c in ((dx, 0.3), (angle, 0.2)))
    assert_close(value, sum(parts))


class Mine(nn.Module):
    def __init__(self, *, beta: float = 1.0, own: float = 1.0) -> None:
        super().__init__()
        self.beta = beta * own

    def forward(self, prediction: Prediction, target: Target, progress: float) -> Tensor:
        return self.beta * (prediction.position - target.pose.position).abs().amax(-1)


def test_loss_from_outside_is_built(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "mine", Mine)
    prediction = moved(target, torch.tensor([0.1, -0.5, 0.2]))
    assert_close(build("mine", beta=2.0)(prediction, target, 0.0), torch.ones(6))
    loss = build("mine+sightline", gamma=2.0)
    assert_close(loss(prediction, target, 0.0), torch.full((6,), 0.5 + 2 * math.sqrt(0.3)))


# The text form.


def values(kind: Any) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    return st.booleans() if kind is bool else st.floats(1e-300, 1e300)


@st.composite
def configs(draw: st.DrawFn) -> LossConfig:
    terms = draw(st.lists(st.sampled_from(TERMS), max_size=3, unique=True))
    options: dict[str, Any] = {"name": "+".join([draw(st.sampled_from(list(LOSSES))), *terms])}
    for option, kind in option_types().items():
        if option != "name" and draw(st.booleans()):
            options[option] = draw(values(kind))
    if options.get("robust") not in ("huber", "cauchy", "barron"):
        options = {k: v for k, v in options.items() if not k.startswith("robust_")}
    elif options.get("robust") != "barron" or options.get("robust_shape", 0) > 2:
        options.pop("robust_shape", None)
    return LossConfig(**options)


@given(config=configs())
def test_text_is_read_back(config: LossConfig) -> None:
    assert parse_loss(loss_text(config)) == config


def test_text_names_what_is_not_the_default_in_the_order_of_the_fields() -> None:
    config = LossConfig(name="default+frustum", form="squared", gamma=0.5, robust="l1", beta=2.0)
    assert loss_text(config) == "default+frustum/beta=2.0/robust=l1/gamma=0.5/form=squared"
    assert parse_loss(" default+frustum / form = squared/gamma=5e-1/beta=2/robust=l1 ") == config
    assert loss_text(LossConfig(match_sign=True, gamma=1.0)) == "posenet/match_sign=true"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default/bta=2", r"^default/bta=2: option: .*'bta'. Did you mean beta"),
        ("default/name=posenet", "option: there is no 'name'"),
        ("default/beta", "beta has no value; write beta=VALUE"),
        ("default/beta=", "beta has no value"),
        ("default/beta=two", "beta must be a number, not two"),
        ("default/beta=nan", r"--loss\.beta: must be a number of at least 0"),
        ("default/beta=1/beta=2", "beta is given twice"),
        ("default/match_sign=yes", "match_sign must be true or false, not yes"),
        ("default/form=sqared", r"--loss\.form: .*'sqared'. Did you mean squared"),
        ("default/robust=hubert", r"--loss\.robust: .*'hubert'. Did you mean huber"),
        ("default//", "option: there is no ''"),
    ],
)
def test_wrong_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_loss(text)

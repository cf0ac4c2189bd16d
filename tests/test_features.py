"""Training on the cached features of a frozen stem: the same maps, windows and answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from relocal.backbones import BackboneConfig, build_backbone
from relocal.camera import Camera
from relocal.errors import InputError
from relocal.localizers import Regressor
from relocal.scene import Scene
from relocal.training import PRESETS, TrainConfig, ViewConfig, load_run, predict, train
from relocal.training.features import (
    build_feature_cache,
    build_view_cache,
    cells_corner,
    central_cells,
    random_cells,
)
from relocal.training.loop import prepare
from relocal.training.views import central_view, input_camera, turned_poses, turned_view

STRIDE = 8
CAMERA = Camera.pinhole(100, 84, 90.0, 90.0, 50.0, 42.0)


@pytest.fixture
def features(tiny_config: TrainConfig) -> TrainConfig:
    view = ViewConfig(input_px=64, augment="crop", jitter=0.0)
    backbone = BackboneConfig(name="googlenet", weights="none")
    config = replace(tiny_config, backbone=backbone, view=view)
    return replace(config, freeze="stem", cache="features", epochs=2)


def window() -> Camera:
    return input_camera(CAMERA, ViewConfig(input_px=64, augment="crop"), STRIDE)


def test_window_is_made_of_whole_cells_inside_the_camera() -> None:
    for margin in (1.0, 8 / 7, 1.5, 2.0):
        view = ViewConfig(input_px=round(84 / margin), margin=margin, augment="crop")
        seen = input_camera(CAMERA, view, STRIDE)
        corner = CAMERA.principal_point - seen.principal_point
        assert (corner % STRIDE == 0).all()
        assert seen.width % STRIDE == seen.height % STRIDE == 0
        assert (corner >= 0).all()
        assert (corner + torch.tensor([seen.width, seen.height]) <= torch.tensor([104, 88])).all()
        assert abs(seen.height - 84 / margin) <= STRIDE


def test_cached_maps_are_the_stems_and_are_reused(tmp_path: Path) -> None:
    backbone = build_backbone(BackboneConfig(name="googlenet", weights="none")).eval()
    images = torch.randint(0, 256, (5, 3, 84, 100), dtype=torch.uint8)
    calls: list[tuple[int, int]] = []

    def build() -> torch.Tensor:
        return build_feature_cache(
            backbone, images, "place", tmp_path, lambda *done: calls.append(done)
        )

    maps = build()
    assert calls == [(5, 5)]
    assert maps.dtype == torch.bfloat16
    with torch.no_grad():
        expected = backbone.stem(images.float())
    assert (maps.float() - expected).abs().max() < 0.005 * expected.abs().max()
    assert_close(build(), maps)
    assert len(calls) == 1
    # Other weights make another file; nothing is left half-written.
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    assert not torch.equal(build(), maps)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".npy", ".npy"]


def test_windows_of_the_map_are_what_their_cameras_say() -> None:
    # A map that says where it is: column and row of each cell.
    y, x = torch.meshgrid(torch.arange(11.0), torch.arange(13.0), indexing="ij")
    maps = torch.stack([x, y]).expand(200, 2, 11, 13)
    seen = window()
    generator = torch.Generator().manual_seed(0)
    cells, cameras = random_cells(maps, CAMERA, seen, generator)
    corner = (CAMERA.principal_point - cameras.principal_point) / STRIDE
    assert_close(cells[:, :, 0, 0].double(), corner)
    assert cells.shape[2:] == (seen.height // STRIDE, seen.width // STRIDE)
    assert_close(cells[:, 0, 0, -1] - cells[:, 0, 0, 0], torch.full((200,), cells.shape[3] - 1.0))
    # All places are drawn, the central one among them.
    central = central_cells(maps, cells_corner(CAMERA, seen), seen)[0, :, 0, 0]
    drawn = {tuple(c) for c in cells[:, :, 0, 0].tolist()}
    assert tuple(central.tolist()) in drawn
    assert len(drawn) == (13 - cells.shape[3] + 1) * (11 - cells.shape[2] + 1)


def test_features_are_trained_on_and_answered_with(
    tiny_scene: Scene, features: TrainConfig, tmp_path: Path
) -> None:
    train(tiny_scene, tmp_path / "run", features)
    run = load_run(tmp_path / "run")
    localizer = Regressor(run)
    photo = tiny_scene.path(0)
    assert localizer.localize(photo, tiny_scene.camera(0)).pose.position.isfinite().all()
    # The stem stood still, and the rest learned.
    start = build_backbone(features.backbone).stem_state().keys()
    first, second = (
        load_run(train(tiny_scene, tmp_path / name, replace(features, epochs=n)).folder).model()
        for name, n in (("short", 1), ("long", 3))
    )
    for key, value in first.backbone.state_dict().items():
        assert torch.equal(value, second.backbone.state_dict()[key]) == (key in start), key


def test_a_photo_and_its_features_give_the_same_answer(
    tiny_scene: Scene, features: TrainConfig, tmp_path: Path
) -> None:
    run = train(tiny_scene, tmp_path / "run", features)
    model = run.model()
    images = torch.randint(0, 256, (3, 3, run.camera.height, run.camera.width), dtype=torch.uint8)
    maps = build_feature_cache(model.backbone, images, "some", tmp_path)
    pixels = predict(model, images, run.camera, run.window, "stem")
    cached = predict(model, maps, run.camera, run.window, "stem")
    spread = float(run.model().position_scale)
    assert (pixels.position - cached.position).norm(dim=-1).max() < 0.05 * spread


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"freeze": "none"}, "needs --freeze stem or all"),
        ({"freeze": "all"}, "with --freeze all needs --view.augment virtual"),
        (
            {"view": ViewConfig(augment="virtual", jitter=0.0)},
            "with --freeze stem needs --view.augment crop",
        ),
        ({"view": ViewConfig(augment="crop", jitter=0.1)}, "--view.jitter 0"),
    ],
)
def test_what_features_cannot_do_is_refused(change: dict, reason: str) -> None:
    with pytest.raises(InputError, match=f"--cache features: .*{reason}"):
        replace(PRESETS["frozen_stem"], **change)


@pytest.fixture
def frozen(tiny_config: TrainConfig) -> TrainConfig:
    view = ViewConfig(input_px=64, margin=1.5, turn_deg=10.0, jitter=0.0, kept=3)
    return replace(tiny_config, view=view, freeze="all", cache="features", epochs=2)


def test_kept_views_are_those_that_their_turns_say(tmp_path: Path) -> None:
    backbone = build_backbone(BackboneConfig(name="googlenet", weights="none")).eval()
    images = torch.randint(0, 256, (3, 3, 84, 100), dtype=torch.uint8)
    view = ViewConfig(input_px=64, jitter=0.0, kept=4)
    seen = input_camera(CAMERA, view)

    def pool(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(maps, (2, 2))

    maps, turns = build_view_cache(backbone, pool, images, (CAMERA, seen), view, "x", tmp_path)
    assert maps.shape == (3, 4, backbone.channels, 2, 2)
    assert turns.shape == (3, 4, 3)
    assert (turns[:, 0] == 0).all()
    assert len(turns[:, 1:].flatten(0, 1).unique(dim=0)) == 9
    with torch.no_grad():
        for k in range(4):
            turned = turned_view(images, turns[:, k], CAMERA, seen)
            expected = pool(backbone(turned))
            assert (maps[:, k].float() - expected).abs().max() < 0.01 * expected.abs().max()
        central = pool(backbone(central_view(images, seen)))
    assert (maps[:, 0].float() - central).abs().max() < 0.01 * central.abs().max()
    again, same = build_view_cache(backbone, pool, images, (CAMERA, seen), view, "x", tmp_path)
    assert torch.equal(again, maps)
    assert torch.equal(same, turns)


def test_labels_of_kept_views_turn_with_them(tiny_scene: Scene, frozen: TrainConfig) -> None:
    fabric, _, _, data = prepare(tiny_scene, frozen, lambda *_: None)
    assert data.turns is not None
    index = data.train[:5].repeat(20)
    batch, target = data.batch(index, torch.Generator().manual_seed(0), fabric.device)
    truth = data.poses[index].to(torch.float32)
    for i, row in enumerate(data.row[index].tolist()):
        kept = [k for k in range(3) if torch.equal(batch[i], data.images[row, k].float())]
        expected = turned_poses(truth[i], data.turns[row, kept[0]])
        assert_close(target.pose.quaternion[i], expected.quaternion)


def test_frozen_whole_a_photo_and_its_features_give_the_same_answer(
    tiny_scene: Scene, frozen: TrainConfig, tmp_path: Path
) -> None:
    run = train(tiny_scene, tmp_path / "run", frozen)
    start = build_backbone(frozen.backbone).state_dict().keys()
    assert run.model().backbone.state_dict().keys() == start
    answer = Regressor(run).localize(tiny_scene.path(0), tiny_scene.camera(0))
    _, model, _, data = prepare(tiny_scene, frozen, lambda *_: None)
    model.load_state_dict(run.model().state_dict())
    row = data.row[int(tiny_scene.indices("train")[0])]
    assert tiny_scene.indices("train")[0] == 0
    said = predict(model, data.images[row][None], data.camera, data.window, "all")
    cached = run.in_world(said)
    assert (answer.pose.position - cached.position[0]).norm() < 0.02 * model.position_scale

"""Images of mixed sizes and cameras in one scene."""

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from relocal.camera import Camera
from relocal.evaluation import evaluate
from relocal.images import load_view
from relocal.scene import Scene, load_scene, save_scene
from relocal.training import TrainConfig, load_run, train

LEFT, WIDTH = 30, 96  # the portrait part of a photo of 160 x 120 pixels
WHOLE = Camera.pinhole(160, 120, 144.0, 144.0, 80.0, 60.0)


def mixed(scene: Scene, folder: Path) -> Scene:
    """The tiny room: of each three photos one whole, one its portrait part, one at double size."""
    cameras = (WHOLE, WHOLE.cropped(LEFT, 0, WIDTH, 120), WHOLE.resized(320, 240))
    kinds = torch.arange(len(scene)) % 3
    for i, name in enumerate(scene.images):
        target = (folder / name).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(scene.path(i)) as photo:
            part = photo.crop((LEFT, 0, LEFT + WIDTH, 120)) if kinds[i] == 1 else photo
            part = part.resize((320, 240), Image.Resampling.BICUBIC) if kinds[i] == 2 else part
            part.save(target)
    names = {name: str(Path(name).with_suffix(".png")) for name in scene.images}
    return replace(
        scene,
        image_root=folder,
        images=tuple(names.values()),
        cameras=cameras,
        camera_index=kinds,
        splits={split: tuple(names[n] for n in part) for split, part in scene.splits.items()},
        points=None,
    )


def test_every_camera_shows_the_same_place(tiny_scene: Scene, tmp_path: Path) -> None:
    scene = save_scene(mixed(tiny_scene, tmp_path / "photos"), tmp_path / "scene")
    target = Camera.pinhole(80, 60, 72.0, 72.0, 40.0, 30.0)
    shown = slice(LEFT // 2 + 2, (LEFT + WIDTH) // 2 - 2)  # what also the portrait part has
    for i in range(9):
        seen = load_view(scene.path(i), scene.camera(i), target)
        with Image.open(tiny_scene.path(i)) as photo:
            photo.save(tmp_path / "whole.png")  # JPEG would be decoded at another scale
        whole = load_view(tmp_path / "whole.png", WHOLE, target)
        difference = (seen.int() - whole.int()).abs()[:, :, shown].float()
        assert difference.mean() < 2, i
        # A pixel of shift would show.
        assert (seen.int() - whole.roll(1, 2).int()).abs()[:, :, shown].float().mean() > 3


def test_mixed_cameras_train_and_evaluate(
    tiny_scene: Scene, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    save_scene(mixed(tiny_scene, tmp_path / "photos"), tmp_path / "scene")
    scene = load_scene(tmp_path / "scene")
    assert {(c.width, c.height) for c in scene.cameras} == {(160, 120), (96, 120), (320, 240)}
    loss = replace(tiny_config.loss, depth=2.0)
    train(scene, tmp_path / "run", replace(tiny_config, loss=loss, epochs=1))
    # The commonest camera of the training photos is the one that all are resampled to.
    run = load_run(tmp_path / "run")
    assert run.photo_camera.to_json() == scene.camera(0).to_json()
    report = evaluate(tmp_path / "run", scene)
    assert report.summary()["run"]["failures"] == 0


def test_the_usual_camera_is_that_of_most_images_wherever_they_stand(tiny_scene: Scene) -> None:
    kinds = torch.full((len(tiny_scene),), 1)
    kinds[:3] = torch.tensor([0, 0, 2])
    scene = replace(tiny_scene, cameras=(WHOLE, WHOLE.resized(320, 240), WHOLE), camera_index=kinds)
    assert scene.usual_camera(torch.arange(len(scene))).width == 320
    assert scene.usual_camera(torch.arange(3)).width == 160

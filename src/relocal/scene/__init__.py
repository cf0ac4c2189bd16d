"""Scene: images, cameras, poses, points, splits, unit, provenance; load, save."""

from relocal.scene.files import load_scene, save_scene
from relocal.scene.scene import Points, Scene
from relocal.scene.splits import apply_split, block_split

__all__ = ["Points", "Scene", "apply_split", "block_split", "load_scene", "save_scene"]

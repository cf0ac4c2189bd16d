"""Scene: images, cameras, poses, points, splits, unit, provenance; load, save."""

from relocal.scene.account import Account
from relocal.scene.files import load_scene, save_scene
from relocal.scene.inventory import check
from relocal.scene.scene import Points, Scene
from relocal.scene.splits import apply_split, block_split

__all__ = [
    "Account",
    "Points",
    "Scene",
    "apply_split",
    "block_split",
    "check",
    "load_scene",
    "save_scene",
]

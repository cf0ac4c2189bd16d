"""What a saved scene's source listed."""

from pathlib import Path

from relocal.scene.account import Account
from relocal.scene.files import load_scene
from relocal.scene.scene import Scene


def check(scene: Scene | Path | str) -> Account | None:
    """What became of everything that a scene's source listed; ``relocal check`` prints it.

    Args:
        scene: A scene, or its folder, which is opened whole.

    Returns:
        The account; None of a scene that was made before accounts were kept.

    Raises:
        InputError: If the folder is no scene or a part of it is missing or damaged.
    """
    return (scene if isinstance(scene, Scene) else load_scene(scene)).account

"""Doubts: what can hardly be true of a scene's cameras and poses; nothing is refused for them."""

import torch

from relocal.camera import camera_doubts
from relocal.notices import Notice
from relocal.scene.scene import Scene, some

IDENTICAL = 0.1
"""Share of the poses. A person who holds a camera never gives the same numbers twice."""
_LEAST_IDENTICAL = 2


def scene_doubts(scene: Scene) -> tuple[Notice, ...]:
    """What can hardly be true of a scene: cameras that no lens has, poses that do not change.

    Cameras with the same fault are told of together.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    used = set(scene.camera_index.tolist())
    for i, camera in enumerate(scene.cameras):
        for code, text in camera_doubts(camera) if i in used else ():
            found.setdefault(code, []).append((i, text))
    notices = [_of_cameras(scene, code, faults) for code, faults in found.items()]
    still = _standing(scene)
    return (*notices, *([] if still is None else [still]))


def _of_cameras(scene: Scene, code: str, faults: list[tuple[int, str]]) -> Notice:
    used = torch.bincount(scene.camera_index, minlength=len(scene.cameras))
    count = int(sum(used[i] for i, _ in faults))
    whose = f"the camera of {count} of {len(scene)} images"
    if len(faults) > 1:
        whose = f"{len(faults)} cameras of {count} of {len(scene)} images"
    example = "" if len(faults) == 1 else "one: "
    return Notice(code, f"{whose}: {example}{faults[0][1]}")


def _standing(scene: Scene) -> Notice | None:
    """Poses that are the same number for number as another image's."""
    rows = torch.cat([scene.poses.position, scene.poses.canonical().quaternion], dim=1)
    _, inverse, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    repeated = (counts[inverse] > 1).nonzero()[:, 0].tolist()
    if len(repeated) < max(_LEAST_IDENTICAL, IDENTICAL * len(scene)):
        return None
    names = some([scene.images[i] for i in repeated], 3)
    text = (
        f"{len(repeated)} of {len(scene)} images have the very pose of another ({names}). That is "
        "right where a robot waits; else the poses were lost there, or repeated for want of others."
    )
    return Notice("poses-identical", text)

"""Small recordings with the troubles that users of this field report, each in its usual layout.

    python tests/strange_recordings.py NAME OUT [SCENE]

writes one, so that any reader of docs/reliability.md can try what it says. Those of ``OF_A_SCENE``
are made of the photos of a SCENE, such as the rendered room.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from relocal.pose import Pose
from relocal.scene import Scene, load_scene

UTM = (389212.4, 5819731.8, 54.1)
SIZE, FOCAL_PX = (64, 48), 58.0
CAMERA = "1 PINHOLE 64 48 58 58 32 24"


def walk(count: int = 40) -> list[np.ndarray]:
    """``world_from_cam`` of a camera that goes along x, sways, and turns about y."""
    matrices: list[np.ndarray] = []
    for k in range(count):
        angle = 0.5 * np.cos(2 * np.pi * k / count)
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [np.cos(angle), 0, np.sin(angle)],
            [0, 1, 0],
            [-np.sin(angle), 0, np.cos(angle)],
        ]
        matrix[:3, 3] = [0.1 * k, 0.03 * np.sin(k), 0.2 * np.cos(k / 4)]
        matrices.append(matrix)
    return matrices


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """w, x, y, z of a turn about y, which all of these are."""
    half = np.arctan2(matrix[0, 2], matrix[0, 0]) / 2
    return np.array([np.cos(half), 0.0, np.sin(half), 0.0])


def photo(file: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """A photo of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, quality=50)


def words(values: object) -> str:
    """Numbers in all their digits."""
    return " ".join(repr(float(value)) for value in np.ravel(np.asarray(values)))


def colmap_model(
    folder: Path,
    names: list[str],
    matrices: list[np.ndarray],
    camera: str = CAMERA,
    shift: tuple[float, float, float] = (0, 0, 0),
) -> None:
    """A text model without map points; ``shift`` is added to every camera centre."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(camera + "\n")
    (folder / "points3D.txt").write_text("")
    rows: list[str] = []
    for number, (name, matrix) in enumerate(zip(names, matrices, strict=True), start=1):
        turn = matrix[:3, :3].T
        moved = -turn @ (matrix[:3, 3] + np.array(shift))
        rows.append(f"{number} {words(quaternion(turn))} {words(moved)} 1 {name}\n\n")
    (folder / "images.txt").write_text("".join(rows))


def colmap(out: Path, names: list[str], shift: tuple[float, float, float] = (0, 0, 0)) -> None:
    """A project: photos and one model."""
    for k, name in enumerate(names):
        photo(out / "images" / name, k)
    colmap_model(out / "sparse/0", names, walk(len(names)), shift=shift)


def colmap_utm(out: Path) -> None:
    """A model in UTM coordinates."""
    colmap(out, [f"{k:03d}.jpg" for k in range(40)], UTM)


def colmap_unpadded(out: Path) -> None:
    """Photos 1.jpg to 120.jpg."""
    colmap(out, [f"{k + 1}.jpg" for k in range(120)])


def colmap_two_models(out: Path) -> None:
    """A mapper's two models: the first has 3 photos, the second the other 37."""
    names, matrices = [f"{k:03d}.jpg" for k in range(40)], walk()
    colmap(out, names)
    colmap_model(out / "sparse/0", names[:3], matrices[:3])
    colmap_model(out / "sparse/1", names[3:], matrices[3:])


def cambridge_rows(
    out: Path, names: list[str], matrices: list[np.ndarray] | None = None
) -> list[str]:
    """Photos, and their rows as the lists of Cambridge Landmarks have them."""
    rows: list[str] = []
    for k, (name, matrix) in enumerate(zip(names, matrices or walk(len(names)), strict=True)):
        photo(out / name, k)
        rows.append(f"{name} {words(matrix[:3, 3])} {words(quaternion(matrix[:3, :3].T))}")
    return rows


CAMBRIDGE_HEAD = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"


def cambridge(out: Path, names: list[str], head: str = CAMBRIDGE_HEAD, test: int = 10) -> None:
    """Both lists below a head; the last images are for tests."""
    rows = cambridge_rows(out, names)
    for split, part in (("train", rows[:-test]), ("test", rows[-test:])):
        (out / f"dataset_{split}.txt").write_text(head + "\n".join(part) + "\n")


def cambridge_no_header(out: Path) -> None:
    """Lists that begin at once with images."""
    cambridge(out, [f"seq1/frame{k + 1:05d}.jpg" for k in range(40)], head="")


def cambridge_unpadded(out: Path) -> None:
    """Frames 1 to 120, and a head of one line."""
    names = [f"seq1/frame{k + 1}.jpg" for k in range(120)]
    cambridge(out, names, head="ImageFile, Camera Position [X Y Z W P Q R]\n", test=12)


def frames_7scenes(out: Path, lost: dict[int, str], count: int = 20) -> None:
    """A sequence of 7-Scenes, some of whose pose files hold another text."""
    for k, matrix in enumerate(walk(count)):
        photo(out / f"seq-01/frame-{k:06d}.color.jpg", k)
        text = "\n".join(words(row) for row in matrix) + "\n"
        (out / f"seq-01/frame-{k:06d}.pose.txt").write_text(lost.get(k, text))


def lost_infinite(out: Path) -> None:
    """ScanNet's word for a frame without a pose."""
    frames_7scenes(out, {5: "-inf -inf -inf -inf\n" * 4})


def lost_indefinite(out: Path) -> None:
    """12-Scenes' word for it."""
    frames_7scenes(out, {6: "-1.#IND -1.#IND -1.#IND -1.#IND\n" * 4})


def lost_zeros(out: Path) -> None:
    """A matrix of zeros."""
    frames_7scenes(out, {7: "0 0 0 0\n" * 4})


def opengl(matrix: np.ndarray) -> list[list[float]]:
    """The same pose with OpenGL's camera axes, as nerfstudio has it."""
    return (matrix * np.array([1.0, -1.0, -1.0, 1.0])).tolist()


def transforms(names: list[str], matrices: list[np.ndarray]) -> dict[str, object]:
    """What a transforms.json holds."""
    frames = [
        {"file_path": name, "transform_matrix": opengl(matrix)}
        for name, matrix in zip(names, matrices, strict=True)
    ]
    lens = {"fl_x": FOCAL_PX, "fl_y": FOCAL_PX, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    return {**lens, "frames": frames}


def nerfstudio_val_only(out: Path) -> None:
    """A file that holds out its last ten photos as ``val_filenames`` and names no test photos."""
    names = [f"images/{k:03d}.jpg" for k in range(40)]
    for k, name in enumerate(names):
        photo(out / name, k)
    content = transforms(names, walk())
    content |= {"train_filenames": names[:30], "val_filenames": names[30:]}
    (out / "transforms.json").write_text(json.dumps(content))


def blender_train_val(out: Path) -> None:
    """Blender's files for training and validation, without the one for tests."""
    names = [f"./images/r_{k}" for k in range(40)]
    for k, name in enumerate(names):
        photo(out / f"{name}.png", k)
    matrices = walk()
    angle = 2 * np.arctan(SIZE[0] / 2 / FOCAL_PX)
    for split, rows in (("train", range(30)), ("val", range(30, 40))):
        frames = [{"file_path": names[k], "transform_matrix": opengl(matrices[k])} for k in rows]
        text = json.dumps({"camera_angle_x": angle, "frames": frames})
        (out / f"transforms_{split}.json").write_text(text)


def tum(out: Path, rows: list[str], camera: str = CAMERA) -> None:
    """Photos with time stamps, and the rows of a trajectory."""
    for k in range(len(rows)):
        photo(out / f"rgb/{k}.png", k)
    (out / "cameras.txt").write_text(camera + "\n")
    (out / "rgb.txt").write_text("".join(f"{k}.0 rgb/{k}.png\n" for k in range(len(rows))))
    (out / "groundtruth.txt").write_text("\n".join(rows) + "\n")


def tum_rows(
    matrices: list[np.ndarray], shift: tuple[float, float, float] = (0, 0, 0)
) -> list[str]:
    """Rows of a trajectory, a second apart; ``shift`` is added to every camera centre."""
    return [
        f"{k}.0 {words(m[:3, 3] + np.array(shift))} {words(np.roll(quaternion(m[:3, :3]), -1))}"
        for k, m in enumerate(matrices)
    ]


def tum_lost(out: Path) -> None:
    """A trajectory in which three frames lost track, each said in another way."""
    rows = tum_rows(walk())
    rows[4] = "4.0 nan nan nan nan nan nan nan"
    rows[9] = "9.0 0 0 0 0 0 0 0"
    rows[20] = "20.0 inf inf inf 0 0 0 1"
    tum(out, rows)


RECORDINGS: dict[str, Callable[[Path], None]] = {
    "blender-train-val": blender_train_val,
    "cambridge-no-header": cambridge_no_header,
    "cambridge-unpadded": cambridge_unpadded,
    "colmap-two-models": colmap_two_models,
    "colmap-unpadded": colmap_unpadded,
    "colmap-utm": colmap_utm,
    "lost-indefinite": lost_indefinite,
    "lost-infinite": lost_infinite,
    "lost-zeros": lost_zeros,
    "nerfstudio-val-only": nerfstudio_val_only,
    "tum-lost": tum_lost,
}
"""By name; what each holds stands in its function."""


def scene_matrices(scene: Scene, rows: list[int]) -> np.ndarray:
    """``world_from_cam`` of some images, (n, 4, 4)."""
    return scene.poses[torch.tensor(rows)].matrix().numpy()


def first_recording(scene: Scene, every: int) -> list[int]:
    """Each so many-th image of the first sequence."""
    rows = [i for i in range(len(scene)) if scene.sequence(i) == scene.sequence(0)]
    return rows[::every]


def scene_in_utm(out: Path, scene: Scene) -> None:
    """The whole scene as a COLMAP text model in UTM coordinates."""
    (out / "sparse/0").mkdir(parents=True)
    camera = scene.cameras[0]
    lens = f"{camera.model} {camera.width} {camera.height} {words(camera.params)}"
    (out / "sparse/0/cameras.txt").write_text(f"1 {lens}\n")
    (out / "sparse/0/points3D.txt").write_text("")
    away = Pose(scene.poses.position + torch.tensor(UTM).double(), scene.poses.quaternion)
    inverse, rows = away.inverse(), list[str]()
    for i, name in enumerate(scene.images):
        (out / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene.path(i), out / "images" / name)
        numbers = f"{words(inverse.quaternion[i])} {words(inverse.position[i])}"
        rows.append(f"{i + 1} {numbers} 1 {name}\n\n")
    (out / "sparse/0/images.txt").write_text("".join(rows))


def mirrored(out: Path, scene: Scene) -> None:
    """A TUM recording whose poses are those of a mirrored world, as ICL-NUIM's are."""
    rows = first_recording(scene, 10)
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    poses = Pose.from_matrix(torch.from_numpy(mirror @ scene_matrices(scene, rows) @ mirror))
    for k, i in enumerate(rows):
        (out / "rgb").mkdir(parents=True, exist_ok=True)
        shutil.copy(scene.path(i), out / f"rgb/{k}{scene.path(i).suffix}")
    camera = scene.cameras[0]
    lens = f"{camera.model} {camera.width} {camera.height} {words(camera.params)}"
    (out / "cameras.txt").write_text(f"1 {lens}\n")
    suffix = scene.path(0).suffix
    (out / "rgb.txt").write_text("".join(f"{k} rgb/{k}{suffix}\n" for k in range(len(rows))))
    turned = poses.quaternion[:, [1, 2, 3, 0]]
    lines = [
        f"{k} {words(x)} {words(q)}"
        for k, (x, q) in enumerate(zip(poses.position, turned, strict=True))
    ]
    (out / "groundtruth.txt").write_text("\n".join(lines) + "\n")


def opencv_axes(out: Path, scene: Scene) -> None:
    """A transforms.json whose poses have OpenCV's camera axes where OpenGL's are expected."""
    rows = first_recording(scene, 10)
    matrices = scene_matrices(scene, rows)
    frames: list[dict[str, object]] = []
    for i, matrix in zip(rows, matrices, strict=True):
        name = f"images/{Path(scene.images[i]).name}"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene.path(i), out / name)
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    camera = scene.cameras[0]
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.principal_point.tolist()
    lens = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width, "h": camera.height}
    (out / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))


def exif_64mm(out: Path, scene: Scene) -> None:
    """A photo of the scene whose EXIF says a focal length of 64 mm; in the room 31 is true."""
    exif_photo(out, scene, 64)


def exif_photo(out: Path, scene: Scene, focal_mm: int, index: int = 0) -> None:
    """A photo of the scene with a focal length in EXIF, as a 35 mm equivalent."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(scene.path(index)) as image:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = focal_mm
        image.convert("RGB").save(out, "JPEG", exif=exif, quality=95)


def squeezed_video(out: Path, scene: Scene) -> None:
    """A video, 3:4 of the photos' width, whose header says the width that it is shown at."""
    import cv2

    camera = scene.cameras[0]
    stored, shown = (camera.width * 3 // 4, camera.height), (camera.width, camera.height)
    video = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), 10, stored)
    for i in first_recording(scene, 2)[:75]:
        with Image.open(scene.path(i)) as image:
            frame = np.asarray(image.convert("RGB").resize(stored, Image.Resampling.BOX))
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    video.release()
    data = bytearray(out.read_bytes())
    header = data.index(b"tkhd") + 4  # of the track: version, times, ..., a matrix, the size
    at = header + (84 if data[header] == 0 else 96) - 8
    data[at : at + 8] = b"".join((side << 16).to_bytes(4, "big") for side in shown)
    out.write_bytes(data)


OF_A_SCENE: dict[str, Callable[[Path, Scene], None]] = {
    "exif-64mm": exif_64mm,
    "mirrored": mirrored,
    "opencv-axes": opencv_axes,
    "scene-in-utm": scene_in_utm,
    "squeezed-video.mp4": squeezed_video,
}
"""Those that need photos of a real or rendered place."""


def main(arguments: list[str]) -> None:
    """Writes one."""
    match arguments:
        case [name, out] if name in RECORDINGS:
            RECORDINGS[name](Path(out))
        case [name, out, scene] if name in OF_A_SCENE:
            OF_A_SCENE[name](Path(out), load_scene(scene))
        case _:
            sys.exit(
                f"usage: NAME OUT, NAME one of {', '.join(RECORDINGS)}; or NAME OUT SCENE, NAME "
                f"one of {', '.join(OF_A_SCENE)}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])

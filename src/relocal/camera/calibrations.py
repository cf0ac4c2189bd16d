"""Calibrations as other tools write them: ROS, OpenCV, Kalibr, nerfstudio, and our own JSON.

Each is a nest of mappings, lists and numbers, which JSON and YAML both hold.
"""

from collections.abc import Callable, Mapping
from typing import Any

from relocal.camera.camera import Camera
from relocal.camera.fields import fold, mapping, number, numbers, renamed, size
from relocal.camera.models import CAMERA_MODELS, no_model
from relocal.camera.nerfstudio import nerfstudio_camera
from relocal.camera.opencv import Kind, opencv_model
from relocal.errors import InputError

_LENSES: dict[str, Kind] = {
    "plumb_bob": "perspective",
    "rational_polynomial": "perspective",
    "radtan": "perspective",
    "radial-tangential": "perspective",
    "none": "perspective",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
}
"""What ROS, Kalibr and EuRoC call their lenses."""


_COEFFICIENTS = "distortion_coefficients"
_DISTORTION = (
    "distortion_coefficients|distortion_coeffs|distortion_coefs|distortion_coeff|distortion_coef|"
    "distortion_coefficient|distortion|distortion_vector|distortion_params|distortion_parameters|"
    "dist_coeffs|dist_coefs|dist_coeff|dist_coef|dist_coefficients|dist_vector|dist|dist_params|D|"
    "camera_distortion|lens_distortion|cam_dist"
)
_LENS = "distortion_model|distortion_type|dist_model"
_MATRIX_NAMES = {
    "image_width": "image_width|width|w",
    "image_height": "image_height|height|h",
    "camera_matrix": "camera_matrix|K|mtx|intrinsic_matrix|cam_mtx",
    "distortion": _DISTORTION,
    "distortion_model": _LENS,
}
_KALIBR_NAMES = {
    "camera_model": "camera_model",
    "intrinsics": "intrinsics",
    "resolution": "resolution",
    "distortion": _DISTORTION,
    "distortion_model": _LENS,
}
"""What values are called, by case and underscores as they come."""
_OTHER_KEYS = {"header", "roi", "binningx", "binningy", "cameraname", "r", "p"} | {
    *("rectificationmatrix", "projectionmatrix", "rostopic", "camoverlaps", "tcnimu", "tbs")
}


def camera_of_content(content: Any, where: str, which: str | None = None) -> Camera:
    """The camera that a calibration describes.

    Args:
        content: What was read.
        where: The file or option, for messages.
        which: The camera's name where there are several, such as ``cam1``.

    Raises:
        InputError: If it describes none, several, or one that is not supported.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: has no named values, so no camera.")
    content = _one_of(dict(content), where, which)
    there = {fold(key) for key in content}
    for keys, read in _FORMATS:
        if all(any(fold(key) in there for key in names.split("|")) for names in keys):
            try:
                return read(content, where).checked(where)
            except InputError as error:
                raise InputError(
                    f"{where}: {str(error).removeprefix(where).lstrip(': ')}"
                ) from error
    raise InputError(
        f"{where}: is no camera that is known: neither ROS's or OpenCV's (image_width, "
        "camera_matrix), nor Kalibr's (resolution, intrinsics), nor nerfstudio's (w, h, fl_x), nor "
        "model, width, height, params."
    )


def _one_of(content: dict[str, Any], where: str, which: str | None) -> dict[str, Any]:
    """The mapping of one camera of a Kalibr chain (cam0, cam1, ...); else the content itself."""
    chain = {
        k: v for k, v in content.items() if str(k).startswith("cam") and "intrinsics" in mapping(v)
    }
    if which is None and len(chain) > 1:
        names = ", ".join(map(str, chain))
        raise InputError(
            f"{where}: has {len(chain)} cameras; say which with {where}:NAME ({names})."
        )
    if which is not None and which not in chain:
        known = f"it has {', '.join(map(str, chain))}" if chain else "it has one camera, unnamed"
        raise InputError(f"{where}: has no camera {which!r}; {known}.")
    return dict(chain[which] if which else next(iter(chain.values()))) if chain else content


def _own(content: dict[str, Any], where: str) -> Camera:
    _refuse_distortion(content, "params hold the distortion, too", where)
    model = str(content["model"]).upper()
    params = numbers(content, "params", where)
    if model not in CAMERA_MODELS:
        raise no_model(where, model, len(params))
    return Camera(model, *size(content, ("width", "height"), where), params)


def _nerfstudio(content: dict[str, Any], where: str) -> Camera:
    _refuse_distortion(content, "the distortion is read from k1, k2, p1, p2, ...", where)
    return nerfstudio_camera(content, where)


def _refuse_distortion(content: dict[str, Any], why: str, where: str) -> None:
    """Refuses a distortion that would be left out, where a format has other words for it."""
    names = {fold(name) for name in _DISTORTION.split("|")}
    for key in content:
        if fold(key) in names and any(numbers(content, key, where)):
            raise InputError(f"{where}: {key} is not read here; {why}.")


def _matrix(content: dict[str, Any], where: str) -> Camera:
    """ROS's camera_info, as a message or a file of its calibrator, and OpenCV's FileStorage."""
    known = renamed(content, _MATRIX_NAMES, where)
    width, height = size(known, ("image_width", "image_height"), where)
    k = numbers(known, "camera_matrix", where)
    if len(k) != 9:
        raise InputError(f"{where}: its camera matrix has {len(k)} numbers, not 9.")
    if not any(k):
        raise InputError(
            f"{where}: is not calibrated, its camera matrix is all zeros; calibrate the camera."
        )
    lens = str(known.get("distortion_model") or "none")
    if content.get("fisheye_model") or content.get("fisheye"):
        lens = "fisheye"
    kind = _kind(lens, where)
    d = _distortion(content, known, _MATRIX_NAMES, where)
    if lens == "plumb_bob" and len(d) not in (0, 4, 5):
        raise InputError(f"{where}: plumb_bob has 5 coefficients, not {len(d)}.")
    model, params = opencv_model([k[:3], k[3:6], k[6:]], d, kind)
    return _window(Camera(model, width, height, params), content, where)


def _distortion(
    content: dict[str, Any], known: dict[str, Any], names: dict[str, str], where: str
) -> list[float]:
    """The coefficients; a camera is only without distortion where its file says so."""
    if "distortion" in known:
        return numbers({"distortion_coefficients": known["distortion"]}, _COEFFICIENTS, where)
    if str(known.get("distortion_model", "")).lower() == "none":
        return []
    read = {fold(name) for others in names.values() for name in others.split("|")}
    unread = [str(key)[:40] for key in content if fold(key) not in read | _OTHER_KEYS]
    aside = f" (not read: {', '.join(unread[:8])})" if unread else ""
    raise InputError(
        f"{where}: has no distortion under a name that is known, such as "
        f"{_COEFFICIENTS}{aside}; if the camera has none, say so by zeros: "
        f"{_COEFFICIENTS}: [0, 0, 0, 0]."
    )


def _window(camera: Camera, content: dict[str, Any], where: str) -> Camera:
    """The camera of what a driver sends: a region of interest, its pixels put together."""
    roi = mapping(content.get("roi"))
    names = ("x_offset", "y_offset", "width", "height")
    left, top, width, height = (int(number(roi, name, where, 0)) for name in names)
    if width and height and (width, height) != (camera.width, camera.height):
        camera = camera.cropped(left, top, width, height)
    binning = [int(number(content, f"binning_{axis}", where, 0)) or 1 for axis in "xy"]
    if min(binning) < 1:
        raise InputError(f"{where}: binning must be positive.")
    if max(binning) > 1:
        camera = camera.resized(camera.width // binning[0], camera.height // binning[1])
    return camera


def _kalibr(content: dict[str, Any], where: str) -> Camera:
    """A camera of Kalibr's chain, or EuRoC's sensor.yaml."""
    known = renamed(content, _KALIBR_NAMES, where)
    model, values = known.get("camera_model", "pinhole"), numbers(known, "intrinsics", where)
    sides = numbers(known, "resolution", where)
    lens = str(known.get("distortion_model") or "none")
    d = [] if model == "eucm" else _distortion(content, known, _KALIBR_NAMES, where)
    wanted = {"pinhole": 4, "eucm": 6}.get(str(model))
    if wanted is None or (model == "eucm" and lens != "none") or (lens, len(d)) == ("fov", 0):
        raise InputError(f"{where}: the camera model {model}-{lens} is not supported.")
    if len(values) != wanted or len(sides) != 2:
        raise InputError(f"{where}: needs {wanted} intrinsics and a resolution of two numbers.")
    width, height = sides
    fx, fy, cx, cy = values[-4:]
    if model == "eucm":
        return Camera("EUCM", width, height, [fx, fy, cx + 0.5, cy + 0.5, *values[:2]])
    if lens == "fov":
        return Camera("FOV", width, height, [fx, fy, cx + 0.5, cy + 0.5, *d])
    matrix = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    found, params = opencv_model(matrix, d, _kind(lens, where))
    return Camera(found, width, height, params)


def _kind(lens: str, where: str) -> Kind:
    if lens not in _LENSES:
        raise InputError(
            f"{where}: the lens {lens!r} is not supported; known are {', '.join(_LENSES)}."
        )
    return _LENSES[lens]


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any], str], Camera]], ...] = (
    (("model", "params"), _own),
    ((_MATRIX_NAMES["camera_matrix"],), _matrix),
    (("intrinsics", "resolution"), _kalibr),
    (("w", "h"), _nerfstudio),
)
"""What tells a format, and what reads it; the first that fits is taken."""

"""Camera: how a point in front of a camera becomes a pixel, in COLMAP's models.

Pixels follow COLMAP: the centre of the top-left pixel is (0.5, 0.5). (OpenCV counts the same
centre as (0, 0), so its keypoints are shifted by half a pixel.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, SupportsFloat

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relocal.camera.lens import Lens
from relocal.camera.models import CAMERA_MODELS, TWO_FOCALS, no_model
from relocal.camera.opencv import Pixels, opencv_model
from relocal.errors import InputError

_LEAST_FOCAL = 0.01  # of the longer side: wider than 178 degrees
_RATIONAL = CAMERA_MODELS["FULL_OPENCV"]

Numbers = Tensor | np.ndarray | Sequence[Any]
"""Numbers as they come: a tensor, an array, a list or a tuple."""


@dataclass(frozen=True, init=False)
class Camera:
    """A batch of cameras of one model and one image size.

    Args:
        model: COLMAP's name of the model, a key of ``CAMERA_MODELS``, in upper or lower case.
        width: Image width in pixels.
        height: Image height in pixels.
        params: Parameters in COLMAP's order, in pixels: a tensor, which is kept, or numbers, which
            become float64.

    Raises:
        InputError: If the model is not supported, the number of parameters is wrong, a parameter is
            not usable (a focal length that is not positive, a NaN), or the size is none.
    """

    model: str
    """COLMAP's name of the model, a key of ``CAMERA_MODELS``."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    params: Float[Tensor, "*batch n"]
    """Parameters in COLMAP's order, in pixels."""

    def __init__(
        self, model: str, width: SupportsFloat, height: SupportsFloat, params: Numbers
    ) -> None:
        for name, value in (
            ("model", str(model).upper()),
            ("width", _whole("width", width)),
            ("height", _whole("height", height)),
            ("params", numbers("camera parameters", params)),
        ):
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        count = self.params.shape[-1] if self.params.dim() else 0
        if self.model not in CAMERA_MODELS:
            raise no_model("camera model", self.model, count)
        names = CAMERA_MODELS[self.model]
        if count != len(names):
            raise InputError(
                f"camera model {self.model} has {len(names)} parameters ({', '.join(names)}), "
                f"not {count}."
            )
        if self.width < 1 or self.height < 1:
            raise InputError(f"a camera of {self.width} x {self.height} pixels sees nothing.")
        # On an accelerator the question would wait for all that is going on there.
        if self.params.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_values()

    def _check_values(self) -> None:
        params = self.params.detach()
        focals = 2 if "fx" in CAMERA_MODELS[self.model] else 1
        # Infinity and NaN times zero are NaN, which is no number above another.
        if params.dim() == 1:  # in plain numbers, which take a tenth of the time
            few = params.tolist()
            good = all(v * 0 == 0 for v in few) and min(few[:focals]) > 0
        else:
            good = bool(((params * 0).sum(-1) + params[..., :focals].amin(-1) > 0).all())
        if good:
            _check_lens(self.model, params)
            return
        values = ", ".join(f"{v:g}" for v in params.flatten().tolist())
        raise InputError(
            f"camera parameters must be finite and focal lengths positive, "
            f"got {self.model} {values}."
        )

    @staticmethod
    def read(
        where: str, model: str, width: SupportsFloat, height: SupportsFloat, params: Numbers
    ) -> "Camera":
        """A camera that was read from a file.

        Raises:
            InputError: If it is none, or its focal length is that of no photo; ``where`` names the
                file.
        """
        try:
            return Camera(model, width, height, params).checked(where)
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from error

    def checked(self, where: str) -> "Camera":
        """Refuses a focal length that no photo has; ``where`` names the file it came from."""
        if bool((self.focal < _LEAST_FOCAL * max(self.width, self.height)).any()):
            raise InputError(
                f"{where}: a focal length of {float(self.focal.min()):g} px is not that of a photo "
                f"of {self.width} x {self.height} pixels."
            )
        return self

    @staticmethod
    def pinhole(width: int, height: int, fx: float, fy: float, cx: float, cy: float) -> "Camera":
        """A camera without distortion."""
        params = torch.tensor([fx, fy, cx, cy], dtype=torch.float64)
        return Camera("PINHOLE", width, height, params)

    @staticmethod
    def from_matrix(
        matrix: Numbers,
        dist: Numbers | None = None,
        *,
        width: SupportsFloat,
        height: SupportsFloat,
        fisheye: bool = False,
        pixels: Pixels = "opencv",
    ) -> "Camera":
        """The camera of OpenCV's calibration.

        Args:
            matrix: The camera matrix K, (3, 3), without skew.
            dist: Distortion coefficients k1, k2, p1, p2, k3, k4, k5, k6: None, or the first 4, 5 or
                8 of them; of 12 or 14 the further ones (thin prism, tilt) must be zero. With
                ``fisheye`` the four of ``cv2.fisheye``.
            width: Image width in pixels.
            height: Image height in pixels.
            fisheye: Whether it was calibrated by ``cv2.fisheye`` (ROS: equidistant).
            pixels: How K counts pixels: the centre of the top-left pixel is (0, 0) in ``"opencv"``,
                and ROS and Kalibr, so that half a pixel is added; and (0.5, 0.5) in ``"colmap"``.

        Returns:
            A PINHOLE, OPENCV, FULL_OPENCV or OPENCV_FISHEYE camera, whichever is the smallest.

        Raises:
            InputError: If the numbers are not those of such a camera.
        """
        if pixels not in ("opencv", "colmap"):
            raise InputError(f"pixels: must be 'opencv' or 'colmap', not {pixels!r}.")
        kind = "fisheye" if fisheye else "perspective"
        k, d = numbers("camera matrix", matrix), numbers("dist", () if dist is None else dist)
        model, params = opencv_model(k.tolist(), d.flatten().tolist(), kind, pixels)
        return Camera(model, width, height, params)

    def _values(self) -> dict[str, Tensor]:
        """The parameters by name, with fx and fy also where the model has one focal length."""
        values = dict(zip(CAMERA_MODELS[self.model], self.params.unbind(-1), strict=True))
        if "f" in values:
            values["fx"] = values["fy"] = values["f"]
        return values

    @property
    def lens(self) -> Lens:
        """How rays become points of the image plane."""
        return Lens(self.model, self._values())

    @property
    def is_perspective(self) -> bool:
        """Whether it is a pinhole bent by OpenCV's polynomials: of a model in ``FULL_OPENCV``."""
        return self.lens.is_perspective

    @property
    def is_fisheye(self) -> bool:
        """Whether it is bent by the angle of a ray, as OPENCV_FISHEYE and what that includes."""
        return "FISHEYE" in self.model and self.model != "THIN_PRISM_FISHEYE"

    def named_params(self) -> dict[str, float]:
        """The parameters of one camera by name: fx, fy, cx, cy, and those of its lens."""
        values = {name: float(value) for name, value in self._values().items()}
        return {name: values[name] for name in ("fx", "fy", *values) if name != "f"}

    def opencv_params(self) -> Float[Tensor, "*batch 12"]:
        """Parameters of FULL_OPENCV (fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6).

        Raises:
            InputError: If this camera is not perspective.
        """
        if not self.is_perspective:
            raise InputError(f"a {self.model} camera has no parameters of OpenCV's pinhole model.")
        return self._named(_RATIONAL)

    def _named(self, names: Sequence[str]) -> Tensor:
        """Parameters by their names, zeros where this model has none."""
        values, zero = self._values(), torch.zeros_like(self.params[..., 0])
        return torch.stack([values.get(name, zero) for name in names], dim=-1)

    @property
    def focal(self) -> Float[Tensor, "*batch 2"]:
        """Focal lengths in x and y, in pixels."""
        return self._named(("fx", "fy"))

    @property
    def principal_point(self) -> Float[Tensor, "*batch 2"]:
        """Where the optical axis meets the image, in pixels."""
        return self._named(("cx", "cy"))

    @property
    def has_distortion(self) -> bool:
        """Whether it differs from a pinhole: a fisheye does even where its coefficients are 0."""
        return self.lens.is_distorted

    def matrix(self) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsic matrices K, without the distortion."""
        fx, fy, cx, cy = self._named(("fx", "fy", "cx", "cy")).unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = [[fx, zero, cx], [zero, fy, cy], [zero, zero, one]]
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

    def project(
        self, points: Float[Tensor, "*points 3"]
    ) -> tuple[Float[Tensor, "*pixels 2"], Bool[Tensor, "*pixels"]]:
        """Projects points of the camera frame; batch axes of camera and points broadcast.

        Returns:
            Pixels, and whether the point is in front of the camera (z > 0, so nearer the axis than
            90°) and inside the image.
        """
        z = points[..., 2:]
        in_front = z[..., 0] > 0
        rays = points[..., :2] / torch.where(in_front[..., None], z, 1.0)
        lens = self.lens
        pixels = lens.distort(rays) * self.focal + self.principal_point
        size = pixels.new_tensor([self.width, self.height])
        inside = ((pixels >= 0) & (pixels <= size)).all(-1) & lens.before_fold(rays)
        return pixels, in_front & inside

    def unproject(self, pixels: Float[Tensor, "*pixels 2"]) -> Float[Tensor, "*rays 3"]:
        """Viewing rays of pixels in the camera frame, scaled to z = 1, distortion removed.

        Batch axes of camera and pixels broadcast. NaN for pixels that the lens model does not
        reach, and for those of a fisheye lens that look 90° or more aside, since no ray at z = 1
        does.
        """
        plane = (pixels - self.principal_point) / self.focal
        lens = self.lens
        if lens.is_distorted:  # solved in float64, where polynomials of high powers need it
            plane = lens.undistort(plane.double()).to(plane.dtype)
        return torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)

    def fold_radius(self) -> Float[Tensor, "*batch"]:
        """Distance from the axis, at z = 1, where the lens model turns back; may be inf."""
        return self.lens.fold_radius()

    def resized(self, width: int, height: int) -> "Camera":
        """The camera of the same view resampled to another size."""
        sx, sy = width / self.width, height / self.height
        camera = self if "fx" in CAMERA_MODELS[self.model] or sx == sy else self._with_two_focals()
        scale = {"f": sx, "fx": sx, "fy": sy, "cx": sx, "cy": sy}
        factors = [scale.get(name, 1.0) for name in CAMERA_MODELS[camera.model]]
        params = camera.params * camera.params.new_tensor(factors)
        return replace(camera, width=width, height=height, params=params)

    def _with_two_focals(self) -> "Camera":
        model = TWO_FOCALS[self.model]
        return replace(self, model=model, params=self._named(CAMERA_MODELS[model]))

    def cropped(self, left: Tensor | int, top: Tensor | int, width: int, height: int) -> "Camera":
        """The camera of a window of the image; ``left`` and ``top`` may be one a camera, (B,)."""
        names = CAMERA_MODELS[self.model]
        left, top = (torch.as_tensor(v).to(self.params) for v in (left, top))
        batch = torch.broadcast_shapes(left.shape, top.shape)
        shift = self.params.new_zeros(*batch, len(names))
        shift[..., names.index("cx")] = left
        shift[..., names.index("cy")] = top
        return replace(self, width=width, height=height, params=self.params - shift)

    def turned(self, quarter_turns: int) -> "Camera":
        """The camera of the image turned clockwise; its x and y axes turn with the image."""
        camera = self
        for _ in range(quarter_turns % 4):
            camera = camera._turned_once()
        return camera

    def _turned_once(self) -> "Camera":
        # What was at (x, y) is at (height - y, x).
        values = dict(zip(CAMERA_MODELS[self.model], self.params.unbind(-1), strict=True))
        turned = {**values, "cx": self.height - values["cy"], "cy": values["cx"]}
        if "fx" in values:
            turned |= {"fx": values["fy"], "fy": values["fx"]}
        if "p1" in values:  # (p2, p1) is a vector of the image, and turns like one
            turned |= {"p1": values["p2"], "p2": -values["p1"]}
        if "sx1" in values:  # as is (sx1, sy1)
            turned |= {"sx1": -values["sy1"], "sy1": values["sx1"]}
        params = torch.stack([turned[name] for name in CAMERA_MODELS[self.model]], dim=-1)
        return replace(self, width=self.height, height=self.width, params=params)

    def undistorted(self) -> "Camera":
        """The pinhole camera of the same size, focal lengths and principal point."""
        params = self._named(CAMERA_MODELS["PINHOLE"])
        return Camera("PINHOLE", self.width, self.height, params)

    def centred(self) -> "Camera":
        """The pinhole camera with square pixels whose principal point is the image's centre."""
        focal = float(self.focal.prod(-1).sqrt())
        return Camera.pinhole(
            self.width, self.height, focal, focal, self.width / 2, self.height / 2
        )

    def __getitem__(self, index: Any) -> "Camera":
        """Indexes the first batch axis."""
        return replace(self, params=self.params[index])

    def to(self, *args: Any, **kwargs: Any) -> "Camera":
        """Moves the parameters like ``Tensor.to``."""
        return replace(self, params=self.params.to(*args, **kwargs))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        params = self.params.tolist()
        return {"model": self.model, "width": self.width, "height": self.height, "params": params}

    @staticmethod
    def from_json(value: dict[str, Any], where: str = "camera") -> "Camera":
        """Reads what ``to_json`` wrote; ``where`` names the file or field for messages."""
        names = ("model", "width", "height", "params")
        if lacking := [name for name in names if name not in value]:
            raise InputError(f"{where}: a camera needs {', '.join(names)}; it has no {lacking[0]}.")
        return Camera.read(where, *(value[name] for name in names))


_LENS_LIMITS: dict[str, tuple[tuple[str, Callable[[Tensor], Tensor], str], ...]] = {
    "EUCM": (
        ("alpha", lambda v: (v >= 0) & (v <= 1), "from 0 to 1"),
        ("beta", lambda v: v > 0, "positive"),
    ),
    "FOV": (("omega", lambda v: (v > 0) & (v < math.pi), "between 0 and pi"),),
}


def _check_lens(model: str, params: Tensor) -> None:
    """Refuses values by which a lens model is none."""
    for name, good, wanted in _LENS_LIMITS.get(model, ()):
        value = params[..., CAMERA_MODELS[model].index(name)]
        if not bool(good(value).all()):
            shown = ", ".join(f"{v:g}" for v in value.flatten().tolist())
            raise InputError(f"camera parameters: {model}'s {name} must be {wanted}, got {shown}.")


def _whole(name: str, value: SupportsFloat) -> int:
    """A number of pixels; 640.0 is one, 640.5 is none."""
    if isinstance(value, Real) and (number := float(value)).is_integer():
        return int(number)
    raise InputError(f"camera {name}: {value!r} is not a number of pixels.")


def numbers(what: str, values: Numbers) -> Tensor:
    """Numbers as a tensor: one of floats stays as it is, all else becomes float64.

    Raises:
        InputError: If they are no numbers.
    """
    if isinstance(values, Tensor) and values.is_floating_point():
        return values
    try:
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.array(values, dtype=np.float64))
        return values.double()
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what}: these are no numbers ({error}).") from error

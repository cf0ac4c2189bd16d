"""Camera: how a point in front of a camera becomes a pixel, in COLMAP's models.

Pixels follow COLMAP: the centre of the top-left pixel is (0.5, 0.5). (OpenCV counts the same
centre as (0, 0), so its keypoints are shifted by half a pixel.)
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relocal.errors import InputError, unknown

# Names of each model's parameters, in COLMAP's order.
CAMERA_MODELS: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
}
_FULL = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")
_LEAST_FOCAL = 0.01  # of the longer side: wider than 178 degrees
_UNDISTORT_STEPS = 20


@dataclass(frozen=True)
class Camera:
    """A batch of cameras of one model and one image size.

    Raises:
        InputError: If the model is not supported, the number of parameters is wrong, or a
            parameter is not usable (a focal length that is not positive, a NaN).
    """

    model: str
    """COLMAP's name of the model, a key of ``CAMERA_MODELS``."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    params: Float[Tensor, "*batch n"]
    """Parameters in COLMAP's order, in pixels."""

    def __post_init__(self) -> None:
        if self.model not in CAMERA_MODELS:
            raise unknown("camera model", self.model, CAMERA_MODELS)
        names = CAMERA_MODELS[self.model]
        if self.params.shape[-1] != len(names):
            raise InputError(
                f"camera model {self.model} has {len(names)} parameters ({', '.join(names)}), "
                f"not {self.params.shape[-1]}."
            )
        if self.width < 1 or self.height < 1:
            raise InputError(f"a camera of {self.width} x {self.height} pixels sees nothing.")

    def checked(self, where: str) -> "Camera":
        """Refuses parameters that no camera has; ``where`` names the file they came from."""
        if not bool(torch.isfinite(self.params).all()) or bool((self.focal <= 0).any()):
            values = ", ".join(f"{v:g}" for v in self.params.flatten().tolist())
            raise InputError(
                f"{where}: camera parameters must be finite and focal lengths positive, "
                f"got {self.model} {values}."
            )
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

    def _full(self) -> tuple[Tensor, ...]:
        """All eight parameters of the OPENCV model, zeros where this model has none."""
        values = dict(zip(CAMERA_MODELS[self.model], self.params.unbind(-1), strict=True))
        if "f" in values:
            values["fx"] = values["fy"] = values["f"]
        zero = torch.zeros_like(self.params[..., 0])
        return tuple(values.get(name, zero) for name in _FULL)

    def opencv_params(self) -> Float[Tensor, "*batch 8"]:
        """fx, fy, cx, cy, k1, k2, p1, p2: those of the OPENCV model, which includes the others."""
        return torch.stack(self._full(), dim=-1)

    @property
    def focal(self) -> Float[Tensor, "*batch 2"]:
        """Focal lengths in x and y, in pixels."""
        return torch.stack(self._full()[:2], dim=-1)

    @property
    def principal_point(self) -> Float[Tensor, "*batch 2"]:
        """Where the optical axis meets the image, in pixels."""
        return torch.stack(self._full()[2:4], dim=-1)

    @property
    def has_distortion(self) -> bool:
        """Whether any distortion coefficient differs from zero."""
        return any(bool((k != 0).any()) for k in self._full()[4:])

    def matrix(self) -> Float[Tensor, "*batch 3 3"]:
        """Intrinsic matrices K, without the distortion."""
        fx, fy, cx, cy = self._full()[:4]
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = [[fx, zero, cx], [zero, fy, cy], [zero, zero, one]]
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

    def project(
        self, points: Float[Tensor, "*points 3"]
    ) -> tuple[Float[Tensor, "*pixels 2"], Bool[Tensor, "*pixels"]]:
        """Projects points of the camera frame; batch axes of camera and points broadcast.

        Returns:
            Pixels, and whether the point is in front of the camera and inside the image.
        """
        z = points[..., 2:]
        in_front = z[..., 0] > 0
        rays = points[..., :2] / torch.where(in_front[..., None], z, 1.0)
        pixels = self._distort(rays) * self.focal + self.principal_point
        size = pixels.new_tensor([self.width, self.height])
        inside = ((pixels >= 0) & (pixels <= size)).all(-1) & self._before_fold(rays)
        return pixels, in_front & inside

    def unproject(self, pixels: Float[Tensor, "*pixels 2"]) -> Float[Tensor, "*rays 3"]:
        """Viewing rays of pixels in the camera frame, scaled to z = 1, distortion removed.

        Batch axes of camera and pixels broadcast. NaN for pixels so far outside the image that the
        distortion model does not reach them.
        """
        distorted = (pixels - self.principal_point) / self.focal
        rays = self._undistort(distorted) if self.has_distortion else distorted
        return torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1)

    def _undistort(self, distorted: Tensor) -> Tensor:
        """Solves distort(rays) = distorted by Newton's method."""
        rays = distorted
        tolerance = 16 * torch.finfo(rays.dtype).eps
        # Three steps do inside real images, the rest is for the far corners of strong lenses.
        for _ in range(_UNDISTORT_STEPS):
            x, y = (self._distort(rays) - distorted).unbind(-1)
            if bool((torch.maximum(x.abs(), y.abs()) <= tolerance).all()):
                break
            xx, xy, yy = self._distort_jacobian(rays)
            step = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=-1)
            rays = rays - step / (xx * yy - xy * xy)[..., None]
        solved = ((self._distort(rays) - distorted).abs() <= tolerance).all(-1)
        return torch.where((solved & self._before_fold(rays))[..., None], rays, torch.nan)

    def _before_fold(self, rays: Tensor) -> Tensor:
        """Whether rays are nearer the axis than where the radial distortion turns back.

        Beyond it the polynomial means nothing: it would draw points from far aside into the image.
        """
        return rays.square().sum(-1) < self.fold_radius().square()

    def fold_radius(self) -> Float[Tensor, "*batch"]:
        """Distance from the axis, at z = 1, where the radial distortion turns back; may be inf."""
        k1, k2 = self._full()[4:6]
        # The slope 1 + 3·k1·r² + 5·k2·r⁴ first vanishes at r² = 2 / divisor, if that is positive.
        discriminant = 9 * k1 * k1 - 20 * k2
        divisor = discriminant.clamp(min=0).sqrt() - 3 * k1
        folds = (discriminant >= 0) & (divisor > 0)
        return torch.where(folds, (2 / torch.where(folds, divisor, 1.0)).sqrt(), torch.inf)

    def _distort(self, rays: Tensor) -> Tensor:
        """OpenCV's radial and tangential model on normalised coordinates."""
        k1, k2, p1, p2 = self._full()[4:]
        x, y = rays.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * k2)
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
        return torch.stack([xd, yd], dim=-1)

    def _distort_jacobian(self, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The symmetric Jacobian of ``_distort``: its entries xx, xy and yy."""
        k1, k2, p1, p2 = self._full()[4:]
        x, y = rays.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * k2)
        slope = 2 * (k1 + 2 * r2 * k2)  # d radial / d x = slope * x
        xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
        xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
        yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
        return xx, xy, yy

    def resized(self, width: int, height: int) -> "Camera":
        """The camera of the same view resampled to another size."""
        sx, sy = width / self.width, height / self.height
        camera = self if "fx" in CAMERA_MODELS[self.model] or sx == sy else self._with_two_focals()
        scale = {"f": sx, "fx": sx, "fy": sy, "cx": sx, "cy": sy}
        factors = [scale.get(name, 1.0) for name in CAMERA_MODELS[camera.model]]
        params = camera.params * camera.params.new_tensor(factors)
        return replace(camera, width=width, height=height, params=params)

    def _with_two_focals(self) -> "Camera":
        full = self.opencv_params()
        if self.model == "SIMPLE_PINHOLE":
            return replace(self, model="PINHOLE", params=full[..., :4])
        return replace(self, model="OPENCV", params=full)

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
        params = torch.stack([turned[name] for name in CAMERA_MODELS[self.model]], dim=-1)
        return replace(self, width=self.height, height=self.width, params=params)

    def undistorted(self) -> "Camera":
        """The pinhole camera of the same size, focal lengths and principal point."""
        params = torch.stack(self._full()[:4], dim=-1)
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
    def from_json(value: dict[str, Any]) -> "Camera":
        """Reads what ``to_json`` wrote."""
        params = torch.tensor(value["params"], dtype=torch.float64)
        return Camera(value["model"], int(value["width"]), int(value["height"]), params)


def parse_camera(text: str, what: str = "--camera") -> Camera:
    """Reads ``MODEL,width,height,parameters...``.

    Args:
        text: The camera.
        what: The option or field that it is from, for messages.

    Raises:
        InputError: If it is no camera.
    """
    model, *numbers = text.split(",")
    model = model.strip().upper()
    if model not in CAMERA_MODELS:
        raise unknown(what, model, CAMERA_MODELS)
    try:
        values = [float(number) for number in numbers]
    except ValueError as error:
        raise InputError(f"{what} {text}: {error}.") from error
    if len(values) < 3 or not all(value.is_integer() for value in values[:2]):
        raise InputError(
            f"{what} {text}: needs MODEL,width,height,{','.join(CAMERA_MODELS[model])}."
        )
    params = torch.tensor(values[2:], dtype=torch.float64)
    try:
        return Camera(model, int(values[0]), int(values[1]), params).checked(what)
    except InputError as error:
        raise InputError(f"{what} {text}: {str(error).removeprefix(f'{what}: ')}") from error

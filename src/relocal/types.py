"""What passes between models, losses and localizers."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from relocal.camera import Camera
from relocal.notices import Notice
from relocal.pose import ROTATIONS, Pose, in_hemisphere


@dataclass
class Prediction:
    """What a regressor returns for a batch.

    Not frozen like its neighbours: Lightning Fabric rebuilds what a network returns field by field.
    """

    position: Float[Tensor, "B 3"]
    """Camera centres in the scene's unit, relative to the run's origin."""
    rotation: Float[Tensor, "B k"]
    """Parameters of the model's entry of ``ROTATIONS``, raw."""
    rotation_name: str = "quaternion"
    """Key of ``ROTATIONS``."""
    log_var: Float[Tensor, "B 2"] | None = None
    """Log-variances of position and rotation, for models that know how sure they are."""
    auxiliary: "tuple[Prediction, ...]" = ()
    """Predictions of auxiliary heads, while training."""

    def pose(self) -> Pose:
        """The predicted poses, batch (B,); the sign of a quaternion output is kept."""
        return Pose(self.position, ROTATIONS[self.rotation_name].decode(self.rotation))


@dataclass(frozen=True)
class Target:
    """What the dataset gives for a batch."""

    pose: Pose
    """True poses, (B,), relative to the run's origin."""
    camera: Camera
    """Cameras of the crops that the network saw, (B,)."""
    hemisphere: Float[Tensor, "4"]
    """Mean rotation of the training images: the side on which label quaternions are taken."""
    depth: Float[Tensor, "3"] | None = None
    """Near, median and far depth of the scene; None when it is not known."""
    points: Float[Tensor, "B P 3"] | None = None
    """Map points that the image sees, relative as the poses are; None when the scene has none."""
    visible: Bool[Tensor, "B P"] | None = None
    """Which of the points are real; the others are padding."""

    @property
    def quaternion(self) -> Float[Tensor, "B 4"]:
        """True quaternions on the side of the training mean, whatever sign the labels have."""
        return in_hemisphere(self.pose.quaternion, self.hemisphere)


@dataclass(frozen=True)
class Estimate:
    """A localizer's answer for one photo."""

    pose: Pose
    """``world_from_cam``, batch shape ()."""
    unit: str
    """``"m"`` or ``"unit"``."""
    method: str
    """Which localizer answered."""
    time_ms: float
    """From the photo's file to the pose."""
    sigma_m: float | None = None
    """Per-axis standard deviation of the position, in the scene's unit."""
    sigma_deg: float | None = None
    """Per-axis standard deviation of the rotation vector, in degrees."""
    inliers: int | None = None
    """Supporting matches, for methods that match."""
    warnings: tuple[Notice, ...] = ()
    """What the user should know about this answer."""

"""LocalFrame: the frame in which arithmetic is done, whatever origin and unit a world has.

Coordinates of a map of the Earth have seven digits before the point, more than single precision
keeps, and optimisers stop by tolerances that are in units of length. Both go away where numbers are
near one: about an origin among them, in a unit of their own size.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from relocal.pose import Pose

_ROUNDING = 1e-12  # of the distance to the world's origin: less than this is nothing but rounding


@dataclass(frozen=True)
class LocalFrame:
    """A frame that stands in the world without a turn: x in the world is (x - origin) / length."""

    origin: Float[Tensor, "3"]
    """In the world, float64."""
    length: float = 1.0
    """Its unit, in that of the world; above 0."""

    @staticmethod
    def about(xyz: Float[Tensor, "n 3"]) -> "LocalFrame":
        """The frame in the middle of some places, half of which are less than one away from it.

        Where half of them are in one place, the farthest is one away; where all are, the unit is
        that of the world.
        """
        places = xyz.double()
        origin = places.mean(0)
        away = (places - origin).norm(dim=1)
        for length in (float(away.median()), float(away.max())):
            if length > _ROUNDING * float(origin.norm()):
                return LocalFrame(origin, length)
        return LocalFrame(origin)

    def points(self, xyz: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Points of the world in this frame, float64."""
        return (xyz.double() - self.origin) / self.length

    def poses(self, poses: Pose) -> Pose:
        """Poses in the world in this frame, float64."""
        return Pose(self.points(poses.position), poses.quaternion.double())

    def world_points(self, xyz: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Points of this frame in the world, float64."""
        return self.origin + self.length * xyz.double()

    def world_poses(self, poses: Pose) -> Pose:
        """Poses in this frame in the world, float64."""
        return Pose(self.world_points(poses.position), poses.quaternion.double())

"""Sessions: where the map of a place lies in the frame of a device that tracks itself."""

from relocal.session.alignment import Alignment, align
from relocal.session.axes import AXES
from relocal.session.files import read_poses

__all__ = ["AXES", "Alignment", "align", "read_poses"]

"""The viewer: a scene, maps, runs and reports in three dimensions, in the browser (viser)."""

from relocal.viewer.gathering import Gathered, gather
from relocal.viewer.viewing import methods_of, view

__all__ = ["Gathered", "gather", "methods_of", "view"]

"""Serving: runs, maps and exported networks answer over HTTP."""

from relocal.server.app import create_app
from relocal.server.places import Place, open_places
from relocal.server.service import ServeConfig

__all__ = ["Place", "ServeConfig", "create_app", "open_places"]

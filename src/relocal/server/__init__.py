"""Serving: runs, maps and exported networks answer over HTTP.

``app.create_app`` makes the application of ``places.open_places``. Nothing is imported here: the
options are wanted where FastAPI is not installed.
"""

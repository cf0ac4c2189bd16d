"""The verb that answers photos over HTTP."""

import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from relocal.cli.console import check_address
from relocal.cli.verbs import Modules
from relocal.errors import InputError
from relocal.server.config import ServeConfig
from relocal.server.places import open_places

API_KEY = "RELOCAL_API_KEY"
_PATIENCE_S = 10  # with clients that do not end what they began, once it is stopped


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Answer photos over HTTP: POST /v1/localize with a JPEG, PNG or WebP gives JSON.

    The interface describes itself at /docs. Clients must send the API key that the environment
    variable RELOCAL_API_KEY holds as X-API-Key, if it is set. Ctrl-C answers what waits, and ends.

    Example: relocal serve runs/heads maps/heads --port 8000
    """

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Runs, exported networks and maps; those of one scene answer together."""
    localizer: str | None = None
    """The way to localize: regressor, structure, hybrid, ensemble, bayesian. By default hybrid
    where a scene has a network and a map, else what the folder is by itself."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0 is all of this machine's."""
    port: int = 8000
    """The port to listen at."""
    config: Annotated[ServeConfig, arg(name="")] = field(default_factory=ServeConfig)
    modules: Modules = ()
    """A Python file or module to import first, with a backbone that the run needs; may be given
    again."""

    def run(self) -> int:
        """Serves until it is stopped."""
        check_address(self.host, self.port)
        try:
            server: Any = import_module("relocal.server.app")
            uvicorn: Any = import_module("uvicorn")
        except ImportError as error:
            raise InputError(f"serve needs pip install 'relocal[serve]' ({error}).") from None
        places = open_places(self.folders, self.localizer)
        app = server.create_app(places, self.config, os.environ.get(API_KEY) or None)
        for place in places.values():
            print(f"{place.name}: {place.localizer.method}")
        print(f"The page: http://{self.host}:{self.port}/, for programs: /docs", flush=True)
        ends = {"timeout_graceful_shutdown": _PATIENCE_S}
        try:
            uvicorn.run(app, host=self.host, port=self.port, log_level="warning", **ends)
        except SystemExit as end:  # as uvicorn ends where it cannot listen
            raise InputError(f"--port {self.port}: cannot be listened at.") from end
        return 0

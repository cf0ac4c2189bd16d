"""What a server is started with: read by the command line, so it needs no FastAPI."""

from dataclasses import dataclass

from relocal.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How requests are answered."""

    batch: int = 8
    """Most photos that a network answers at once; 1 is one after the other."""
    waiting: int = 64
    """Most photos that may wait; further ones get 429 and Retry-After."""
    max_mb: float = 20.0
    """Largest body of a request, in megabytes."""
    max_megapixels: float = 50.0
    """Largest picture, in megapixels."""
    batch_photos: int = 32
    """Most photos of one batch request."""
    reject: bool = False
    """Answer "cannot tell" where it is less sure than on nearly all held-out images; needs
    calibrate."""

    def __post_init__(self) -> None:
        for name in ("batch", "waiting", "batch_photos"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')}: must be at least 1.")
        for name in ("max_mb", "max_megapixels"):
            if not 0 < (value := getattr(self, name)) <= 1000:
                raise InputError(f"--{name.replace('_', '-')}: must be in (0, 1000], not {value}.")

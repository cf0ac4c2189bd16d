"""What all tests share: quiet threads, fixed seeds, and the folder of real images."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Tests of geometry build tensors in their first example, which no per-example deadline allows for.
settings.register_profile("relocal", deadline=None)
settings.register_profile("relocal-ci", deadline=None, derandomize=True, database=None)
settings.load_profile("relocal-ci" if os.environ.get("CI") else "relocal")


def pytest_configure() -> None:
    """Bound the threads and choose the drawing backend before any test module is imported."""
    os.environ["MPLBACKEND"] = "Agg"
    # Also for the processes that tests start: spinning threads slow each other many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked gpu where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Start each test from the same random state; NumPy draws come from explicit generators."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and pretrained weights (`data/`, `weights/`), which is not shipped.

    It is $RELOCAL_SHARED, or `shared` beside the repository.
    """
    folder = Path(os.environ.get("RELOCAL_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} not found: real images are not shipped; set RELOCAL_SHARED")
    return folder

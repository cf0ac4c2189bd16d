"""The shape of the package: who may import whom, what is never imported, how long a file may be."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "relocal"

# The order of the data flow. A file, or a folder of the same name, imports only from what stands
# above it; inside a folder any order goes.
ORDER = (
    *(
        "errors",
        "notices",
        "plugins",
        "precision",
        "pose",
        "local_frame",
        "camera",
        "images",
        "corruptions",
        "scene",
        "metrics",
        "datasets",
        "backbones",
        "features",
        "sfm",
        "session",
    ),
    *("types", "models", "losses", "training", "localizers", "evaluation", "studies", "report"),
    *("publishing", "viewer", "exporting", "server", "demonstration", "paper", "cli", "__main__"),
)
PYCOLMAP_USERS = {"camera", "scene", "sfm"}
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}
HEAVY = ("cv2", "lightning_fabric", "matplotlib", "pycolmap")
MAX_LINES = 400

SOURCES = sorted(PACKAGE.rglob("*.py"))
PYTHON = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "bench").rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def stage(module: PurePath) -> str:
    """The entry of ORDER that a path inside the package belongs to."""
    return module.parts[0].removesuffix(".py")


def imports(tree: ast.AST, module: PurePath) -> Iterator[str]:
    """The dotted names that a module imports anywhere, relative ones made absolute."""
    package = ".".join(("relocal", *module.parent.parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(name, package)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def forbidden_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that could load a pickle."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        flags = {k.arg for k in node.keywords if ast.unparse(k.value) == "True"}
        if call == "torch.load" and "weights_only" not in flags:
            yield "torch.load without weights_only=True"
        if "allow_pickle" in flags:
            yield f"{call} with allow_pickle=True"


def forbidden_imports(tree: ast.AST, module: PurePath) -> Iterator[str]:
    """Imports of pickle's kin, of pycolmap outside its files, and against ORDER."""
    here = stage(module)
    above = ORDER[: ORDER.index(here)] if here in ORDER else ORDER
    for name in imports(tree, module):
        top, _, rest = name.partition(".")
        if top in PICKLES or name == "torch.load":
            yield f"imports {name}"
        if top == "pycolmap" and here not in PYCOLMAP_USERS:
            yield f"imports {name}; only {', '.join(sorted(PYCOLMAP_USERS))} may"
        # The package itself gathers all stages, so only its last one may import from it.
        if top != "relocal" or here in ("__init__", "cli") or rest == "__version__":
            continue
        target = rest.partition(".")[0]
        if target not in above and not (target == here and len(module.parts) > 1):
            yield f"imports {name}, which does not stand above {here}"


def faults(source: str, module: PurePath) -> list[str]:
    """What is wrong with the source of a module, given its path inside the package."""
    tree = ast.parse(source)
    found = [*forbidden_imports(tree, module), *forbidden_calls(tree)]
    return found if stage(module) in {"__init__", *ORDER} else ["has no place in ORDER", *found]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_keeps_the_data_flow_and_loads_no_pickle(path: Path) -> None:
    assert not faults(path.read_text("utf-8"), path.relative_to(PACKAGE))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pose.py", "from relocal.camera import Camera"),
        ("pose.py", "def f():\n    from relocal import camera"),
        ("pose.py", "from . import camera"),
        ("pose.py", "from relocal import Camera"),
        ("pose.py", "import relocal"),
        ("losses.py", "from .losses import x"),
        ("models/posenet.py", "from ..losses import LOSSES"),
        ("helpers.py", ""),
        ("utils.py", ""),
        ("metrics.py", "import pycolmap"),
        ("training.py", "import pickle"),
        ("training.py", "from torch import load"),
        ("training.py", "torch.load(f)"),
        ("training.py", "torch.load(f, weights_only=False)"),
        ("training.py", "np.load(f, allow_pickle=True)"),
    ],
)
def test_fault_is_found(module: str, source: str) -> None:
    assert faults(source, PurePath(module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("__init__.py", "from relocal.cli import main"),
        ("camera.py", "import pycolmap\nfrom relocal.pose import Pose"),
        ("models/posenet.py", "from ..pose import Pose\nfrom .shared import trunk"),
        ("models/__init__.py", "from relocal.models.posenet import PoseNet\nfrom . import posenet"),
        ("cli.py", "import relocal\nfrom relocal.training import train"),
        ("training.py", "from relocal import __version__\ntorch.load(f, weights_only=True)"),
    ],
)
def test_sound_source_has_no_fault(module: str, source: str) -> None:
    assert faults(source, PurePath(module)) == []


def test_files_stay_short() -> None:
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in PYTHON}
    assert {name: count for name, count in lengths.items() if count > MAX_LINES} == {}


def test_no_file_is_called_utils() -> None:
    assert [relative(path) for path in PYTHON if path.stem in ("utils", "util", "helpers")] == []


def test_importing_the_package_stays_light() -> None:
    code = f"import sys, relocal; print(*(m for m in {HEAVY} if m in sys.modules))"
    result = subprocess.run(  # a process of its own: this one has imported everything already
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_files_name_no_machine_path() -> None:
    """Paths of the machine that a file was made on mean nothing on another."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(git, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git repository: which files belong to it is unknown")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    contents = ((path, path.read_bytes()) for path in paths if path.is_file())
    pattern = re.compile(rb"(?<![\w.])/(?:work|root)/")
    assert [relative(p) for p, data in contents if b"\0" not in data and pattern.search(data)] == []

"""The demo: the whole way on the room that ships with the package, without a download."""

from collections.abc import Callable
from pathlib import Path

from relocal.datasets import import_scene
from relocal.datasets.room.config import RoomConfig
from relocal.datasets.synthetic import read_synthetic
from relocal.evaluation import Report, evaluate
from relocal.localizers import Regressor
from relocal.losses import LossConfig
from relocal.report import estimate_line, save_report
from relocal.scene import load_scene
from relocal.training import TrainConfig, ViewConfig, train

# Photos taken on a few walks, not a video: so few must cover the room, not one path through it.
DEMO_ROOM = RoomConfig(train_frames=100, train_lap_frames=25, test_lap_frames=60)
DEMO_CONFIG = TrainConfig(
    # Small pictures and many passes: minutes on two cores.
    loss=LossConfig(name="posenet+frustum", beta=1.0, gamma=0.5),
    view=ViewConfig(input_px=96, turn_deg=8.0),
    epochs=160,
    batch_size=25,
    backbone_lr=5e-4,
)

Progress = Callable[[int, int, str], None]


def demo(
    out: Path | str,
    progress: Progress = lambda done, total, text: None,
    config: TrainConfig = DEMO_CONFIG,
    room: RoomConfig = DEMO_ROOM,
) -> tuple[Report, Path, str]:
    """Renders a room, imports it, trains, evaluates and localizes a photo.

    Parts that are finished in ``out`` are kept, and an unfinished training goes on.

    Args:
        out: Folder for everything that is made.
        progress: Called with steps done, steps in all, and what is being done.
        config: How to train.
        room: What to render.

    Returns:
        The report, the path of its page, and the answer for the first test photo.
    """
    out = Path(out)
    scene_folder, run_folder, report_folder = out / "scene", out / "run", out / "report"
    if not scene_folder.exists():
        read_synthetic(out / "room", room, lambda done, total: progress(done, total, "rendering"))
        import_scene("synthetic", out / "room", scene_folder, progress=progress)
    scene = load_scene(scene_folder)
    if not (run_folder / "weights.safetensors").exists():
        train(scene, run_folder, config, resume=run_folder.exists(), report=progress)
    localizer = Regressor(run_folder)
    report = evaluate({"posenet": localizer}, scene, progress=progress)
    page = report_folder / "report.html"
    if not page.exists():
        page = save_report(report, report_folder, scene)
    first = scene.path(int(scene.indices("test")[0]))
    return report, page, estimate_line(localizer.localize(first), str(first), 0, "text")

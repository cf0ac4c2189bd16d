"""A made-up study of three scenes, with names that are hard to print."""

import math
from dataclasses import replace

import numpy as np

from relocal.evaluation import MEAN, ORACLE, RETRIEVAL
from relocal.metrics import PoseErrors
from relocal.studies import MethodErrors, SceneErrors, Study, StudyConfig
from relocal.training import TrainConfig

SEEDS, BLOCKS, IMAGES = 3, 15, 6
TERM, TWIN, ODD = "posenet+frustum", "posenet+twin:frustum", '<b>a_b$%&#|"c'
FACTORS = {"default": 1.0, "posenet": 0.9, TERM: 0.5, TWIN: 0.88, "position": 1.6, ODD: 1.02}
SCENES = {"lab": ("m", 1.0), "wood <i>&_$1|": ("unit", 40.0), "yard": ("m", 5.0)}
CELL = "yard position seed-0: <script>alert(1)</script> is 5 % & $x_1$"


def some_scene(draw: np.random.Generator, name: str) -> SceneErrors:
    unit, scale = SCENES[name]
    count = BLOCKS * IMAGES
    hard = np.exp(0.3 * draw.normal(size=(2, count)))

    def errors(size: float, factor: float) -> np.ndarray:
        luck = np.exp(0.02 * draw.normal(size=(SEEDS, 1)) + 0.1 * draw.normal(size=(SEEDS, count)))
        return size * factor * luck

    def method(name: str, factor: float) -> MethodErrors:
        epochs = np.arange(1, 21)[:, None]
        return MethodErrors(
            position=hard[0] * errors(0.1 * scale, factor),
            rotation_deg=hard[1] * errors(4.0, factor**0.5),
            curve=np.array([2.0, 0.5 * scale, 20.0]) * (1 + factor / epochs),
            seconds=12.5,
            images_per_s=345.6,
            tuned={"0": f"{name}/beta=1.0", "1": f"{name}/beta=5.0"},
            validation=None if name == ODD else factor * scale,
        )

    methods = {key: method(key, f) for key, f in FACTORS.items()}
    if name == "yard":
        del methods["position"]
    if name == "lab":
        methods["posenet"].position[0, 3] = math.inf
        methods["posenet"].rotation_deg[0, 3] = math.inf
    beside = {key: PoseErrors(*(s * f * h for s, h in zip((scale, 20.0), hard, strict=True)))
              for key, f in ((MEAN, 1.5), (ORACLE, 0.2), (RETRIEVAL, 0.3))}  # fmt: skip
    return SceneErrors(
        name=name,
        unit=unit,
        regime="interpolation",
        labels="made up",
        split="blocks:40/5/5 fold 4",
        images=tuple(f"{i}.jpg" for i in range(count)),
        block=np.repeat(np.arange(BLOCKS), IMAGES),
        nearest=scale * draw.uniform(0.01, 0.4, size=count),
        baselines=beside,
        methods=methods,
    )


def some_study() -> Study:
    draw = np.random.default_rng(0)
    return Study(
        config=StudyConfig(losses=",".join(FACTORS), primary=f"{TERM}:default", final=True),
        base=TrainConfig(),
        scenes={name: some_scene(draw, name) for name in SCENES},
        failed=(CELL,),
        looks=(look(f"{TERM}:default"),),
        made_by={"commit": "0123456789ab", "processor": "an abacus", "cores": 2, "date": "today"},
    )


def look(primary: str | None = None, secondary: str = "") -> dict[str, str | None]:
    """A look at test images, by when these contrasts were fixed."""
    when = {"date": "2026-01-02T03:04:05+00:00", "commit": "0123456789ab"}
    return {**when, "primary": primary, "secondary": secondary}


def with_config(study: Study, **options: object) -> Study:
    """The same study, asked in another way from the start: its looks name the same contrasts."""
    config = replace(study.config, **options)
    looks = tuple({**one, "primary": config.primary, "secondary": config.secondary}
                  for one in study.looks)  # fmt: skip
    return replace(study, config=config, looks=looks)

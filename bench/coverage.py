"""How true stated spreads are over all folds: each block of a scene is tested once.

    python bench/coverage.py SCENE --work FOLDER [--seeds 3] [--out FILE] [TRAIN OPTIONS]

For each fold of the scene's rule: runs with validation blocks, one a seed, and a map, all
calibrated on training images alone; then the test images are asked about by the first run, its
samples with dropout, the ensemble of all, the structure and the hybrid. Coverage of the 68 and 95 %
regions is the mean over blocks of all folds, with its 95 % interval; so is the share of photos that
``--reject`` would refuse. TRAIN OPTIONS are those of ``relocal train``. A fold's errors are kept in
FOLDER, and a call that was stopped goes on after the last whole fold; give other options another.
"""

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import relocal
from relocal.cli import parse
from relocal.evaluation.uncertainty import coverages
from relocal.localizers import open_localizers
from relocal.localizers.calibration import REGIONS
from relocal.metrics import PoseErrors, median
from relocal.scene import apply_split
from relocal.scene.files import read_json, write_json
from relocal.training.run import environment

KINDS = ("regressor", "bayesian", "ensemble", "structure", "hybrid")


def fold_report(
    scene: relocal.Scene, config: relocal.TrainConfig, seeds: int, scale: float, work: Path
) -> relocal.Report:
    """Makes and calibrates all localizers of a fold, and asks them about its test images."""
    folders = [work / f"run-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        relocal.train(scene, folder, replace(config, seed=seed, validate=True))
        relocal.calibrate(folder, scene)
    relocal.save_map(relocal.build_map(scene, relocal.MapConfig(scale=scale)), work / "map")
    relocal.calibrate(work / "map", scene)
    found = open_localizers([folders[0], work / "map"], ["regressor", "structure"])
    found |= open_localizers([*folders, work / "map"], ["bayesian", "ensemble", "hybrid"])
    return relocal.evaluate(dict(zip(KINDS, _ordered(found), strict=True)), scene)


def _ordered(found: dict[str, Any]) -> list[Any]:
    """Localizers in the order of KINDS."""
    by = {type(one).__name__.lower(): one for one in found.values()}
    return [by[kind] for kind in KINDS]


def fold_rows(report: relocal.Report) -> dict[str, Any]:
    """What is kept of a fold: errors, stated spreads and doubts by kind, and the blocks."""
    rows: dict[str, Any] = {}
    for kind in KINDS:
        one = report.methods[kind]
        assert one.sigmas is not None  # all are calibrated
        assert one.doubts is not None
        rows[kind] = {
            "position": one.errors.position.tolist(),
            "rotation_deg": one.errors.rotation_deg.tolist(),
            "sigmas": one.sigmas.tolist(),
            "doubts": one.doubts.tolist(),
        }
    assert report.block is not None  # evaluate knows them
    return {"block": report.block.tolist(), "kinds": rows}


def fitted_elsewhere(folds: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Coverage with factors fitted to the test images of the other folds: to more blocks.

    And by how many stated spreads the answers of a block are off, in the median: 5, 50 and 95 % of
    the blocks. Where blocks differ much one factor is right for none of them.
    """
    found: dict[str, Any] = {}
    for axis, (what, key) in enumerate((("position", "position"), ("rotation", "rotation_deg"))):
        errors = [np.array(fold["kinds"][kind][key]) for fold in folds]
        stated = [np.array(fold["kinds"][kind]["sigmas"])[:, axis] for fold in folds]
        ratios = [error / sigma for error, sigma in zip(errors, stated, strict=True)]
        factors = []
        for i in range(len(folds)):
            others = np.concatenate([ratio for j, ratio in enumerate(ratios) if j != i])
            factors.append(np.quantile(others[np.isfinite(others)], 0.68) / REGIONS[0.68])
        block = np.concatenate([fold["block"] for fold in folds])
        sigmas = np.concatenate([f * sigma for f, sigma in zip(factors, stated, strict=True)])
        both = PoseErrors(np.concatenate(errors), np.concatenate(errors))
        covered = coverages(both, np.stack([sigmas, sigmas], axis=1), block)["position"]
        every = np.concatenate(ratios)
        off = [float(np.median(every[block == one])) for one in np.unique(block)]
        found[what] = {
            "coverage": [asdict(one) for one in covered],
            "block_medians_in_sigmas": np.quantile(off, [0.05, 0.5, 0.95]).tolist(),
        }
    return found


def together(folds: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Medians, refusals and coverage of a kind over all folds."""
    position, rotation, sigmas, doubts = (
        np.concatenate([fold["kinds"][kind][key] for fold in folds])
        for key in ("position", "rotation_deg", "sigmas", "doubts")
    )
    block = np.concatenate([fold["block"] for fold in folds])
    covered = coverages(PoseErrors(position, rotation), sigmas, block)
    return {
        "median_position": median(position),
        "median_rotation_deg": median(rotation),
        "refused": float((doubts > 1).mean()),
        "coverage": {what: [asdict(one) for one in every] for what, every in covered.items()},
        "fitted_on_other_folds": fitted_elsewhere(folds, kind) if len(folds) > 1 else {},
    }


def _shown(coverage: dict[str, Any]) -> str:
    return "; ".join(
        f"{what} {100 * one['share']:.0f} %: {100 * one['found']:.0f} "
        f"({', '.join(f'{100 * end:.0f}' for end in one['interval'] or ())})"
        for what, every in coverage.items()
        for one in every
    )


def main() -> None:
    """Asks fold after fold, and prints a row a way to localize."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rule", default="blocks:40/5/5")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--out", type=Path)
    options, training = parser.parse_known_args()
    scene = relocal.load_scene(options.scene)
    training = [word for word in training if word != "--"]
    config = parse(["train", str(options.scene), "--out", "none", *training]).config
    options.work.mkdir(parents=True, exist_ok=True)
    folds: list[dict[str, Any]] = []
    for fold in range(options.folds):
        kept = options.work / f"fold-{fold}.json"
        if not kept.is_file():
            part = apply_split(scene, options.rule, fold)
            with tempfile.TemporaryDirectory() as work:
                made = fold_report(part, config, options.seeds, options.scale, Path(work))
            write_json(kept, fold_rows(made))
        folds.append(read_json(kept))
        print(f"fold {fold}: {len(folds[-1]['block'])} images", flush=True)
    rows = {kind: together(folds, kind) for kind in KINDS}
    for kind, row in rows.items():
        print(f"{kind}: {_shown(row['coverage'])}; refused {100 * row['refused']:.1f} %")
        other = row["fitted_on_other_folds"]
        coverage = {what: one["coverage"] for what, one in other.items()}
        print(f"  fitted on other folds: {_shown(coverage)}")
        for what, one in other.items():
            off = ", ".join(f"{value:.2f}" for value in one["block_medians_in_sigmas"])
            print(f"  {what}, medians of blocks in spreads (5, 50, 95 % of blocks): {off}")
    content = {
        "made_by": environment(),
        "rule": options.rule,
        "train": config.without_paths().to_json(),
        "seeds": options.seeds,
        "scale": options.scale,
        "kinds": rows,
    }
    if options.out is not None:
        write_json(options.out, content)


if __name__ == "__main__":
    main()

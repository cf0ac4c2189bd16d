"""What the synthetic room's surfaces are made of: plaster, brick, wood, cloth, all from a seed.

Nothing repeats exactly: a regular pattern gives feature matches that cannot be told apart.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

TEXELS_PER_M = 256

Image = UInt8[np.ndarray, "H W 3"]
Paint = Callable[[np.random.Generator, int, int], Image]
"""``paint(rng, height, width)`` gives the RGB image of a surface seen from its front, in texels."""
Colour = Sequence[float | int]
"""RGB, 0 to 255."""

PALETTE = (
    (156, 42, 42), (38, 74, 128), (44, 104, 66), (212, 172, 70), (232, 222, 200),
    (92, 54, 108), (34, 34, 40), (206, 112, 48), (104, 146, 160), (128, 84, 56),
)  # fmt: skip
PETALS = ((172, 72, 84), (222, 178, 92), (92, 112, 156))
SNOW = ((226, 234, 238), (104, 132, 150), (196, 206, 206))


def noise(
    rng: np.random.Generator, height: int, width: int, cell: Sequence[float | int], octaves: int = 1
) -> Float32[np.ndarray, "H W"]:
    """Smooth noise of about unit variance.

    Args:
        rng: Source of randomness.
        height: Rows, in texels.
        width: Columns, in texels.
        cell: Size (rows, columns) of the largest blobs, in texels.
        octaves: Each further octave has half the size and half the strength.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows, columns = (max(1.0, side / 2**octave) for side in cell)
        grid = rng.standard_normal((int(height / rows) + 2, int(width / columns) + 2), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def to_image(values: np.ndarray) -> Image:
    """Cuts any numbers to 0 to 255."""
    return np.clip(values, 0, 255).astype(np.uint8)


def tint(colour: Colour, brightness: Float32[np.ndarray, "H W"]) -> Image:
    """A colour, darker and lighter from texel to texel."""
    return to_image(brightness[..., None] * np.asarray(colour, np.float32))


def vary(rng: np.random.Generator, colour: Colour, spread: int) -> tuple[float, ...]:
    """A colour near the given one: `spread` levels in brightness, a third of that in hue."""
    shift = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return tuple(float(c) for c in np.clip(np.asarray(colour) + shift, 0, 255))


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: int) -> tuple[float, ...]:
    """A colour near one of the given ones."""
    return vary(rng, colours[int(rng.integers(len(colours)))], spread)


def rough(rng: np.random.Generator, image: Image, strength: float) -> Image:
    """The image with grain over it."""
    height, width = image.shape[:2]
    return to_image(image * (1 + strength * noise(rng, height, width, (9, 9), 3))[..., None])


def flat(rng: np.random.Generator, height: int, width: int) -> Image:
    """Uniform paint, a slightly different light shade on each surface."""
    return np.full((height, width, 3), vary(rng, (196, 192, 186), 12), np.uint8)


def glow(rng: np.random.Generator, height: int, width: int) -> Image:
    """A lit lamp."""
    return tint((255, 246, 222), 1 + 0.02 * noise(rng, height, width, (12, 12)))


def plaster(rng: np.random.Generator, height: int, width: int, *, colour: Colour) -> Image:
    """Painted plaster: clouds and grain."""
    clouds = 0.035 * noise(rng, height, width, (90, 90), 3)
    return tint(colour, 1 + clouds + 0.02 * noise(rng, height, width, (3, 3)))


def wallpaper(
    rng: np.random.Generator, height: int, width: int, *, colour: Colour, petals: Sequence[Colour]
) -> Image:
    """Faint stripes and flowers, each of its own size, turn and tone."""
    image = plaster(rng, height, width, colour=colour)
    step = round(0.16 * TEXELS_PER_M)
    for x in range(0, width, step):
        cv2.rectangle(image, (x, 0), (x + step // 12, height), vary(rng, colour, 18), -1)
    for row, y in enumerate(range(step // 2, height + step, step)):
        for x in range((row % 2) * step // 2, width + step, step):
            centre = np.array([x, y]) + rng.normal(0, step / 12, 2)
            _flower(rng, image, centre, rng.uniform(0.2, 0.42) * step, pick(rng, petals, 16))
    return image


def _flower(
    rng: np.random.Generator, image: Image, centre: np.ndarray, radius: float, petal: Colour
) -> None:
    """Paints four to seven petals, in place; all lengths in texels."""
    count = int(rng.integers(4, 8))
    axes = (max(1, round(radius * 0.5)), max(1, round(radius * 0.25)))
    for angle in rng.uniform(0, 360) + 360 / count * np.arange(count):
        out = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        at = np.rint(centre + 0.55 * radius * out).astype(int).tolist()
        cv2.ellipse(image, at, axes, float(angle), 0, 360, petal, -1, cv2.LINE_AA)
    middle = np.rint(centre).astype(int).tolist()
    cv2.circle(image, middle, max(1, round(radius * 0.22)), (240, 224, 170), -1, cv2.LINE_AA)


def brick(rng: np.random.Generator, height: int, width: int) -> Image:
    """A brick wall; no two bricks have the same tone."""
    image = np.full((height, width, 3), (186, 178, 166), np.uint8)
    course, length, joint = (round(m * TEXELS_PER_M) for m in (0.085, 0.24, 0.012))
    for row, y in enumerate(range(0, height, course)):
        start = -(row % 2) * length // 2 - int(rng.integers(0, joint))
        for x in range(start, width, length):
            end = (x + length - joint, y + course - joint)
            cv2.rectangle(image, (x, y), end, vary(rng, (164, 90, 66), 18), -1)
    return rough(rng, image, 0.09)


def tiles(rng: np.random.Generator, height: int, width: int) -> Image:
    """Glazed tiles, about every third one with a flower painted on."""
    image = np.full((height, width, 3), (150, 156, 156), np.uint8)
    step, joint = round(0.15 * TEXELS_PER_M), round(0.008 * TEXELS_PER_M)
    side = step - joint
    for y in range(0, height, step):
        for x in range(0, width, step):
            glaze = vary(rng, (206, 220, 214), 7)
            cv2.rectangle(image, (x, y), (x + side, y + side), glaze, -1)
            if rng.random() < 0.35:
                centre, radius = np.array([x, y]) + side / 2, rng.uniform(0.25, 0.45) * side
                _flower(rng, image, centre, radius, pick(rng, PETALS, 16))
    return rough(rng, image, 0.015)


def wood(rng: np.random.Generator, height: int, width: int, *, colour: Colour) -> Image:
    """Grain along the longer side, with a few knots."""
    if height > width:
        return np.ascontiguousarray(np.rot90(wood(rng, width, height, colour=colour)))
    grain = 0.10 * noise(rng, height, width, (5, 160), 3)
    image = tint(colour, 1 + grain + 0.05 * noise(rng, height, width, (2, 30)))
    for _ in range(rng.poisson(2.5 * height * width / TEXELS_PER_M**2)):
        at, size = (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(4, 10))
        for ring in (1.0, 0.6, 0.3):
            axes = (max(1, round(2 * size * ring)), max(1, round(size * ring)))
            dark = tuple(0.75 * c * (0.6 + 0.4 * ring) for c in colour)
            cv2.ellipse(image, at, axes, 0, 0, 360, dark, 2, cv2.LINE_AA)
    return image


def planks(rng: np.random.Generator, height: int, width: int, *, colour: Colour) -> Image:
    """A floor of boards of random length and tone."""
    image = np.empty((height, width, 3), np.uint8)
    board = round(0.15 * TEXELS_PER_M)
    for y in range(0, height, board):
        x = 0
        while x < width:
            piece = image[y : y + board, x : x + int(rng.uniform(0.4, 1.6) * TEXELS_PER_M)]
            piece[:] = wood(rng, *piece.shape[:2], colour=vary(rng, colour, 14))
            piece[-3:] = piece[:, -3:] = 48
            x += piece.shape[1]
    return image


def rug(rng: np.random.Generator, height: int, width: int) -> Image:
    """Nested borders about a field of lozenges."""
    image = np.empty((height, width, 3), np.uint8)
    inset, step = 0, 34
    for band in ((120, 34, 38), (226, 202, 158), (34, 52, 88), (168, 62, 48), (120, 34, 38)):
        cv2.rectangle(image, (inset, inset), (width - inset, height - inset), band, -1)
        inset += int(rng.integers(8, 18))
    for y in range(inset + step // 2, height - inset - step // 3, step):
        for x in range(inset + step // 2, width - inset - step // 3, step):
            half = int(rng.integers(7, 17))
            lozenge = np.array([[x, y - half], [x + half, y], [x, y + half], [x - half, y]])
            cv2.fillConvexPoly(image, lozenge, pick(rng, PALETTE, 12), cv2.LINE_AA)
    return rough(rng, image, 0.10)


def plaid(rng: np.random.Generator, height: int, width: int, *, colour: Colour) -> Image:
    """Woven cloth with irregular stripes both ways."""
    across, down = (noise(rng, 1, n, (1, 16), 2)[0] for n in (width, height))
    stripes = np.clip(np.round(1.6 * across)[None] + np.round(1.6 * down)[:, None], -4, 4)
    return tint(colour, 1 + 0.11 * stripes + 0.04 * noise(rng, height, width, (3, 3)))


def ribs(
    rng: np.random.Generator, height: int, width: int, *, colour: Colour, rib_m: float
) -> Image:
    """Upright folds: a curtain or a radiator."""
    x = np.arange(width, dtype=np.float32) + 4 * noise(rng, 1, width, (1, 40))[0]
    folds = 0.2 * np.sin(2 * np.pi * x / (rib_m * TEXELS_PER_M))
    return tint(colour, 0.85 + folds + 0.04 * noise(rng, height, width, (60, 8), 3))


def pages(rng: np.random.Generator, height: int, width: int) -> Image:
    """The cut edges of paper, along the longer side."""
    cell = (2, 60) if width > height else (60, 2)
    return tint((224, 214, 190), 0.92 + 0.05 * noise(rng, height, width, cell))

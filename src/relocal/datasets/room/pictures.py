"""What is written and drawn in the synthetic room: posters, books, a map, a screen, a view."""

import cv2
import numpy as np

from relocal.datasets.room.textures import (
    PALETTE,
    Colour,
    Image,
    Paint,
    noise,
    pick,
    plaster,
    rough,
    to_image,
    vary,
    wood,
)

WORDS = (
    "atlas", "harbour", "meridian", "lantern", "orchard", "compass", "velvet", "quarry", "signal",
    "thistle", "copper", "tundra", "ember", "willow", "zenith", "marble", "falcon", "saffron",
    "delta", "ripple", "anchor", "mosaic", "juniper", "cobalt", "prairie", "echo", "nimbus",
)  # fmt: skip


def _word(rng: np.random.Generator) -> str:
    return str(rng.choice(WORDS))


def _write(image: Image, text: str, at: tuple[int, int], height: float, colour: Colour) -> None:
    """Writes in place; `at` is the lower left corner, `height` that of capitals, in texels."""
    thickness = max(1, round(height / 9))
    font, scale = cv2.FONT_HERSHEY_DUPLEX, height / 22
    cv2.putText(image, text, at, font, scale, colour, thickness, cv2.LINE_AA)


def _fill_with_text(rng: np.random.Generator, image: Image, line: int, colour: Colour) -> None:
    """Writes lines of words of random length, in place; `line` is the size in texels."""
    height, width = image.shape[:2]
    for y in range(round(1.3 * line), height - line // 3, round(1.6 * line)):
        text = " ".join(rng.choice(WORDS, 12))
        letters = int(rng.uniform(0.6, 1.0) * width / (0.95 * line))
        _write(image, text[:letters], (line // 2, y), 0.8 * line, colour)


def painting(rng: np.random.Generator, height: int, width: int) -> Image:
    """An abstract picture: overlapping discs, slabs and strokes."""
    image = plaster(rng, height, width, colour=pick(rng, PALETTE, 20))
    for _ in range(int(rng.integers(14, 26))):
        colour = pick(rng, PALETTE, 25)
        at = [int(rng.integers(width)), int(rng.integers(height))]
        size = rng.uniform(0.04, 0.28) * min(height, width)
        kind = rng.choice(("disc", "slab", "stroke"))
        if kind == "disc":
            cv2.circle(image, at, round(size), colour, -1, cv2.LINE_AA)
        elif kind == "slab":
            slab = cv2.boxPoints((at, (2 * size, size), rng.uniform(0, 180)))
            cv2.fillConvexPoly(image, slab.astype(np.int32), colour, cv2.LINE_AA)
        else:
            end = (at + rng.normal(0, 2.5 * size, 2)).astype(int).tolist()
            cv2.line(image, at, end, colour, 5, cv2.LINE_AA)
    return image


def framed(picture: Paint, *, colour: Colour = (70, 46, 30), mat: Colour | None = None) -> Paint:
    """The same picture in a wooden frame, with a mat of that colour between them."""

    def paint(rng: np.random.Generator, height: int, width: int) -> Image:
        image = wood(rng, height, width, colour=colour)
        border = 10
        if mat is not None:
            image[border:-border, border:-border] = mat
            border += 18
        inner = picture(rng, height - 2 * border, width - 2 * border)
        image[border:-border, border:-border] = inner
        return image

    return paint


def poster(rng: np.random.Generator, height: int, width: int, *, title: str) -> Image:
    """A picture above a title and small print."""
    image = np.full((height, width, 3), vary(rng, (240, 236, 224), 6), np.uint8)
    edge, split = round(0.05 * width), round(0.68 * height)
    image[edge:split, edge : width - edge] = painting(rng, split - edge, width - 2 * edge)
    letters = min(0.085 * height, 1.05 * width / len(title))
    _write(image, title, (edge, round(split + 1.5 * letters)), letters, (28, 26, 34))
    _fill_with_text(rng, image[round(split + 1.6 * letters) :, edge:], 8, (70, 66, 74))
    return image


def world_map(rng: np.random.Generator, height: int, width: int) -> Image:
    """Sea and land in steps of height, with coasts and names."""
    relief = noise(rng, height, width, (height / 3, width / 5), 5)
    steps = np.digitize(relief, [-0.6, 0.1, 0.7, 1.5])
    shades = ((88, 132, 170), (128, 172, 196), (206, 204, 150), (150, 172, 108), (168, 132, 92))
    image = to_image(np.array(shades)[steps] * (1 + 0.02 * relief[..., None]))
    image[cv2.Laplacian(steps.astype(np.float32), cv2.CV_32F) > 0.5] = (90, 84, 70)
    for y in range(16, height - 4, height // 9):
        for x in range(int(rng.integers(8, 40)), width - 50, width // 4):
            at = (x + int(rng.integers(0, 30)), y + int(rng.integers(0, 8)))
            _write(image, _word(rng), at, rng.uniform(8, 12), (40, 34, 34))
            cv2.circle(image, (at[0] - 5, at[1] - 4), 3, (150, 30, 30), -1, cv2.LINE_AA)
    return image


def cork(rng: np.random.Generator, height: int, width: int) -> Image:
    """A pinboard with notes."""
    image = rough(rng, np.full((height, width, 3), (176, 128, 82), np.uint8), 0.10)
    papers = ((246, 240, 150), (250, 250, 246), (176, 220, 240), (246, 190, 196))
    for y in range(8, height - 60, 56):
        for x in range(8, width - 76, 72):
            top, left = y + int(rng.integers(0, 12)), x + int(rng.integers(0, 14))
            note = image[top : top + rng.integers(34, 54), left : left + rng.integers(34, 68)]
            note[:] = pick(rng, papers, 4)
            _fill_with_text(rng, note, int(rng.integers(7, 11)), (50, 50, 70))
            pin = (left + note.shape[1] // 2, top + 4)
            cv2.circle(image, pin, 4, vary(rng, (190, 40, 40), 30), -1, cv2.LINE_AA)
    return image


def books(rng: np.random.Generator, height: int, width: int) -> Image:
    """A row of spines of different colour, thickness and height, before a dark back."""
    image = np.full((height, width, 3), (30, 22, 18), np.uint8)
    x = 0
    while x < width:
        top, thick = int(rng.uniform(0, 0.22) * height), int(rng.integers(7, 18))
        spine = image[top:, x + 1 : x + thick]
        spine[:] = _spine(rng, *spine.shape[:2])
        x += thick
    return image


def _spine(rng: np.random.Generator, height: int, width: int) -> Image:
    """Cloth with bands, and the title along it."""
    cloth = pick(rng, PALETTE, 16)
    ink = (24, 22, 26) if sum(cloth) > 400 else (236, 222, 180)
    lying = np.full((max(width, 1), height, 3), cloth, np.uint8)
    for x in (rng.uniform(0.02, 0.95, int(rng.integers(1, 4))) * height).astype(int):
        lying[:, x : x + int(rng.integers(2, 6))] = vary(rng, ink, 20)
    if width >= 8:
        _write(lying, _word(rng), (height // 6, round(0.78 * width)), 0.55 * width, ink)
    return np.rot90(lying, -1)[:, :width]


def window(rng: np.random.Generator, height: int, width: int) -> Image:
    """A view behind white bars: sky with clouds, houses, trees."""
    fall = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = (1 - fall) * (120, 170, 226) + fall * (224, 234, 244)
    clouds = np.clip(noise(rng, height, width, (50, 120), 4), 0, 1)[..., None]
    image = to_image(sky + 0.8 * clouds * (252 - sky))
    _houses(rng, image, ground=int(0.86 * height))
    for _ in range(60):
        at = (int(rng.integers(width)), int(rng.uniform(0.84, 1.0) * height))
        leaves = vary(rng, (70, 112, 60), 18)
        cv2.circle(image, at, int(rng.integers(6, 18)), leaves, -1, cv2.LINE_AA)
    for x in (0, width // 2, width):
        cv2.line(image, (x, 0), (x, height), (238, 236, 230), 18)
    for y in (0, int(0.3 * height), height):
        cv2.line(image, (0, y), (width, y), (238, 236, 230), 14)
    return image


def _houses(rng: np.random.Generator, image: Image, ground: int) -> None:
    """A street with lit and dark windows, drawn in place."""
    x = 0
    while x < image.shape[1]:
        w, h = int(rng.integers(30, 70)), int(rng.uniform(0.25, 0.62) * ground)
        wall = vary(rng, (178, 158, 140), 24)
        cv2.rectangle(image, (x, ground - h), (x + w, image.shape[0]), wall, -1)
        for top in range(ground - h + 8, ground, 18):
            for left in range(x + 6, x + w - 8, 14):
                pane = (64, 74, 92) if rng.random() < 0.7 else (240, 224, 160)
                cv2.rectangle(image, (left, top), (left + 6, top + 9), pane, -1)
        x += w + int(rng.integers(0, 8))


def door(rng: np.random.Generator, height: int, width: int) -> Image:
    """A panelled door with a handle and a notice."""
    image = wood(rng, height, width, colour=(150, 106, 70))
    cv2.rectangle(image, (0, 0), (width - 1, height), (226, 220, 208), 26)
    for top, bottom in ((0.07, 0.30), (0.36, 0.60), (0.68, 0.93)):
        for left, right in ((0.14, 0.46), (0.54, 0.86)):
            x0, y0, x1, y1 = (
                int(share * side)
                for share, side in ((left, width), (top, height), (right, width), (bottom, height))
            )
            cv2.rectangle(image, (x0, y0), (x1, y1), (96, 64, 40), 5, cv2.LINE_AA)
            cv2.rectangle(image, (x0 + 9, y0 + 9), (x1 - 9, y1 - 9), (176, 130, 90), 2)
    handle = (int(0.87 * width), int(0.64 * height))
    cv2.circle(image, handle, 9, (206, 190, 130), -1, cv2.LINE_AA)
    cv2.line(image, handle, (handle[0] - 26, handle[1]), (206, 190, 130), 7, cv2.LINE_AA)
    note = image[int(0.36 * height) : int(0.50 * height), int(0.30 * width) : int(0.70 * width)]
    note[:] = (244, 240, 228)
    _fill_with_text(rng, note, 10, (150, 30, 36))
    return image


def drawers(
    rng: np.random.Generator, height: int, width: int, *, colour: Colour, rows: int, columns: int
) -> Image:
    """The front of a piece of furniture: drawers or doors with knobs, most with a label."""
    image = wood(rng, height, width, colour=colour)
    dark = tuple(0.45 * c for c in colour)
    h, w = height // rows, width // columns
    for row in range(rows):
        for column in range(columns):
            front = image[row * h + 5 : (row + 1) * h - 5, column * w + 5 : (column + 1) * w - 5]
            front[:] = wood(rng, *front.shape[:2], colour=vary(rng, colour, 12))
            front[:2] = front[-2:] = front[:, :2] = front[:, -2:] = dark
            knob = ((2 * column + 1) * w // 2, (2 * row + 1) * h // 2)
            cv2.circle(image, knob, 7, (222, 208, 160), -1, cv2.LINE_AA)
            if rng.random() < 0.6:
                _write(front, _word(rng)[:7], (8, 20), 10.0, (244, 240, 230))
    return image


def screen(rng: np.random.Generator, height: int, width: int) -> Image:
    """A monitor full of code."""
    image = np.full((height, width, 3), (24, 28, 36), np.uint8)
    for y in range(20, height - 10, 13):
        x = 12 + 14 * int(rng.integers(0, 4))
        while x < 0.75 * width and rng.random() < 0.8:
            word = _word(rng)
            _write(image, word, (x, y), 8.0, vary(rng, (150, 190, 170), 40))
            x += 8 * len(word) + 10
    cv2.rectangle(image, (0, 0), (width - 1, height - 1), (12, 12, 14), 10)
    return image


def cardboard(rng: np.random.Generator, height: int, width: int) -> Image:
    """The side of a carton: tape, a printed word, a label."""
    image = plaster(rng, height, width, colour=vary(rng, (188, 146, 98), 10))
    tape = int(rng.uniform(0.3, 0.6) * width)
    image[:, tape : tape + 14] = to_image(0.86 * image[:, tape : tape + 14] + 20)
    word = _word(rng).upper()
    _write(image, word, (6, int(0.4 * height)), min(0.22 * height, width / len(word)), (60, 40, 26))
    label = image[int(0.55 * height) : int(0.9 * height), int(0.45 * width) : int(0.92 * width)]
    label[:] = (240, 238, 230)
    _fill_with_text(rng, label, 8, (40, 40, 46))
    return image


def clock(rng: np.random.Generator, height: int, width: int) -> Image:
    """A round dial on a dark board."""
    image = wood(rng, height, width, colour=(54, 40, 34))
    middle, radius = np.array([width // 2, height // 2]), min(width, height) // 2 - 6

    def at(hour: int, reach: float) -> list[int]:
        angle = np.radians(30 * hour - 90)
        out = reach * radius * np.array([np.cos(angle), np.sin(angle)])
        return np.rint(middle + out).astype(int).tolist()

    cv2.circle(image, middle.tolist(), radius, (240, 236, 222), -1, cv2.LINE_AA)
    for hour in range(1, 13):
        x, y = at(hour, 0.78)
        _write(image, str(hour), (x - 5 * len(str(hour)), y + 5), 11.0, (30, 28, 28))
    for hour, reach, thick in ((10, 0.45, 5), (4, 0.66, 3)):
        cv2.line(image, middle.tolist(), at(hour, reach), (120, 24, 24), thick, cv2.LINE_AA)
    return image

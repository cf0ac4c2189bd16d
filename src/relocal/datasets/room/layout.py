"""What stands where in the synthetic room.

World frame: z up, metres, origin in the south-west corner of the floor, x east, y north.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float64

from relocal.datasets.room import pictures, textures
from relocal.datasets.room.textures import Colour, Paint

ROOM_SIZE_M = (5.0, 4.0, 2.6)
"""East, north, up."""

FREE_BOX_M = ((0.95, 0.65, 1.20), (4.25, 3.20, 1.80))
"""Lower and upper corner of the space for the camera, at least 0.3 m from every surface."""

LAMPS_M = ((1.7, 2.7, 2.42), (3.5, 1.3, 2.42))
"""Where the light of the ceiling lamps comes from: just below them."""

WINDOW_M = ((4.92, 1.30, 0.95), (4.92, 2.85, 2.15))
"""Lower and upper corner of where the daylight comes from."""

Vector = Float64[np.ndarray, "3"]
Point = Sequence[float | int]

_OAK, _PINE, _WALNUT, _WHITE = (168, 124, 78), (204, 166, 112), (104, 70, 46), (226, 222, 212)
_EAST, _NORTH, _UP = np.eye(3)
_EYE_M = FREE_BOX_M[0][2]

# How one sees a wall in front of oneself: where its left end is, and which way is right.
_WALLS = {
    "n": ((0, ROOM_SIZE_M[1], 0), _EAST),
    "e": ((ROOM_SIZE_M[0], ROOM_SIZE_M[1], 0), -_NORTH),
    "s": ((ROOM_SIZE_M[0], 0, 0), -_EAST),
    "w": ((0, 0, 0), _NORTH),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Quad:
    """A rectangle that is seen from its front only."""

    corner: Vector
    """Its upper left corner, seen from the front; world, metres."""
    right: Vector
    """Its upper edge from there, seen from the front; world, metres."""
    down: Vector
    """Its left edge from there; world, metres."""
    paint: Paint
    """What is painted on it."""
    shines: bool = False
    """Whether it is as bright as its paint, whatever the light."""

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height."""
        return float(np.linalg.norm(self.right)), float(np.linalg.norm(self.down))

    @property
    def normal(self) -> Vector:
        """Unit vector towards whoever sees it; world."""
        normal = np.cross(self.down, self.right)
        return normal / np.linalg.norm(normal)


def furnish() -> list[Quad]:
    """Every surface of the room; the furniture is the same for each seed."""
    return [
        *_shell(),
        *_north_side(),
        *_east_side(),
        *_south_side(),
        *_west_side(),
        *_middle(),
    ]


def _box(
    lower: Point, upper: Point, paint: Paint, faces: str = "tnesw", **own: Paint
) -> list[Quad]:
    """The outside of a box.

    Args:
        lower: Lower corner (x, y, z), metres.
        upper: Upper corner.
        paint: What faces without paint of their own are painted with.
        faces: Which faces there are, of t(op), b(ottom), n, e, s, w; hidden ones are left out.
        own: The paint of single faces.
    """
    x0, y0, z0 = lower
    x1, y1, z1 = upper
    dx, dy, dz = _EAST * (x1 - x0), _NORTH * (y1 - y0), _UP * (z1 - z0)
    frames = {
        "t": ((x0, y1, z1), dx, -dy),
        "b": ((x0, y0, z0), dx, dy),
        "n": ((x1, y1, z1), -dx, -dz),
        "s": ((x0, y0, z1), dx, -dz),
        "e": ((x1, y0, z1), dy, -dz),
        "w": ((x0, y1, z1), -dy, -dz),
    }
    quads: list[Quad] = []
    for face in faces:
        corner, right, down = frames[face]
        quads.append(
            Quad(corner=np.array(corner), right=right, down=down, paint=own.get(face, paint))
        )
    return quads


def _on_wall(
    wall: str, left: float, bottom: float, width: float, height: float, paint: Paint,
    *, out: float = 0.015, shines: bool = False,
) -> Quad:  # fmt: skip
    """A rectangle `out` metres before a wall, its left end `left` metres from that of the wall."""
    left_end, right = _WALLS[wall]
    into_room = np.cross(-_UP, right)
    corner = np.array(left_end) + right * left + _UP * (bottom + height) + into_room * out
    return Quad(corner=corner, right=right * width, down=-_UP * height, paint=paint, shines=shines)


def _turned(quads: list[Quad], about: Sequence[float], angle_deg: int) -> list[Quad]:
    """The same piece of furniture turned anticlockwise about the vertical through `about`."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    pivot = np.array([about[0], about[1], 0.0])
    return [
        replace(
            quad,
            corner=turn @ (quad.corner - pivot) + pivot,
            right=turn @ quad.right,
            down=turn @ quad.down,
        )
        for quad in quads
    ]


def _shell() -> list[Quad]:
    east, north, up = ROOM_SIZE_M
    flowers = partial(textures.wallpaper, colour=(222, 212, 178), petals=textures.PETALS)
    blue = partial(textures.wallpaper, colour=(150, 178, 190), petals=textures.SNOW)
    boards = partial(textures.planks, colour=(160, 112, 70))
    white = partial(textures.plaster, colour=(232, 230, 224))
    return [
        _on_wall("n", 0.0, 0.0, east, up, textures.brick, out=0.0),
        _on_wall("e", 0.0, 0.0, north, up, flowers, out=0.0),
        _on_wall("s", 0.0, 0.0, east, up, blue, out=0.0),
        _on_wall("w", 0.0, 0.0, north, up, textures.tiles, out=0.0),
        Quad(corner=_NORTH * north, right=_EAST * east, down=-_NORTH * north, paint=boards),
        Quad(corner=_UP * up, right=_EAST * east, down=_NORTH * north, paint=white),
    ]


def _north_side() -> list[Quad]:
    """Brick: bookcase, desk with monitor and chair, pinboard, cartons in the corner."""
    black = partial(textures.plaster, colour=(40, 40, 44))
    return [
        *_bookcase(0.30, 1.55, 2.0),
        *_table((1.95, 3.30, 0.0), (3.45, 3.96, 0.74), _OAK),
        *_box((2.25, 3.70, 0.82), (2.90, 3.74, 1.21), black, "tsew", s=pictures.screen),
        *_book((3.02, 3.42, 0.74), (3.26, 3.74, 0.83), 14),
        *_book((2.02, 3.40, 0.74), (2.20, 3.64, 0.79), -20),
        *_chair((2.75, 3.02), 12, (150, 62, 58)),
        _on_wall("n", 2.00, 1.42, 1.00, 0.66, pictures.framed(pictures.cork)),
        _on_wall("n", 3.25, 1.30, 0.62, 0.86, partial(pictures.poster, title="MERIDIAN")),
        _on_wall("n", 4.12, 1.52, 0.62, 0.48, pictures.framed(pictures.painting, mat=_WHITE)),
        *_carton((4.25, 3.35, 0.0), (4.85, 3.90, 0.48), 6),
        *_carton((4.35, 3.42, 0.48), (4.79, 3.82, 0.84), -9),
    ]


def _east_side() -> list[Quad]:
    """Flowers: window with curtains, radiator, pictures."""
    curtain = partial(textures.ribs, colour=(150, 62, 66), rib_m=0.07)
    radiator = partial(textures.ribs, colour=_WHITE, rib_m=0.05)
    gilt = pictures.framed(pictures.painting, colour=(190, 160, 90))
    return [
        _on_wall("e", 1.15, 0.95, 1.55, 1.20, pictures.window, shines=True),
        _on_wall("e", 0.92, 0.55, 0.36, 1.75, curtain, out=0.06),
        _on_wall("e", 2.57, 0.55, 0.36, 1.75, curtain, out=0.06),
        *_box((4.84, 1.40, 0.15), (4.98, 2.70, 0.68), radiator, "tnsw"),
        _on_wall("e", 0.16, 1.25, 0.60, 0.80, partial(pictures.poster, title="COBALT")),
        _on_wall("e", 3.14, 1.15, 0.66, 0.92, gilt),
    ]


def _south_side() -> list[Quad]:
    """Blue: door, sofa with cushions, map, pictures."""
    cover = partial(textures.plaid, colour=(104, 128, 108))
    ochre = partial(textures.plaid, colour=(206, 150, 70))
    return [
        _on_wall("s", 3.70, 0.0, 0.92, 2.08, pictures.door),
        *_box((2.22, 0.05, 0.0), (4.28, 0.85, 0.42), cover, "tn"),
        *_box((2.20, 0.02, 0.42), (4.30, 0.24, 0.84), cover, "tnew"),
        *_box((2.05, 0.05, 0.0), (2.22, 0.88, 0.60), cover, "tnew"),
        *_box((4.28, 0.05, 0.0), (4.45, 0.88, 0.60), cover, "tnew"),
        *_turned(_box((2.45, 0.26, 0.42), (2.87, 0.38, 0.80), ochre, "tnew"), (2.66, 0.3), 8),
        *_turned(_box((3.7, 0.28, 0.42), (4.1, 0.4, 0.78), textures.rug, "tnew"), (3.9, 0.3), -14),
        _on_wall("s", 1.28, 1.12, 1.35, 0.86, pictures.framed(pictures.world_map)),
        _on_wall("s", 0.20, 1.20, 0.68, 0.92, partial(pictures.poster, title="TUNDRA")),
        _on_wall("s", 2.95, 1.40, 0.42, 0.56, pictures.framed(pictures.painting, mat=_WHITE)),
        _on_wall("s", 3.06, 2.12, 0.30, 0.30, pictures.clock),
    ]


def _west_side() -> list[Quad]:
    """Tiles: chest of drawers with a cupboard above, posters, a chair."""
    chest = partial(pictures.drawers, colour=(120, 140, 122), rows=4, columns=3)
    cupboard = partial(pictures.drawers, colour=(196, 186, 160), rows=1, columns=3)
    wood = partial(textures.wood, colour=_WALNUT)
    return [
        *_box((0.0, 0.75, 0.0), (0.48, 2.15, 0.92), wood, "tnse", e=chest),
        *_box((0.0, 0.85, 1.62), (0.34, 1.85, 2.22), wood, "nseb", e=cupboard),
        *_carton((0.08, 0.85, 0.92), (0.34, 1.19, 1.16), 0),
        *_book((0.12, 1.40, 0.92), (0.34, 1.72, 1.02), 24),
        *_box((0.10, 1.86, 0.92), (0.26, 2.04, 1.18), textures.rug, "tnse"),
        _on_wall("w", 2.35, 1.10, 0.66, 0.90, partial(pictures.poster, title="JUNIPER")),
        _on_wall("w", 3.16, 1.42, 0.46, 0.36, pictures.framed(pictures.painting)),
        _on_wall("w", 0.12, 1.28, 0.48, 0.66, partial(pictures.poster, title="ECHO")),
        *_chair((0.62, 2.85), 205, (70, 98, 140)),
    ]


def _middle() -> list[Quad]:
    """Rug, low table, lamps."""
    rug = Quad(
        corner=np.array([1.45, 2.60, 0.01]),
        right=2.3 * _EAST,
        down=-1.6 * _NORTH,
        paint=textures.rug,
    )
    low_table = [
        *_table((2.30, 1.60, 0.01), (3.05, 2.05, 0.44), _WALNUT),
        *_book((2.40, 1.70, 0.44), (2.60, 1.98, 0.47), 35),
    ]
    return [
        *_turned([rug], (2.6, 1.8), 7),
        *_turned(low_table, (2.6, 1.8), -18),
        *(quad for lamp in LAMPS_M for quad in _lamp(lamp)),
    ]


def _table(lower: Point, upper: Point, colour: Colour) -> list[Quad]:
    """A table top, 4 cm thick, on two boards."""
    wood = partial(textures.wood, colour=colour)
    x0, y0, z0 = lower
    x1, y1, z1 = upper
    under = z1 - 0.04
    return [
        *_box((x0, y0, under), upper, wood),
        *_box((x0 + 0.10, y0 + 0.05, z0), (x0 + 0.15, y1 - 0.05, under), wood, "nesw"),
        *_box((x1 - 0.15, y0 + 0.05, z0), (x1 - 0.10, y1 - 0.05, under), wood, "nesw"),
    ]


def _chair(at: tuple[float, float], angle_deg: int, cloth: Colour) -> list[Quad]:
    """An upholstered chair that faces north before it is turned."""
    x, y = at
    cover = partial(textures.plaid, colour=cloth)
    seat = _box((x - 0.23, y - 0.21, 0.0), (x + 0.23, y + 0.23, 0.44), cover, "tnew")
    back = _box((x - 0.23, y - 0.27, 0.0), (x + 0.23, y - 0.21, 0.88), cover)
    return _turned([*seat, *back], at, angle_deg)


def _bookcase(left: float, right: float, height: float) -> list[Quad]:
    """Boards and five rows of books against the north wall."""
    back, front, board = ROOM_SIZE_M[1], ROOM_SIZE_M[1] - 0.34, 0.03
    wood = partial(textures.wood, colour=_PINE)
    quads = [
        *_box((left, front, 0), (left + board, back, height), wood, "esw"),
        *_box((right - board, front, 0), (right, back, height), wood, "esw"),
    ]
    floors = np.linspace(0.04, height - board, 6)
    for z in floors:
        faces = "sb" if z > _EYE_M else "st"
        quads += _box((left + board, front, z), (right - board, back, z + board), wood, faces)
    # Each row ends somewhere else and stands at a depth of its own.
    for row, z in enumerate(floors[:-1] + board):
        end = right - board - (right - left) * (0.17 + 0.13 * np.sin(2.1 * row))
        top = z + (floors[1] - floors[0] - board) * (0.84 + 0.1 * np.cos(3.0 * row))
        face = front + 0.03 + 0.06 * (row % 2)
        books = (left + board, face, z), (end, back, top)
        quads += _box(*books, textures.pages, "tse", s=pictures.books)
    return quads


def _book(lower: Point, upper: Point, angle_deg: int) -> list[Quad]:
    """A book or a stack of them, lying."""
    cover = partial(pictures.poster, title="ATLAS")
    return _turned(_box(lower, upper, textures.pages, t=cover), lower, angle_deg)


def _carton(lower: Point, upper: Point, angle_deg: int) -> list[Quad]:
    return _turned(_box(lower, upper, pictures.cardboard), lower, angle_deg)


def _lamp(below: Point) -> list[Quad]:
    """A box that shines, from just above `below` to the ceiling."""
    x, y, z = below
    lower, upper = (x - 0.22, y - 0.22, z + 0.02), (x + 0.22, y + 0.22, ROOM_SIZE_M[2])
    return [replace(quad, shines=True) for quad in _box(lower, upper, textures.glow, "bnesw")]

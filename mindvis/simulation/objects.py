"""The kinds of object that the simulated stimuli show: outlines, the parts they make, and typical colours.

An outline is a float array [k 2] of corner points (x to the right, y down) in the unit box [-1, 1]^2; it is filled.
A part is (shade, outline); parts are painted in order. Shades: "main" carries the object's varied colour and texture,
"second" its other colour, "dark" and "light" are near black and near white.
Hues are in turns (0 red, 1/3 green, 2/3 blue); several per kind, so that colour hints at the kind and does not name it.
"""

from dataclasses import dataclass

import numpy as np

Part = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One class of stimuli: its parts, the hues its main colour is drawn around, and the colour of its second shade.

    `upright`: its largest turn in degrees to either side. `group`: the category that higher visual areas code.
    """

    parts: list[Part]
    hues: tuple[float, ...]
    second: tuple[float, float, float]  # hue, saturation, value
    group: str
    upright: float = 15.0


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Outline through the given corners: [k 2]."""
    return np.array(points, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Axis-aligned rectangle: [4 2]."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, rx: float, ry: float, *, span: tuple[float, float] = (0, 360)) -> np.ndarray:
    """Ellipse, or the segment of one between two angles in degrees (0 = right, 90 = down): [40 2]."""
    angle = np.radians(np.linspace(*span, 40))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Circle: [40 2]."""
    return ellipse(x, y, radius, radius)


def turned(outline: np.ndarray, degrees: float, *, about: tuple[float, float] = (0, 0)) -> np.ndarray:
    """The outline [k 2], turned clockwise about a point."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (outline - about) @ matrix + about


def star(num_points: int, inner: float) -> np.ndarray:
    """Star with its tips on the unit circle and its notches at radius `inner`: [2k 2]."""
    radius = np.where(np.arange(2 * num_points) % 2 == 0, 1.0, inner)
    angle = np.pi * np.arange(2 * num_points) / num_points - np.pi / 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def heart() -> np.ndarray:
    """The well-known heart curve, filling the unit box: [60 2]."""
    t = np.linspace(0, 2 * np.pi, 60)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -(y + 2.5) / 15], axis=1)


def crescent(inner: float, shift: float) -> np.ndarray:
    """Unit disc less a disc of radius `inner` moved `shift` to the right (they must intersect): [80 2]."""
    x = (1 - inner**2 + shift**2) / (2 * shift)  # abscissa of the two horns
    horn = np.degrees(np.arctan2(np.sqrt(1 - x**2), x))
    notch = np.degrees(np.arctan2(np.sqrt(1 - x**2), x - shift))
    outer = ellipse(0, 0, 1, 1, span=(horn, 360 - horn))
    return np.concatenate([outer, ellipse(shift, 0, inner, inner, span=(360 - notch, notch))])


def ring(x: float, y: float, outer: float, inner: float) -> np.ndarray:
    """Annulus as one outline that runs around, crosses over and runs back: [80 2]."""
    return np.concatenate([disc(x, y, outer), disc(x, y, inner)[::-1]])


def stroke(width: float, *points: tuple[float, float]) -> list[np.ndarray]:
    """Thick line with round ends and joints through the given points, as several outlines."""
    corners = np.array(points, dtype=np.float64)
    bars = [_bar(a, b, width / 2) for a, b in zip(corners[:-1], corners[1:], strict=True)]
    return bars + [disc(x, y, width / 2) for x, y in corners]


def _bar(a: np.ndarray, b: np.ndarray, half: float) -> np.ndarray:
    along = (b - a) / np.linalg.norm(b - a)
    across = half * np.array([-along[1], along[0]])
    return np.stack([a + across, b + across, b - across, a - across])


def _all(shade: str, outlines: list[np.ndarray]) -> list[Part]:
    return [(shade, outline) for outline in outlines]


def _both_sides(shade: str, outline: np.ndarray) -> list[Part]:
    return _all(shade, [outline, outline * (-1, 1)])


def _sun() -> list[Part]:
    rays = [turned(polygon((-0.17, -0.62), (0, -1), (0.17, -0.62)), 36 * k) for k in range(10)]
    return [*_all("second", rays), ("main", disc(0, 0, 0.57))]


def _flower() -> list[Part]:
    petals = [turned(ellipse(0, -0.58, 0.3, 0.42), 60 * k) for k in range(6)]
    return [*_all("main", petals), ("second", disc(0, 0, 0.3))]


def _tree() -> list[Part]:
    tiers = [polygon((0, y - 0.62), (w, y), (-w, y)) for y, w in ((0.6, 0.78), (0.15, 0.62), (-0.36, 0.45))]
    return [("second", box(-0.14, 0.5, 0.14, 1)), *_all("main", tiers)]


def _mushroom() -> list[Part]:
    spots = [ellipse(x, y, r, r * 0.9) for x, y, r in ((-0.5, -0.25, 0.15), (0.05, -0.55, 0.18), (0.5, -0.2, 0.14))]
    stem = polygon((-0.24, 0), (0.24, 0), (0.34, 0.95), (-0.34, 0.95))
    return [("light", stem), ("main", ellipse(0, 0.1, 0.98, 1.0, span=(180, 360))), *_all("light", spots)]


def _cactus() -> list[Part]:
    trunk = stroke(0.46, (0, -0.72), (0, 0.6))
    left = stroke(0.26, (-0.7, -0.35), (-0.7, 0.1), (0, 0.1))
    right = stroke(0.26, (0.7, -0.55), (0.7, -0.15), (0, -0.15))
    pot = polygon((-0.5, 0.5), (0.5, 0.5), (0.36, 1), (-0.36, 1))
    return [*_all("main", [*left, *right, *trunk]), ("second", pot)]


def _apple() -> list[Part]:
    leaf = turned(ellipse(0.3, -0.78, 0.32, 0.14), -25, about=(0.3, -0.78))
    halves = _both_sides("main", ellipse(-0.3, 0.2, 0.58, 0.74))
    return [*halves, *_all("dark", stroke(0.11, (0, -0.35), (0.05, -0.92))), ("second", leaf)]


def _ice_cream() -> list[Part]:
    scoops = [disc(-0.33, -0.3, 0.38), disc(0.33, -0.3, 0.38), disc(0, -0.62, 0.38)]
    return [("second", polygon((-0.6, -0.12), (0.6, -0.12), (0, 1))), *_all("main", scoops)]


def _fish() -> list[Part]:
    tail = polygon((0.4, 0), (1, -0.55), (0.86, 0), (1, 0.55))
    fin = polygon((-0.25, -0.4), (0.15, -0.8), (0.35, -0.3))
    body = [("main", tail), ("second", fin), ("main", ellipse(-0.25, 0, 0.75, 0.5))]
    return [*body, ("light", disc(-0.62, -0.12, 0.15)), ("dark", disc(-0.64, -0.12, 0.08))]


def _duck() -> list[Part]:
    body = ellipse(0.15, 0.4, 0.8, 0.5)
    tail = polygon((0.6, 0.3), (1.0, -0.3), (0.95, 0.5))
    beak = polygon((-0.72, -0.6), (-1.05, -0.38), (-0.68, -0.34))
    head = [("main", disc(-0.42, -0.5, 0.42)), ("second", beak), ("dark", disc(-0.52, -0.58, 0.09))]
    return [("main", tail), ("main", body), *head]


def _cat() -> list[Part]:
    ear = polygon((-0.86, -1), (-0.08, -0.55), (-0.8, 0))
    eyes = [*_both_sides("light", ellipse(0.34, 0, 0.2, 0.17)), *_both_sides("dark", ellipse(0.34, 0, 0.08, 0.16))]
    nose = polygon((-0.14, 0.3), (0.14, 0.3), (0, 0.47))
    return [*_both_sides("main", ear), ("main", ellipse(0, 0.15, 0.88, 0.78)), *eyes, ("second", nose)]


def _butterfly() -> list[Part]:
    upper = turned(ellipse(0.5, -0.38, 0.5, 0.36), -35, about=(0.5, -0.38))
    lower = turned(ellipse(0.4, 0.42, 0.4, 0.28), 40, about=(0.4, 0.42))
    spots = _both_sides("second", disc(0.55, -0.42, 0.15))
    feeler = polygon((0, -0.5), (0.28, -0.98), (0.2, -1), (-0.04, -0.55))
    body = [("dark", ellipse(0, 0, 0.1, 0.62)), *_both_sides("dark", feeler)]
    return [*_both_sides("main", upper), *_both_sides("main", lower), *spots, *body]


def _house() -> list[Part]:
    chimney = box(0.42, -0.85, 0.62, -0.2)
    roof = polygon((-1, -0.12), (0, -0.95), (1, -0.12))
    openings = [("dark", box(-0.1, 0.3, 0.3, 0.95)), ("light", box(-0.62, 0.1, -0.28, 0.45))]
    return [("dark", chimney), ("main", box(-0.78, -0.15, 0.78, 0.95)), ("second", roof), *openings]


def _boat() -> list[Part]:
    hull = polygon((-0.95, 0.42), (0.95, 0.42), (0.6, 0.92), (-0.65, 0.92))
    sails = [polygon((0.08, -0.98), (0.08, 0.25), (0.85, 0.25)), polygon((-0.1, -0.7), (-0.1, 0.25), (-0.75, 0.25))]
    return [("dark", box(-0.06, -1, 0.04, 0.45)), *_all("main", sails), ("second", hull)]


def _car() -> list[Part]:
    cabin = polygon((-0.6, -0.1), (-0.38, -0.55), (0.32, -0.55), (0.6, -0.1))
    panes = [polygon((-0.42, -0.1), (-0.3, -0.42), (-0.06, -0.42), (-0.06, -0.1)), box(0.06, -0.42, 0.28, -0.1)]
    wheels = [*_both_sides("dark", disc(0.52, 0.5, 0.26)), *_both_sides("light", disc(0.52, 0.5, 0.11))]
    return [("main", cabin), ("main", box(-1, -0.12, 1, 0.45)), *_all("light", panes), *wheels]


def _plane() -> list[Part]:
    wings = polygon((0, -0.3), (1, 0.25), (1, 0.45), (0, 0.2), (-1, 0.45), (-1, 0.25))
    tail = polygon((0, 0.6), (0.4, 0.85), (0.4, 1), (0, 0.9), (-0.4, 1), (-0.4, 0.85))
    body = [("main", ellipse(0, 0, 0.19, 1)), ("dark", ellipse(0, -0.7, 0.1, 0.13))]
    return [("second", wings), ("second", tail), *body]


def _rocket() -> list[Part]:
    fin = polygon((0.2, 0.15), (0.68, 0.72), (0.2, 0.6))
    flame = polygon((-0.24, 0.6), (0, 1.05), (0.24, 0.6))
    body = np.concatenate([ellipse(0, -0.2, 0.4, 0.8, span=(180, 360)), polygon((0.3, 0.65), (-0.3, 0.65))])
    window = [("dark", disc(0, -0.3, 0.22)), ("light", disc(0, -0.3, 0.15))]
    return [("second", flame), *_both_sides("second", fin), ("main", body), *window]


def _cup() -> list[Part]:
    body = polygon((-0.85, -0.6), (0.5, -0.6), (0.38, 0.85), (-0.73, 0.85))
    return [("main", ring(0.5, 0.05, 0.5, 0.29)), ("main", body), ("dark", ellipse(-0.175, -0.6, 0.675, 0.16))]


def _key() -> list[Part]:
    teeth = [box(0.42, 0, 0.58, 0.42), box(0.76, 0, 0.95, 0.5)]
    return [("main", ring(-0.55, 0, 0.45, 0.2)), ("main", box(-0.15, -0.1, 0.95, 0.1)), *_all("main", teeth)]


def _umbrella() -> list[Part]:
    canopy = ellipse(0, 0.1, 0.98, 1.0, span=(180, 360))
    gores = ellipse(0, 0.1, 0.33, 1.0, span=(180, 360))
    handle = stroke(0.11, (0, 0.1), (0, 0.82), (0.1, 0.93), (0.24, 0.93), (0.32, 0.8))
    return [*_all("dark", handle), ("main", canopy), ("second", gores)]


def _guitar() -> list[Part]:
    body = [("main", disc(0, 0.55, 0.5)), ("main", disc(0, 0.02, 0.37))]
    neck = [("second", box(-0.09, -0.9, 0.09, 0.2)), ("dark", box(-0.17, -1.05, 0.17, -0.76))]
    return [*body, ("dark", disc(0, 0.22, 0.17)), *neck, ("dark", box(-0.22, 0.66, 0.22, 0.76))]


def _glasses() -> list[Part]:
    frames = _both_sides("main", ring(0.52, 0.1, 0.48, 0.32))
    arms = _both_sides("main", polygon((0.9, -0.1), (1.05, -0.5), (0.93, -0.52), (0.76, -0.1)))
    lenses = _both_sides("light", disc(0.52, 0.1, 0.33))
    return [*lenses, *frames, *arms, *_all("main", stroke(0.13, (-0.12, 0.0), (0.12, 0.0)))]


_BROWN, _YELLOW, _ORANGE, _GREEN = (0.07, 0.6, 0.45), (0.14, 0.8, 0.95), (0.08, 0.9, 0.95), (0.33, 0.7, 0.55)
_RED, _BLUE = (0.0, 0.75, 0.75), (0.6, 0.65, 0.75)

KINDS: dict[str, Kind] = {
    "star": Kind([("main", star(5, 0.42))], (0.14, 0.6), _YELLOW, "sky", 30),
    "moon": Kind([("main", crescent(0.82, 0.5) + (0.25, 0))], (0.14, 0.6), _YELLOW, "sky", 30),
    "sun": Kind(_sun(), (0.14, 0.03), _ORANGE, "sky", 30),
    "heart": Kind([("main", heart())], (0.97, 0.8), _RED, "symbol"),
    "flower": Kind(_flower(), (0.9, 0.75), _YELLOW, "plant", 30),
    "tree": Kind(_tree(), (0.36, 0.25), _BROWN, "plant", 8),
    "mushroom": Kind(_mushroom(), (0.0, 0.08), _BROWN, "plant"),
    "cactus": Kind(_cactus(), (0.33, 0.42), _ORANGE, "plant", 8),
    "apple": Kind(_apple(), (0.99, 0.25), _GREEN, "food"),
    "ice cream": Kind(_ice_cream(), (0.92, 0.45), _ORANGE, "food"),
    "fish": Kind(_fish(), (0.55, 0.06), _YELLOW, "animal", 20),
    "duck": Kind(_duck(), (0.15, 0.55), _ORANGE, "animal"),
    "cat": Kind(_cat(), (0.08, 0.62), _RED, "animal"),
    "butterfly": Kind(_butterfly(), (0.65, 0.06), _YELLOW, "animal", 25),
    "house": Kind(_house(), (0.1, 0.55), _RED, "place", 5),
    "boat": Kind(_boat(), (0.5, 0.0), _BROWN, "vehicle", 10),
    "car": Kind(_car(), (0.0, 0.6), _BLUE, "vehicle", 10),
    "plane": Kind(_plane(), (0.58, 0.98), _BLUE, "vehicle", 40),
    "rocket": Kind(_rocket(), (0.5, 0.8), _ORANGE, "vehicle", 30),
    "cup": Kind(_cup(), (0.58, 0.35), _BLUE, "tool"),
    "key": Kind(_key(), (0.12, 0.7), _YELLOW, "tool", 30),
    "umbrella": Kind(_umbrella(), (0.78, 0.95), _YELLOW, "tool"),
    "guitar": Kind(_guitar(), (0.06, 0.0), _BROWN, "tool", 30),
    "glasses": Kind(_glasses(), (0.8, 0.45), _BLUE, "tool"),
}

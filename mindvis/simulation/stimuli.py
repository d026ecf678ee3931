"""Stimuli of the simulated experiment: small pictures of one object each, drawn by program.

Each picture is a function of (seed, class, index) alone. Pictures of one class share the object's kind and differ in
colour, texture, size, place, turn, side and background.
"""

import colorsys
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.simulation.objects import KINDS, Part

CLASS_NAMES: tuple[str, ...] = tuple(KINDS)
IMAGE_SIZE = 64
_SUPERSAMPLE = 4  # edges are averaged over 4 x 4 subpixels
_SHADES = ("background", "main", "second", "dark", "light")
_DARK, _LIGHT = np.array([0.09, 0.08, 0.1]), np.array([0.95, 0.95, 0.92])


def draw_stimulus(seed: int, class_id: int, index: int) -> np.ndarray:
    """Picture `index` of a class: uint8 [64 64 3]. Raises InputError where there is no class of that number."""
    if not 0 <= class_id < len(CLASS_NAMES):
        raise InputError(f"stimulus class {class_id}: there are classes 0 to {len(CLASS_NAMES) - 1}")
    rng = generator((seed, class_id, index), "stimulus")
    kind = KINDS[CLASS_NAMES[class_id]]
    coverage = _rasterise(kind.parts, _draw_pose(rng, kind.upright))  # [h w s]
    main = _hsv(rng.choice(kind.hues) + rng.normal(0, 0.03), rng.uniform(0.6, 0.95), rng.uniform(0.62, 1.0))
    plain = [np.broadcast_to(c, (IMAGE_SIZE, IMAGE_SIZE, 3)) for c in (_hsv(*kind.second), _DARK, _LIGHT)]
    layers = np.stack([_draw_background(rng, main), _draw_texture(rng, main), *plain], axis=2)  # [h w s 3]
    image = np.einsum("hws,hwsc->hwc", coverage, layers)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def draw_stimuli(seed: int, class_ids: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Several pictures: class_ids [n], indices [n] -> uint8 [n 64 64 3]."""
    pairs = zip(np.asarray(class_ids).tolist(), np.asarray(indices).tolist(), strict=True)
    return np.stack([draw_stimulus(seed, class_id, index) for class_id, index in pairs])


def _draw_pose(rng: np.random.Generator, upright: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [2 2] and shift [2] from the unit box to pixels: side, turn, aspect, size and place."""
    side = rng.choice([-1.0, 1.0])
    turn = np.radians(rng.uniform(-upright, upright))
    size = rng.uniform(0.56, 0.92)
    aspect = np.exp(rng.uniform(-0.1, 0.1))
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.diag([side * size * aspect, size / aspect]) @ rotation
    shift = rng.uniform(-1, 1, 2) * (1.0 - size) * 0.9  # a smaller object has more room to move
    half = IMAGE_SIZE / 2
    return matrix * half, (shift + 1) * half


def _rasterise(parts: list[Part], pose: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Share of every pixel that shows each shade: [h w s], summing to 1."""
    matrix, shift = pose
    side = IMAGE_SIZE * _SUPERSAMPLE
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for shade, outline in parts:
        points = (outline @ matrix + shift) * _SUPERSAMPLE
        pen.polygon([tuple(point) for point in points.tolist()], fill=_SHADES.index(shade))
    # one byte a shade: all shades of a pixel are counted in one sum
    ones = (1 << 8 * np.arange(len(_SHADES), dtype=np.uint64))[np.asarray(canvas)]
    counts = ones.reshape(IMAGE_SIZE, _SUPERSAMPLE, IMAGE_SIZE, _SUPERSAMPLE).sum(axis=3).sum(axis=1)  # [h w]
    return (counts[:, :, None] >> 8 * np.arange(len(_SHADES), dtype=np.uint64) & 255) / _SUPERSAMPLE**2


def _draw_background(rng: np.random.Generator, main: np.ndarray) -> np.ndarray:
    """Plain, shaded, split by a horizon or striped: [h w 3]; lighter than a dark object, darker than a light one."""
    bright = main @ (0.3, 0.6, 0.1) < 0.52
    value = rng.uniform(0.74, 0.96) if bright else rng.uniform(0.16, 0.4)
    hue, saturation = rng.uniform(), rng.uniform(0.05, 0.45)
    first = _hsv(hue, saturation, value)
    other = _hsv(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.05, 0.45), value + rng.uniform(-0.14, 0.14))
    x, y = _grid()
    patterns = {
        "plain": np.zeros_like(x),
        "shaded": (y + 1) / 2,
        "horizon": _edge(y - rng.uniform(0.0, 0.6)),
        "stripes": _edge(0.15 * np.sin(_draw_wave(rng, (5, 9)))),
    }
    return _mix(first, other, patterns[rng.choice(list(patterns))])


def _draw_texture(rng: np.random.Generator, main: np.ndarray) -> np.ndarray:
    """Plain, shaded, striped or dotted surface of the object: [h w 3]."""
    x, y = _grid()
    other = np.clip(main * rng.uniform(0.5, 0.75), 0, 1)
    dots = np.sin(_draw_wave(rng, (14, 20), 0)) * np.sin(_draw_wave(rng, (14, 20), 0.25))
    patterns = {
        "plain": np.zeros_like(x),
        "shaded": np.clip((x + y) / 2 + 0.5, 0, 1),
        "stripes": _edge(0.08 * np.sin(_draw_wave(rng, (10, 18)))),
        "dots": _edge(0.1 * (dots - 0.4)),
    }
    return _mix(main, other, patterns[rng.choice(list(patterns))])


def _draw_wave(rng: np.random.Generator, frequency: tuple[float, float], turn: float | None = None) -> np.ndarray:
    """Phase of a plane wave over the picture: [h w]. `turn`: its direction in turns, else drawn."""
    x, y = _grid()
    direction = 2 * np.pi * (rng.uniform() if turn is None else turn)
    phase = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*frequency) * (x * np.cos(direction) + y * np.sin(direction)) + phase


def _edge(signed: np.ndarray) -> np.ndarray:
    """0 to 1 across zero within about two pixels, so that patterns are as smooth as outlines."""
    return np.clip(signed * IMAGE_SIZE / 4 + 0.5, 0, 1)


def _mix(first: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + share[..., None] * (other - first)


@cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    return x, y


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, float(np.clip(value, 0, 1))))

"""Closed outlines from which the simulated stimuli are built.

An outline is a float array [k 2] of corner points (x to the right, y down) in the unit box [-1, 1]^2; it is filled.
"""

import numpy as np


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


def mirrored(outline: np.ndarray) -> np.ndarray:
    """The outline [k 2], left and right exchanged."""
    return outline * (-1, 1)


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

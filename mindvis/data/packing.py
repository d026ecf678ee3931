"""Arrays as text, for settings in YAML, JSON and checkpoints: thousands of numbers in one line."""

import base64

import numpy as np


def array_to_text(array: np.ndarray) -> str:
    """Numbers of an array as base64, little-endian: thousands of them in one line."""
    kind = "<f4" if array.dtype.kind == "f" else "<i4"
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode()


def text_to_array(text: str | None, kind: str) -> np.ndarray | None:
    return None if text is None else np.frombuffer(base64.b64decode(text, validate=True), kind).copy()

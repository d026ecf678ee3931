"""Numpy arrays, scalars and dtypes out of a pickle."""

import re

import numpy as np

from mindvis.common.safe_pickle.rules import Unknown, brief, check_shape, refuse

PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|O8?|[SU]\d{1,9})")


def build_array(array: np.ndarray, state: object) -> None:
    """Give an empty array its shape, dtype and content: state (version, shape, dtype, is_fortran, bytes or list)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        refuse("an array without shape, dtype and content")
    shape, dtype, is_fortran, content = state[-4:]
    content = content.encode("latin1") if isinstance(content, str) else content  # written by Python 2
    count = check_shape(shape)
    if not isinstance(dtype, np.dtype):
        refuse("an array without a dtype")
    kind, size = (list, count) if dtype.hasobject else (bytes, count * dtype.itemsize)
    if not isinstance(content, kind) or len(content) != size:
        refuse(f"an array of shape {shape}, dtype {dtype}, whose content has another size")
    array.__setstate__((1, shape, dtype, bool(is_fortran), content))


def build_dtype(dtype: np.dtype, state: object) -> None:
    """Give a dtype its byte order: state (version, order, None, None, None, size, alignment, flags)."""
    if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
        refuse("a dtype with fields or metadata")
    if state[1] == ">" and dtype.kind in "iufc":
        dtype.__setstate__((3, ">", None, None, None, -1, -1, 0))
    elif state[1] == ">":
        refuse(f"big-endian {dtype}")


def _empty_array(kind: object, shape: object, code: object) -> np.ndarray:
    if kind != Unknown("numpy.ndarray"):
        refuse(f"an array of the kind {brief(kind)}")
    return np.ndarray(0, np.int8)


def _dtype(code: str, align: object = False, copy: object = True) -> np.dtype:
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code):
        refuse(f"the dtype {brief(code)}")
    return np.dtype(code, copy=True)  # a copy, because BUILD changes it in place


def _scalar(dtype: np.dtype, content: bytes | str = b"") -> np.generic:
    array = np.ndarray(0, np.int8)
    build_array(array, ((), dtype, False, content))
    return array[()]


def _from_buffer(content: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    array = np.ndarray(0, np.int8)
    build_array(array, (shape, dtype, order == "F", content))
    return array


ADMITTED = {
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,  # protocol 5
    "numpy.dtype": _dtype,
}

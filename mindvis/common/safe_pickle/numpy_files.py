"""Object arrays written by `numpy.save`."""

import mmap
from pathlib import Path

import numpy as np

from mindvis.common.safe_pickle.arrays import ADMITTED
from mindvis.common.safe_pickle.rules import reading, refuse
from mindvis.common.safe_pickle.unpickler import SafeUnpickler


def load_object_npy(path: str | Path) -> object:
    """The object in a .npy file: an object array, or what it holds where it has no axes (a saved dict).

    Raises InputError where the file is no .npy file, is cut short or its pickle does more than hold data.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        _, _, dtype = header[version](file)
        if not dtype.hasobject:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        # mapped, so that a false size inside the pickle reads to the end of the file and allocates nothing
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            content.seek(file.tell())
            array = SafeUnpickler(content, ADMITTED).load()
        if not isinstance(array, np.ndarray):
            refuse(f"a {type(array).__name__} where an array is announced")
        return array[()]

"""Files of arrays read without trusting the sizes they declare."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError

# Recorded signals and photographs shrink two- or threefold. What grows a hundredfold and is large is no recording.
MAX_EXPANSION = 100
SMALL_BYTES = 64 * 2**20
READ_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an .npz file; raises InputError for a file that is damaged, pickled or grows out of proportion."""
    try:
        _refuse_bombs(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (*READ_ERRORS, MemoryError) as error:
        raise InputError(f"{path}: not a readable .npz file ({one_line(error)})") from None


def check_expansion(path: Path, name: str, *, stored: int, declared: int) -> None:
    """Refuse an array that is kept in few bytes and declares very many (a zip or HDF5 bomb)."""
    if declared > SMALL_BYTES and declared > MAX_EXPANSION * max(stored, 1):
        raise InputError(
            f"{path}: {name} declares {declared} bytes and is kept in {stored}: "
            f"damaged or malicious (at most {MAX_EXPANSION} times the stored size is read)"
        )


def one_line(error: BaseException) -> str:
    """The message of any exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def need_folder(path: Path, what: str) -> Path:
    """`path`, or InputError when it is no folder; `what` says what the folder should hold."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; needs the folder of {what}")
    return path


def _refuse_bombs(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            check_expansion(path, member.filename, stored=member.compress_size, declared=member.file_size)
            with archive.open(member) as stream:
                _check_header(path, member, stream)


def _check_header(path: Path, member: zipfile.ZipInfo, stream) -> None:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not dtype.hasobject and declared > member.file_size:
        raise InputError(f"{path}: {member.filename} declares {declared} bytes, the file holds {member.file_size}")

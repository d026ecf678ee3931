"""Rows computed once and mapped from then on, so that memory and start-up stay flat in the number of rows."""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import TEMPORARY, digest
from mindvis.common.progress import Progress
from mindvis.common.texts import read_record
from mindvis.data.arrays import load_npy
from mindvis.data.rows import MappedArray
from mindvis.data.voxels import ABSURD

log = logging.getLogger(__name__)

FORMAT = 2  # raise when what is computed changes, so that older caches are made anew
WHOLE = "rows.npy"
PART_BYTES = 2**26
MAX_ROWS, MIN_ROWS = 1000, 16  # of a part: few enough that little is lost when a conversion is stopped

Opened = tuple[list[MappedArray], dict]  # the mapped files in order, and the facts


class RowCache:
    """A folder `<key>/` with `rows.npy`, or parts `rows-<first row>.npy`, float32 [n v], and, last, `facts.json`.

    The key is a hash of the sources' names, sizes and times of change and of the settings, so changed sources are
    noticed. `cache_dir` is where it lies; unless given, `beside`, or the user's cache folder where that is read-only.
    """

    def __init__(self, sources: Sequence[Path], settings: dict, cache_dir: str | Path | None, beside: Path):
        stats = [(*path.parts[-2:], path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        self.key = digest([json.dumps([FORMAT, stats, settings])])[:24]
        self.places = [beside, *_user_cache()] if cache_dir is None else [Path(cache_dir)]

    def open(self) -> Opened | None:
        """The rows, or None where they are not complete; a damaged folder is removed."""
        for folder in (place / self.key for place in self.places):
            if not (folder / "facts.json").is_file():
                continue
            try:
                facts = read_record(folder / "facts.json")
                names = [_part(start) for start in facts["starts"]] if "starts" in facts else [WHOLE]
                return [MappedArray.of(load_npy(folder / name, mmap=True)) for name in names], facts
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s: a damaged cache, made again (%s)", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def build(self, shape: tuple[int, int], blocks: Iterable[np.ndarray], facts: dict[str, Any]) -> Opened:
        """Write rows [n v] block by block into one file, which appears whole or not at all. Raises InputError."""
        partial = self._partial_folder()
        folder = partial.parent / self.key
        try:
            with (partial / WHOLE).open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype="<f4").data)
            (partial / "facts.json").write_text(json.dumps(facts))
            try:
                partial.rename(folder)
            except OSError:
                if not (folder / "facts.json").is_file():  # else another process was faster, with the same rows
                    raise
        except OSError as error:
            raise _no_room(partial.parent, shape, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        opened = self.open()
        assert opened is not None, "it was published just now"
        return opened

    def build_parts(
        self,
        shape: tuple[int, int],
        make: Callable[[int, int], np.ndarray],
        facts: dict[str, Any],
        *,
        num_workers: int,
        label: str,
    ) -> Opened:
        """Write rows [n v], which `make(from row, to row)` gives, into several files, `num_workers` at a time.

        Files that an earlier process has written are kept. The facts gain `bad`: the voxels that are NaN, infinite or
        absurd in some row. Raises InputError.
        """
        num_rows, num_voxels = shape
        step = min(max(PART_BYTES // (4 * num_voxels), MIN_ROWS), MAX_ROWS)
        starts = list(range(0, num_rows, step))
        folder = self._begun_folder()

        def write(start: int) -> np.ndarray:
            path = folder / _part(start)
            if path.is_file():
                rows = load_npy(path)
            else:
                rows = np.ascontiguousarray(make(start, min(start + step, num_rows)), np.float32)
                _write(path, lambda file: np.save(file, rows))
            # Never true of NaN, which the lowest value of a voxel is where any is.
            return ~((rows.min(axis=0) >= -ABSURD) & (rows.max(axis=0) <= ABSURD))

        bad = np.zeros(num_voxels, bool)
        try:
            with ThreadPoolExecutor(max(1, num_workers)) as pool:
                for found in Progress(pool.map(write, starts), total=len(starts), desc=label):
                    bad |= found
            facts = facts | {"starts": starts, "bad": np.flatnonzero(bad).tolist()}
            _write(folder / "facts.json", lambda file: file.write(json.dumps(facts).encode()))
        except OSError as error:
            raise _no_room(folder, shape, error) from error
        opened = self.open()
        assert opened is not None, "it was completed just now"
        return opened

    def _partial_folder(self) -> Path:
        """A new folder in the first place that can be written. Raises InputError when there is none."""
        for place in filter(_may_write, self.places):
            try:
                place.mkdir(parents=True, exist_ok=True)
                return Path(tempfile.mkdtemp(prefix=f"{self.key}.partial-", dir=place))
            except OSError:
                continue
        raise InputError(f"no cache can be written in {' or '.join(map(str, self.places))}; set cache_dir")

    def _begun_folder(self) -> Path:
        """The folder of the key that was begun, else a new one in the first place that can be written."""
        for folder in (place / self.key for place in self.places):
            if folder.is_dir():
                return folder
        partial = self._partial_folder()
        folder = partial.parent / self.key
        try:
            partial.rename(folder)
        except OSError:
            partial.rmdir()  # another process was faster
        return folder


def _part(start: int) -> str:
    return f"rows-{start:07d}.npy"


def _write(path: Path, write: Callable[[Any], object]) -> None:
    """A file under a name of this process's own, then renamed: two that convert the same do not disturb each other."""
    handle, temporary = tempfile.mkstemp(suffix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _no_room(folder: Path, shape: tuple[int, int], error: OSError) -> InputError:
    return InputError(f"{folder}: cannot write a cache of {math.prod(shape) * 4 / 1e9:.2f} GB ({error})")


def _user_cache() -> list[Path]:
    """The user's cache folder; none for a user without a home."""
    try:
        return [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindvis"]
    except RuntimeError:
        return []


def _may_write(place: Path) -> bool:
    """Whether the folder, or the nearest one above it, is marked writable (root can write regardless: not ours to)."""
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    return bool(existing.stat().st_mode & 0o222) and os.access(existing, os.W_OK)

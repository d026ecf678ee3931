"""Rows computed once and mapped from then on: in one file, or from a file too large to be read whole in several.

Memory and start-up stay flat in the number of rows and of files.
"""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import TEMPORARY, digest
from mindvis.common.progress import Progress
from mindvis.data.arrays import load_npy
from mindvis.data.rows import MappedArray
from mindvis.data.voxels import ABSURD

log = logging.getLogger(__name__)

FORMAT = 2  # raise when what is computed changes, so that older caches are made anew
SHARD_BYTES = 2**26
MAX_ROWS, MIN_ROWS = 1000, 16  # of a file: few enough that little is lost when it is stopped

Build = Callable[[], tuple[tuple[int, int], Iterator[np.ndarray], dict]]  # shape, blocks of rows, facts
Opened = TypeVar("Opened")
Make = Callable[[int, int], np.ndarray]  # (from row, to row) -> float32 [n v]


class RowCache:
    """A folder `<key>/` holding `rows.npy` float32 [n v] and `facts.json`, which appears whole or not at all.

    The key is a hash of the sources' names, sizes and times of change and of the settings, so changed sources are
    noticed. `cache_dir` is where it lies; unless given, `beside`, or the user's cache folder where that is read-only.
    """

    def __init__(self, sources: Sequence[Path], settings: dict, cache_dir: str | Path | None, beside: Path):
        stats = [(*path.parts[-2:], path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        self.key = digest([json.dumps([FORMAT, stats, settings])])[:24]
        self.places = [beside, *_user_cache()] if cache_dir is None else [Path(cache_dir)]

    def open(self) -> tuple[MappedArray, dict] | None:
        """Mapped rows and facts, or None when nothing was built yet."""
        return self._opened(lambda folder, _: MappedArray.of(load_npy(folder / "rows.npy", mmap=True)))

    def _opened(self, rows_of: Callable[[Path, dict], Opened]) -> tuple[Opened, dict] | None:
        """What `rows_of` opens in the first folder that is complete, and its facts; a damaged folder is removed."""
        for folder in (place / self.key for place in self.places):
            if (folder / "facts.json").is_file():
                try:
                    facts = json.loads((folder / "facts.json").read_text())
                    return rows_of(folder, facts), facts
                except (ValueError, KeyError) as error:
                    log.warning("%s: a damaged cache, made again (%s)", folder, error)
                    shutil.rmtree(folder, ignore_errors=True)
        return None

    def build(self, build: Build) -> tuple[MappedArray, dict]:
        """Write what `build` gives, block by block, and open it. Raises InputError when no place can be written."""
        shape, blocks, facts = build()
        partial = self._partial_folder()
        try:
            with (partial / "rows.npy").open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype="<f4").data)
            (partial / "facts.json").write_text(json.dumps(facts))
            self._publish(partial)
        except OSError as error:
            raise _no_room(partial.parent, shape, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        opened = self.open()
        assert opened is not None  # it was published just now
        return opened

    def _partial_folder(self) -> Path:
        for place in filter(_may_write, self.places):
            try:
                place.mkdir(parents=True, exist_ok=True)
                return Path(tempfile.mkdtemp(prefix=f"{self.key}.partial-", dir=place))
            except OSError:
                continue
        raise InputError(f"no cache can be written in {' or '.join(map(str, self.places))}; set cache_dir")

    def _publish(self, partial: Path) -> None:
        target = partial.parent / self.key
        try:
            partial.rename(target)
        except OSError:
            if not (target / "facts.json").is_file():  # else another process was faster, with the same rows
                raise


class ShardCache(RowCache):
    """A folder `<key>/` with `facts.json` and `rows-<first>.npy` float32 [n v] ...; the facts are written last."""

    def open_shards(self) -> tuple[list[MappedArray], dict] | None:
        """Mapped files in order and the facts, or None where they are not complete."""

        def rows_of(folder: Path, facts: dict) -> list[MappedArray]:
            return [MappedArray.of(load_npy(_path(folder, start), mmap=True)) for start in facts["starts"]]

        return self._opened(rows_of)

    def build_shards(
        self, shape: tuple[int, int], make: Make, facts: dict[str, Any], *, num_workers: int, label: str
    ) -> tuple[list[MappedArray], dict]:
        """Write rows [n v] as `make` gives them, `num_workers` files at a time, and open them.

        The facts gain `bad`: the voxels that are NaN, infinite or absurd in some row. Raises InputError.
        """
        num_rows, num_voxels = shape
        step = min(max(SHARD_BYTES // (4 * num_voxels), MIN_ROWS), MAX_ROWS)
        starts = list(range(0, num_rows, step))
        folder = self._folder(shape)

        def write(start: int) -> np.ndarray:
            return _bad(_written(_path(folder, start), lambda: make(start, min(start + step, num_rows))))

        bad = np.zeros(num_voxels, bool)
        try:
            with ThreadPoolExecutor(max(1, num_workers)) as pool, Progress(total=len(starts), desc=label) as bar:
                for first in range(0, len(starts), num_workers):
                    for found in pool.map(write, starts[first : first + num_workers]):
                        bad |= found
                        bar.update()
            facts = facts | {"starts": starts, "bad": np.flatnonzero(bad).tolist()}
            _write(folder / "facts.json", lambda file: file.write(json.dumps(facts).encode()))
        except OSError as error:
            raise _no_room(folder, shape, error) from error
        opened = self.open_shards()
        assert opened is not None  # it was completed just now
        return opened

    def _folder(self, shape: tuple[int, int]) -> Path:
        """The folder that was begun, else a new one in the first place that can be written."""
        begun = [place / self.key for place in self.places if (place / self.key).is_dir()]
        if begun:
            return begun[0]
        partial = self._partial_folder()
        folder = partial.parent / self.key
        try:
            partial.rename(folder)
        except OSError:
            partial.rmdir()  # another process was faster
        return folder


def _path(folder: Path, start: int) -> Path:
    return folder / f"rows-{start:07d}.npy"


def _written(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The rows of a file that is there, else those that `make` gives, which are then there."""
    if path.is_file():
        return load_npy(path)
    rows = np.ascontiguousarray(make(), np.float32)
    _write(path, lambda file: np.save(file, rows))
    return rows


def _bad(rows: np.ndarray) -> np.ndarray:
    # Never true of NaN, which the lowest value of a voxel is where any is.
    return ~((rows.min(axis=0) >= -ABSURD) & (rows.max(axis=0) <= ABSURD))


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

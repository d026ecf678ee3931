"""Rows computed once from many files and mapped ever after: memory and start-up stay flat in the number of files."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import load_npy
from mindvis.data.rows import MappedArray

FORMAT = 1  # raise when what is computed changes, so that older caches are made anew

Build = Callable[[], tuple[tuple[int, int], Iterator[np.ndarray], dict]]  # shape, blocks of rows, facts


class RowCache:
    """A folder `<key>/` holding `rows.npy` float32 [n v] and `facts.json`, which appears whole or not at all.

    The key is a hash of the sources' names, sizes and times of change and of the settings, so changed sources are
    noticed. `cache_dir` is where it lies; unless given, `beside`, or the user's cache folder where that is read-only.
    """

    def __init__(self, sources: Sequence[Path], settings: dict, cache_dir: str | Path | None, beside: Path):
        stats = [(*path.parts[-2:], path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        self.key = hashlib.sha256(json.dumps([FORMAT, stats, settings]).encode()).hexdigest()[:24]
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindvis"
        self.places = [beside, user] if cache_dir is None else [Path(cache_dir)]

    def open(self) -> tuple[MappedArray, dict] | None:
        """Mapped rows and facts, or None when nothing was built yet."""
        for place in self.places:
            folder = place / self.key
            if (folder / "facts.json").is_file():
                facts = json.loads((folder / "facts.json").read_text())
                return MappedArray.of(load_npy(folder / "rows.npy", mmap=True)), facts
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
            gigabytes = math.prod(shape) * 4 / 1e9
            raise InputError(f"{partial.parent}: cannot write a cache of {gigabytes:.2f} GB ({error})") from error
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


def _may_write(place: Path) -> bool:
    """Whether the folder, or the nearest one above it, is marked writable (root can write regardless: not ours to)."""
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    return bool(existing.stat().st_mode & 0o222) and os.access(existing, os.W_OK)

"""Offline files of wandb read back: records of protobuf in LevelDB's log format."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEAD, FILE_HEAD = 32768, 7, 7
WHOLE, LAST = 1, 4  # kinds of pieces after which a record is complete


def written_records(folder: Path, patience_seconds: float = 30.0) -> list[tuple]:
    """Kind and record of everything in a run's file, which wandb may still be writing on a busy machine."""
    end = time.monotonic() + patience_seconds
    while True:
        records = read_records(next(folder.glob("*.wandb")))
        found = [(record.WhichOneof("record_type"), record) for record in records]
        if any(kind == "exit" for kind, _ in found) or time.monotonic() > end:
            return found
        time.sleep(0.2)


class OfflineRun:
    """What one offline run holds: `run` (project, group, job type ...), `config`, `history`, `artifacts`, its files."""

    def __init__(self, folder: Path):
        self.files = folder / "files"
        found = written_records(folder)
        self.run = next(record.run for kind, record in found if kind == "run")
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        self.history = [_point(record) for kind, record in found if kind == "history"]
        self.artifacts = [record.artifact for kind, record in found if kind == "artifact"]

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of every point of a curve."""
        return [(point["step"], point[name]) for point in self.history if name in point]

    def pictures(self, name: str) -> list[Path]:
        """Files of the pictures logged under a name."""
        return [self.files / file for point in self.history if name in point for file in point[name]["filenames"]]

    def table(self, name: str) -> tuple[list[dict], dict[str, Path]]:
        """Rows of a table by column, and the files of its pictures by the path that the rows name."""
        artifact = next(a for a in self.artifacts if any(i.path == f"{name}.table.json" for i in a.manifest.contents))
        files = {item.path: Path(item.local_path) for item in artifact.manifest.contents}
        table = json.loads(files[f"{name}.table.json"].read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]], files


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The offline runs in `folder`/wandb, oldest first."""
    return [OfflineRun(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def read_records(path: Path) -> Iterator[Record]:
    """Every record of a .wandb file, put together from its pieces."""
    data, position, whole = path.read_bytes(), FILE_HEAD, b""
    while position + HEAD <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEAD:  # the tail of a block too short for a head is padding
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + HEAD : position + HEAD + size]
        position += HEAD + size
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def _point(record: Record) -> dict:
    """One point of the history as nested dicts."""
    point: dict = {}
    for item in record.history.item:
        *parents, last = item.nested_key or [item.key]
        place = point
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return point

"""Time the work of a stage beside a plain version of it, in the same run, and print a table (and JSON).

Example:
  python scripts/benchmark.py num_threads=2 output=runs/benchmark.json
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from mindvis.benchmarks.evaluation import benchmark_evaluation
from mindvis.cli import entry_point, read_settings
from mindvis.config import BenchmarkConfig
from mindvis.training.storage import write_json


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(BenchmarkConfig, __doc__, argv)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    names = ("num_stimuli", "num_samples", "size", "repetitions", "seed")
    rows = []
    for row in benchmark_evaluation(**{name: getattr(config, name) for name in names}):
        rows.append(asdict(row) | {"ratio": row.ratio})
        seconds = f"{row.ours.median:.3g} s ({row.ours.fastest:.3g} to {row.ours.slowest:.3g})"
        beside = f", plain {row.plain.median:.3g} s: {row.ratio:.1f} x faster" if row.plain else ""
        print(f"{row.work}: {seconds}{beside}", flush=True)
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(config.output), json.loads(json.dumps({"threads": torch.get_num_threads(), "rows": rows})))


if __name__ == "__main__":
    raise SystemExit(main())

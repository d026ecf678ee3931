"""Time the work of each stage beside a plain version of it, in the same run: a table, and JSON and plots in a folder.

Examples:
  python scripts/benchmark.py device=cuda output=runs/benchmark
  python scripts/benchmark.py num_threads=2 output=runs/benchmark
  python scripts/benchmark.py parts=[stage_a,stage_b,sampling,evaluation,data] num_threads=2 output=runs/benchmark
  python scripts/benchmark.py parts=[sampling] ldm=demo num_voxels=256 model.embed_dim=64 model.depth=2 num_pictures=4
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mindvis.common.files import write_json
from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import BenchmarkConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(BenchmarkConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    import torch

    from mindvis.benchmarks.growth import benchmark_growth
    from mindvis.benchmarks.solvers import benchmark_solvers
    from mindvis.benchmarks.table import benchmark, heading, row_line
    from mindvis.benchmarks.through_fit import benchmark_fit
    from mindvis.benchmarks.works import Limit, check, complete
    from mindvis.common.devices import describe_device, use_threads

    config = complete(config)
    measured: dict = {}  # of the bare steps, by variant
    limit = Limit(config.max_seconds)
    through_fit = partial(benchmark_fit, measured=measured, limit=limit)
    studies = {"solvers": benchmark_solvers, "growth": benchmark_growth}
    studies |= {"fit": through_fit, "fit_stage_b": partial(through_fit, stage="stage_b")}
    check(config, tuple(studies))
    use_threads(config.num_threads)
    rows: list[dict] = []
    for row in benchmark(config, limit):
        print(row_line(row) if rows else "\n".join([*heading(), row_line(row)]), flush=True)
        measured[row.variant] = row.ours
        rows.append(row.as_json())
    if config.output and rows:
        device = describe_device(torch.device(config.device))
        content = {**device, "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        write_json(Path(config.output) / "benchmark.json", json.loads(json.dumps(content)))
    for name in (part for part in config.parts if part in studies):
        print("\n".join(studies[name](config)), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

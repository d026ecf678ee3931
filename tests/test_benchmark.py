"""scripts/benchmark.py: a table, and the same as JSON. Speed itself decides no test."""

import json

from script_runner import run


def test_table_and_json(tmp_path):
    """Each work is timed; where there is a plain version, the ratio of the medians is given."""
    sizes = ["num_stimuli=3", "num_samples=2", "size=32", "repetitions=2", f"output={tmp_path / 'b.json'}"]
    outcome = run("benchmark", *sizes)
    assert outcome.status == 0
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert len(outcome.out.strip().splitlines()) == len(rows) == 2
    ssim, n_way = rows
    assert ssim["ratio"] == ssim["plain"]["median"] / ssim["ours"]["median"]
    assert n_way["plain"] is None and n_way["ours"]["fastest"] <= n_way["ours"]["slowest"]

"""scripts/demo_summary.py: what it says of a report that is not the demo's."""

from script_runner import run


def test_a_summary_needs_the_scores_of_the_demo(tmp_path):
    """Of another report the line says what it lacks."""
    (tmp_path / "report.json").write_text('{"schema": "mindvis.report/1", "figures": []}')
    outcome = run("demo_summary", f"decoded={tmp_path}", "num_ways=[10]")
    assert outcome.status == 2 and "needed: 10-way, pcc and ssim scores" in outcome.err
    assert outcome.err.count("\n") == 1

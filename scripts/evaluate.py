"""Score decoded pictures: n-way identification, similarity, FID, consistency, controls; or compare runs.

Examples:
  python scripts/evaluate.py --config configs/evaluate_god.yaml decoded=runs/finetune_ldm_god/decoded
  python scripts/evaluate.py decoded=my/pictures images=my/stimuli classifier=efficientnet_lite0
  python scripts/evaluate.py compare runs/a/decoded runs/b/decoded     # compare --help says more

Writes report.json, report.csv, report.html and grid_sorted.png beside the pictures, or into `output`. `compare` reads
the reports of two or more evaluations and gives paired bootstrap intervals of their differences from the first.

The pictures are shared, in batches, by the processes that torchrun or SLURM starts; the report is that of one process:
  torchrun --nproc-per-node=2 scripts/evaluate.py --config configs/evaluate_god.yaml
"""

import sys
from collections.abc import Sequence

from mindvis.config.command_line import Parser, entry_point, read_settings
from mindvis.config.decoding import EvaluateConfig

COMPARE = """Compare evaluations of the same stimuli: paired bootstrap intervals of their differences from the first.

example:
  python scripts/evaluate.py compare runs/a/decoded runs/b/decoded

A line a figure and run: its value, that of the first run, the difference with its 95 % interval, p and the number of
stimuli, which are matched by their id. It is printed; nothing is written.
"""


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["compare"]:
        parser = Parser(COMPARE, prog="evaluate.py compare")
        parser.add_argument("reports", nargs="+", help="two or more folders that were evaluated, or their report.json")
        reports = parser.parse_args(arguments[1:]).reports
        from mindvis.evaluation import compare_reports, comparison_text

        print(comparison_text(compare_reports(reports)))
        return
    config = read_settings(EvaluateConfig, __doc__, arguments)
    # imported once the settings are right: torch takes seconds
    from mindvis.common.devices import use_threads
    from mindvis.evaluation import text_table
    from mindvis.evaluation.open import evaluate

    use_threads(config.num_threads)
    done = evaluate(config)
    if done is not None:
        report, page = done
        print(text_table(report))
        print(f"report: {page}")


if __name__ == "__main__":
    raise SystemExit(main())

"""Memory of training at the published sizes: parameters, activations, optimiser, per stage and setting.

Examples:
  python scripts/estimate_memory.py                          # the table of docs/speed.md, traced without computing
  python scripts/estimate_memory.py --measure A:4 B:1        # also train two steps on this CPU and compare
"""

from collections.abc import Sequence

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point

# stage, samples a device: the published 8 x 62 of Stage A, and GOD and BOLD5000 in Stage B
BATCHES = (("A", 62), ("B", 5), ("B", 25))
COLUMNS = ("stage", "batch", "precision", "checkpointing", "parameters (tuned), M")
COLUMNS += ("weights, GB", "gradients", "AdamW", "activations", "sum")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--measure", nargs="+", default=[], metavar="STAGE:BATCH", help="train on this CPU as well")
    measured = [parse(item) for item in parser.parse_args(argv).measure]
    # imported once the options are right: torch takes seconds
    from mindvis.benchmarks.memory_estimate import GB, estimate, measure

    print(table_row(COLUMNS))
    print(table_row(["---"] * len(COLUMNS)))
    for stage, batch in BATCHES:
        for precision in ("32-true", "bf16-mixed"):
            for checkpointing in (False, True):
                cost = estimate(stage, batch, precision=precision, checkpointing=checkpointing)
                print(row([stage, str(batch), precision, "on" if checkpointing else "off"], cost))
    for stage, batch in measured:
        expected, found = estimate(stage, batch).total, measure(stage, batch)
        ratio = f"{found / expected:.2f}"
        print(f"stage {stage}, batch {batch}: estimated {expected / GB:.2f} GB, measured {found / GB:.2f} GB ({ratio})")


def row(setting: list[str], cost) -> str:
    """One line of the table, in GB."""
    counts = f"{cost.num_parameters / 1e6:.1f} ({cost.num_tuned / 1e6:.1f})"
    parts = (cost.weights, cost.gradients, cost.moments, cost.activations, cost.total)
    return table_row([*setting, counts, *(f"{part / 1e9:.2f}" for part in parts)])


def table_row(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def parse(item: str) -> tuple[str, int]:
    stage, _, batch = item.partition(":")
    if stage not in ("A", "B") or not batch.isdigit() or int(batch) < 1:
        raise InputError(f"--measure {item}: needed: A:BATCH or B:BATCH, such as B:1")
    return stage, int(batch)


if __name__ == "__main__":
    raise SystemExit(main())

"""Memory of training at the published sizes: parameters, activations, optimiser, per stage and setting.

Examples:
  python scripts/estimate_memory.py                          # the table of docs/speed.md, traced without computing
  python scripts/estimate_memory.py --measure A:4 B:1        # also train two steps on this CPU and compare
  python scripts/estimate_memory.py --ldm pretrains/stable-diffusion-v1-5    # Stage B alone, with another LDM
"""

from collections.abc import Sequence
from itertools import product

from mindvis.common.errors import InputError
from mindvis.config.command_line import Parser, entry_point

BATCHES = (("A", 62), ("B", 5), ("B", 25))  # stage, samples a device: the published 8 x 62; GOD and BOLD5000
HEAD = "| stage | batch | precision | checkpointing | parameters (tuned), M | weights, GB | gradients | AdamW "
HEAD += "| activations | sum |"


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--measure", nargs="+", default=[], metavar="STAGE:BATCH", help="train on this CPU as well")
    parser.add_argument("--ldm", help="as of finetune_ldm: model.ckpt, diffusers folder or demo; default: published")
    arguments = parser.parse_args(argv)
    measured = [parse(item) for item in arguments.measure]
    # imported once the options are right: torch takes seconds
    from mindvis.benchmarks.memory_estimate import GB, estimate, measure

    print(HEAD + "\n" + table_row(["---"] * 10))
    for stage, batch in [each for each in BATCHES if each[0] == "B" or not arguments.ldm]:
        for precision, checkpointing in product(("32-true", "bf16-mixed"), (False, True)):
            cost = estimate(stage, batch, precision=precision, checkpointing=checkpointing, ldm=arguments.ldm)
            print(row([stage, str(batch), precision, "on" if checkpointing else "off"], cost))
    for stage, batch in measured:
        expected, found = estimate(stage, batch, ldm=arguments.ldm), measure(stage, batch, ldm=arguments.ldm)
        sums = f"estimated {expected.total / GB:.2f} GB, measured {found / GB:.2f} GB"
        print(f"stage {stage}, batch {batch}: {sums} ({found / expected.total:.2f})")


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

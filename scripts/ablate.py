"""Ablation tables of the paper, row by row: embed_dim, mask_ratio, patch_size, depth, pretraining, focus, padding,
pretext, resting (Stage A); condition, crop, ldm, selection (Stage B); and tables of our own, objective, new_subject,
hard, recipe. Several with commas between.

Examples:
  python scripts/ablate.py embed_dim                               # GOD subject 3, as in the paper
  python scripts/ablate.py mask_ratio scale=demo seeds=[1,2,3]     # scaled down, on the simulated cortex
  OMP_NUM_THREADS=1 python scripts/ablate.py condition,crop scale=demo seeds=[1,2,3] jobs=2
  python scripts/ablate.py crop scale=demo settings.finetune_ldm.trainer.max_epochs=6 dry_run=true

Writes <root>/<table>.md, .csv and .json after every row. Rows and tables share the runs they have in common; given
again, the command goes on. Exit status: 0 all rows, 1 a row failed, 75 saved and stopped on a signal.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import AblateConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        arguments[0] = f"table={arguments[0]}"
    config = read_settings(AblateConfig, __doc__, arguments)
    # imported once the settings are right: torch takes seconds
    from mindvis.chain.ablation import Ablation
    from mindvis.chain.execute import ready, to_go_on
    from mindvis.chain.processes import SAVED_AND_STOPPED, Screen, launcher
    from mindvis.chain.record import Record, locked

    screen, complete = Screen(sys.stdout), True
    ablations = [Ablation(replace(config, table=name)) for name in config.table.split(",")]
    root, steps = ablations[0].root, {step.name: step for ablation in ablations for step in ablation.steps}
    if not ready(list(steps.values()), Record(root), dry_run=config.dry_run, say=screen.say):
        return 0
    launch = launcher(ablations[0].fork, config.jobs, Path(__file__).parent, screen)
    with locked(root), launch.stopping_on_signals():
        for ablation in ablations:
            complete &= ablation.run(launch, screen.say)
            print(ablation.write())
            print(f"table: {ablation.root / ablation.table.name}.md", flush=True)
    if not complete:
        print(to_go_on("ablate", argv))
    return SAVED_AND_STOPPED if launch.stopped.is_set() else int(not complete)


if __name__ == "__main__":
    raise SystemExit(main())

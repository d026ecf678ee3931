"""The whole chain for one or more subjects: runs what is missing, skips what is done, ends in the reports.

Examples:
  python scripts/run_chain.py --config configs/god.yaml dry_run=true
  python scripts/run_chain.py --config configs/demo.yaml
  python scripts/run_chain.py --config configs/god.yaml subjects=[sbj_1,sbj_3] devices=2 \\
      finetune_ldm.settings.trainer.precision=bf16-mixed

Every step is the script of its stage, with its settings in <root>/steps and its output in <root>/logs. A step runs
again when its settings, the files it reads or the version of mindvis change. Given again after a failure or an
interruption, the command goes on. What no step makes has to be there before the first one begins. Exit status: 0 all
done, 1 a step failed, 2 a setting is wrong or an input absent, 75 saved and stopped on a signal.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import ChainConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    config = read_settings(ChainConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.chain.execute import Runner, ready, run_subjects, to_go_on
    from mindvis.chain.overview import read_summaries, write_overview
    from mindvis.chain.plan import plan_chain
    from mindvis.chain.processes import SAVED_AND_STOPPED, Screen, launcher
    from mindvis.chain.record import Record, locked

    steps, root, screen = plan_chain(config), Path(config.root), Screen(sys.stdout)
    if not ready(steps, Record(root), dry_run=config.dry_run, say=screen.say):
        return 0
    launch = launcher(config.fork, config.devices, Path(__file__).parent, screen)
    with locked(root), launch.stopping_on_signals():
        runner = Runner(root, Record(root), launch, screen.say)
        missing = run_subjects(runner, steps, config.devices)
    done = [step for step in steps if step not in missing]
    table = write_overview(root, done)
    if table:
        print(f"{table}table: {root / 'chain.md'}")
    print(f"chain: {len(done)} of {len(steps)} steps done, record {root / 'chain.json'}")
    print(to_go_on("run_chain", argv) + "\n" if missing else read_summaries(done), end="")
    return SAVED_AND_STOPPED if runner.stopped else int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())

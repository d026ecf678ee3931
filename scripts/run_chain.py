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

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mindvis.chain import (
    SAVED_AND_STOPPED,
    ChainConfig,
    Processes,
    Record,
    Runner,
    absent_inputs,
    describe_plan,
    locked,
    plan_chain,
    refuse_absent,
    run_subjects,
    write_overview,
)
from mindvis.config.command_line import entry_point, read_settings


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    config = read_settings(ChainConfig, __doc__, argv)
    steps, root = plan_chain(config), Path(config.root)
    record = Record(root)
    absent = absent_inputs(steps, [step for step in steps if not record.judge(step).done])
    if config.dry_run:
        print("\n".join([*describe_plan(steps, record), *(f"absent {line}" for line in absent)]))
        return 0
    refuse_absent(absent)
    processes = Processes(Path(__file__).parent)
    with locked(root), processes.stopping_on_signals():
        runner = Runner(root, Record(root), processes, partial(print, flush=True))
        missing = run_subjects(runner, steps, config.devices)
    done = [step for step in steps if step not in missing]
    table = write_overview(root, done)
    if table:
        print(f"{table}table: {root / 'chain.md'}")
    print(f"chain: {len(done)} of {len(steps)} steps done, record {root / 'chain.json'}")
    return SAVED_AND_STOPPED if runner.stopped else int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())

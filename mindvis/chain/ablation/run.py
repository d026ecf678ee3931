"""Running a table: row by row and seed by seed, the results rewritten after each, so that a stopped run leaves them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from mindvis.chain import Record, Runner, Step, by_settings, describe_plan, plan_chain, run_subjects
from mindvis.chain.ablation.measures import read_figures
from mindvis.chain.ablation.results import Measured, write_results
from mindvis.chain.ablation.settings import AblateConfig, base_chain, measures_of, row_chain
from mindvis.chain.ablation.tables import choose_rows, load_table
from mindvis.chain.processes import Launch


class Ablation:
    """One table at one scale. Rows and seeds with equal stages before them share their runs, by folders named after the
    settings. Raises `InputError` for wrong settings before anything runs."""

    def __init__(self, config: AblateConfig):
        self.config, self.table = config, load_table(config.table)
        chain = base_chain(config)
        self.root, self.measures = Path(chain.root), measures_of(config, self.table)
        self.results = [Measured(row, config.seeds) for row in choose_rows(self.table, config.rows)]
        self.plans: list[tuple[Measured, int, list[Step]]] = []
        self.writing = threading.Lock()
        for measured in self.results:
            if getattr(measured.row, config.scale) is None:
                measured.state = f"not run: {measured.row.reason}"
                continue
            for seed in config.seeds:
                own = row_chain(chain, measured.row, config.scale, seed, self.measures)
                self.plans.append((measured, seed, plan_chain(own, by_settings)))

    def describe(self) -> list[str]:
        """What a run would do: every step once, with the reason."""
        steps = {step.name: step for _, _, plan in self.plans for step in plan}
        return describe_plan(list(steps.values()), Record(self.root))

    def run(self, launch: Launch, say: Callable[[str], None]) -> bool:
        """Run what is missing, `jobs` rows at a time, and write the table after every row and seed.

        A step that several rows have in common is run by the first of them. Returns whether all is measured.
        """
        runner = Runner(self.root, Record(self.root), launch, say)
        for measured, seed, steps in self.plans:
            if all(runner.record.judge(step).done for step in steps):
                self._take(measured, seed, steps)
        self.write()
        with ThreadPoolExecutor(self.config.jobs) as pool:
            list(pool.map(partial(self._run_row, runner), count(1), self.plans))
        return all(seed in measured.by_seed for measured, seed, _ in self.plans)

    def _run_row(self, runner: Runner, number: int, plan: tuple[Measured, int, list[Step]]) -> None:
        measured, seed, steps = plan
        if runner.stopped:
            return
        name = f"{self.table.name} {number}/{len(self.plans)}: row {measured.row.name}, seed {seed}"
        runner.say(name)
        complete = not run_subjects(runner, steps, 1)
        with self.writing:
            if complete:
                self._take(measured, seed, steps)
                found = ", ".join(f"{figure.label} {figure.value:.3g}" for figure in measured.by_seed[seed])
                runner.say(f"{name}: {found}")
            else:
                measured.state = "stopped" if runner.stopped else "failed"
            self.write()

    def write(self) -> str:
        """Write the table as it stands; returns it as Markdown."""
        return write_results(self.root, self.table, self.config.scale, self.results)

    def _take(self, measured: Measured, seed: int, steps: Sequence[Step]) -> None:
        measured.by_seed[seed] = read_figures(self.measures, self.config.scale, steps)
        measured.folders[seed] = list(dict.fromkeys(str(step.folder) for step in steps))
        if all(seed in measured.by_seed for seed in self.config.seeds):
            measured.state = "done"

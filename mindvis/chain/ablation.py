"""The paper's ablation tables, run on GOD or scaled down on the simulated cortex: a chain for every row and seed.

The results are rewritten after each, so that a stopped run leaves them.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import OmegaConf

from mindvis.chain.ablation_tables import Figure, Measured, Row, Table, choose_rows, load_table, write_results
from mindvis.chain.execute import Runner, run_subjects
from mindvis.chain.plan import SCHEMAS, ChainConfig, StageConfig, Step, plan_chain, short_digest
from mindvis.chain.processes import Launch
from mindvis.chain.record import Record
from mindvis.common.errors import InputError, check_setting
from mindvis.common.texts import read_record
from mindvis.config.loading import load_config
from mindvis.config.tools import AblateConfig
from mindvis.evaluation import similarity_matrix
from mindvis.evaluation.compare import read_report
from mindvis.evaluation.pictures import DecodedSet, read_controls, read_decoded
from mindvis.evaluation.statistics import interval
from mindvis.inspection.hidden_voxels import SCORE_FILE

CHAINS = {"god": "configs/god.yaml", "demo": "configs/ablate_demo.yaml"}
SUBJECTS = {"god": "sbj_3", "demo": "sbj_1"}  # the paper's ablations are on GOD subject 3
AFTER_STAGE_A = ("finetune_mbm", "finetune_ldm", "generate", "evaluate")

# (beginning of the figure's name in report.json, label, factor); the ways are those of the chain's evaluation
DECODING = {"god": [("50_way_top_1/", "50-way top-1, %", 100)], "demo": [("10_way_top_1/", "10-way top-1, %", 100)]}
PAIRWISE = [("pairwise_pcc", "pairwise pcc, %", 100), ("pairwise_ssim", "pairwise ssim, %", 100)]
CONTROL = "shuffled"
# of decoders at low signal: (beginning of the figure's name, classes or None for all, label)
HARD_FIGURES: tuple[tuple[str, str | None, str], ...] = (
    ("10_way_top_1/", "trained", "10-way top-1, trained classes, %"),
    ("10_way_top_1/", "unseen", "10-way top-1, unseen classes, %"),
    ("pairwise_pcc", None, "pairwise pcc, %"),
    ("pairwise_ssim", None, "pairwise ssim, %"),
)


class Ablation:
    """One table at one scale. Rows and seeds with equal stages before them share their runs, by folders named after the
    settings. Raises `InputError` for wrong settings before anything runs."""

    def __init__(self, config: AblateConfig):
        self.config, self.table = config, load_table(config.table)
        chain = base_chain(config, self.table)
        self.root, self.fork = Path(chain.root), chain.fork
        chosen = self.table.measures[config.scale]
        self.measures = chosen if "decoding" in chosen or not config.decode else [*chosen, "decoding"]
        self.results = [Measured(row, config.seeds) for row in choose_rows(self.table, config.rows)]
        self.plans: list[tuple[Measured, int, list[Step]]] = []
        self.writing = threading.Lock()
        for measured in self.results:
            if getattr(measured.row, config.scale) is None:
                measured.state = f"not run: {measured.row.reason}"
                continue
            for seed in config.seeds:
                own = row_chain(chain, measured.row, config.scale, seed, self.measures)
                if self.table.simulated:  # an experiment of its own seed, in a folder named after its settings
                    settings = {**own.simulate.settings, "seed": seed}  # type: ignore[union-attr]
                    out = self.root / f"data-{short_digest(settings)}"
                    own = lay_over(own, {"simulate": {"seed": seed, "out": str(out)}})
                self.plans.append((measured, seed, plan_chain(own, by_settings=True)))

    @property
    def steps(self) -> list[Step]:
        """The steps of all rows and seeds, each once."""
        return list({step.name: step for _, _, plan in self.plans for step in plan}.values())

    def run(self, launch: Launch, say: Callable[[str], None]) -> bool:
        """Run what is missing, `jobs` rows at a time, and write the table after every row and seed.

        A step that several rows have in common is run by the first of them. Returns whether all is measured.
        """
        runner = Runner(self.root, Record(self.root), launch, say)
        for measured, seed, steps in self.plans:
            if not any(runner.record.why(step) for step in steps):
                self._take(measured, seed, steps)
        self.write()
        run_row = partial(self._run_row, runner)
        if self.config.jobs == 1:  # in this thread: a fork of another one ends with status 1, having joined itself
            list(map(run_row, count(1), self.plans))
        else:
            with ThreadPoolExecutor(self.config.jobs) as pool:
                list(pool.map(run_row, count(1), self.plans))
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


def base_chain(config: AblateConfig, table: Table) -> ChainConfig:
    """The chain of the full model. Raises `InputError` for an unknown scale, stage or file, no seeds or no jobs."""
    check_setting("scale", config.scale, CHAINS)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"setting seeds is {config.seeds}; needed: at least one, each once")
    if config.jobs < 1:
        raise InputError(f"setting jobs is {config.jobs}; needed: at least 1")
    chain = load_config(ChainConfig, config.chain or table.chains.get(config.scale) or CHAINS[config.scale])
    root = config.root or f"runs/ablation_{config.scale}"
    subject = config.subject or SUBJECTS[config.scale]
    controls = ["shuffled"] if table.simulated else []
    chain = replace(chain, root=root, subjects=[subject], controls=controls, devices=1, demo_summary=None)
    return lay_over(chain, config.settings)


def row_chain(chain: ChainConfig, row: Row, scale: str, seed: int, measures: list[str]) -> ChainConfig:
    """The chain of one row and seed, as far as its measures need it."""
    chain = lay_over(replace(chain, seed=seed), getattr(row, scale))
    if measures == ["hidden_voxels"]:
        return lay_over(chain, dict.fromkeys(AFTER_STAGE_A))
    return chain if "hidden_voxels" in measures else replace(chain, score_mbm=None)


def lay_over(chain: ChainConfig, settings: Mapping[str, dict | None]) -> ChainConfig:
    """The chain with settings by stage laid over it; a stage that is None is left out. Raises `InputError`."""
    changed: dict[str, Any] = {}
    for stage, given in settings.items():
        if stage not in SCHEMAS:
            raise InputError(f"ablation: no stage {stage!r}; needed: some of {', '.join(SCHEMAS)}")
        before = getattr(chain, stage)
        if given is None or before is None:
            changed[stage] = None
            continue
        merged = OmegaConf.to_container(OmegaConf.merge(before.settings, given))
        changed[stage] = StageConfig(before.config, cast(dict, merged))
    return replace(chain, **changed)


def read_figures(measures: Sequence[str], scale: str, steps: Sequence[Step]) -> list[Figure]:
    """Figures of a row whose steps are done. Raises `InputError` where a report does not hold what is asked for."""
    folders = {step.stage: step.folder for step in steps}
    figures = []
    for measure in measures:
        if measure == "hidden_voxels":
            score = read_record(folders["score_mbm"] / SCORE_FILE)
            figures.append(Figure("hidden voxels, r", score["model"]))
        elif measure == "hard":
            figures += hard_figures(folders["evaluate"])
        else:
            wanted = DECODING[scale] if measure == "decoding" else PAIRWISE
            figures += _from_report(folders["evaluate"] / "report.json", wanted)
    return figures


def _from_report(path: Path, wanted: Sequence[tuple[str, str, int]]) -> list[Figure]:
    reported = [figure for figure in read_report(path)["figures"] if figure["set"] == "decoded"]
    figures = []
    for start, label, factor in wanted:
        found = next((figure for figure in reported if figure["name"].startswith(start)), None)
        if found is None:
            raise InputError(f"{path}: no figure {start!r}; needed: an evaluation with it (num_ways, top_k, metrics)")
        low, high = (None if found[key] is None else factor * found[key] for key in ("low", "high"))
        figures.append(Figure(label, factor * found["value"], low, high))
    return figures


def hard_figures(folder: Path) -> list[Figure]:
    """Figures of a scored folder, in per cent, each followed by that of the shuffled control.

    Raises `InputError` where the report has no control, or no unseen classes.
    """
    report = read_report(folder)
    found = []
    for start, classes, label in HARD_FIGURES:
        for of in ("decoded", CONTROL):
            listed = report["figures"] if classes is None else report["by_training"]
            wanted = [each for each in listed if each["set"] == of and each["name"].startswith(start)]
            wanted = [each for each in wanted if classes in (None, each.get("classes"))]
            if not wanted:
                needed = "needed: an evaluation with it, of trained and unseen classes, and the control shuffled"
                raise InputError(f"{folder}/report.json: no {label} of {of}; {needed}")
            found.append(_figure(label, of, *(wanted[0][key] for key in ("value", "low", "high"))))
    return found + _within_class(folder)


def _within_class(folder: Path) -> list[Figure]:
    figures = []
    for of, decoded in {"decoded": read_decoded(folder), CONTROL: read_controls(folder)[CONTROL]}.items():
        shares = within_class(decoded)
        figures.append(_figure("within class, %", of, float(shares.mean()), *interval(shares, seed=0)))
    return figures


def within_class(decoded: DecodedSet) -> np.ndarray:
    """Of each stimulus that is not the only one of its class, identification among its class by pixels: [n].

    That is the share of other pictures of the class that correlate less with a decoded picture than its own does.
    """
    num_stimuli, class_ids = len(decoded.stimuli), np.asarray(decoded.class_ids)
    closeness = similarity_matrix(decoded.flat, decoded.stimuli, "pcc").reshape(-1, num_stimuli, num_stimuli)
    own = np.diagonal(closeness, axis1=1, axis2=2)[:, :, None]  # [k n 1]
    beaten = ((closeness < own) + 0.5 * (closeness == own)).mean(axis=0)  # [n n]
    others = (class_ids[:, None] == class_ids) & ~np.eye(num_stimuli, dtype=bool)
    chosen = others.any(axis=1)
    return (beaten * others).sum(axis=1)[chosen] / others.sum(axis=1)[chosen]


def _figure(label: str, of: str, *numbers: float | None) -> Figure:
    name = label if of == "decoded" else f"{label.removesuffix(', %')}, {of}, %"
    return Figure(name, *(None if number is None else 100 * number for number in numbers))  # type: ignore[arg-type]

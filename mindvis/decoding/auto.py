"""Strength and guidance chosen on training stimuli that the run held out, never on those that are judged.

First the strength, then the guidance: each candidate decodes one picture of every held-out stimulus, and the one with
the highest pairwise identification is taken, the mean of that by pixels and that by the features of a network.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.checkpoints import read_weights
from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.common.ridge import Ridge
from mindvis.common.shares import POLL_SECONDS, Process, parts_folder
from mindvis.config.decoding import GenerateConfig
from mindvis.data import PairedDataset
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decode import decode
from mindvis.decoding.output import mean_fmri
from mindvis.decoding.ridge_file import predict_rows
from mindvis.evaluation.audit_features import Space, choose_spaces
from mindvis.evaluation.identification import identification_from_matrix

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
MOST_STIMULI = 50
CHOICE_FILE = "chosen.json"  # beside the weights: what was chosen, so that the controls are decoded alike

Pairs = tuple[PairedDataset, PairedDataset | None]


def choose_sampling(
    config: GenerateConfig, ldm: LatentDiffusion, pairs: Pairs, ridge: Ridge | None, home: Path, process: Process
) -> dict[str, Any]:
    """The settings that are `auto` with the value chosen, the score of every candidate, and how it was judged.

    What was chosen before for the same weights and settings is taken from `home`; of several processes the first
    chooses. Raises InputError for a run that held out fewer than two training stimuli.
    """
    train, held = pairs
    if held is None or held.num_rows < 2:
        found = f"{config.run} held out no training stimuli to choose on"
        needed = "selection=validation with trainer.val_fraction above 0 when it is trained, or a number"
        raise InputError(f"a setting is auto, but {found}; needed: {needed}")
    rows = np.unique(held.stimulus, return_index=True)[1]
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_STIMULI)).astype(int)]

    def choose() -> dict[str, Any]:
        spaces = choose_spaces("demo" if read_weights(config.run).config.get("ldm") == "demo" else None)
        judge = Judge(ldm, held, rows, mean_fmri(train), ridge, spaces)
        return choose_by(judge.score, config) | {"stimuli": len(rows), "spaces": [space.name for space in spaces]}

    return once(home / CHOICE_FILE, _key(config, ldm), process, config.wait_minutes, choose)


def choose_by(score: Callable[[GenerateConfig], float], config: GenerateConfig) -> dict[str, Any]:
    """The best value of each setting that is `auto`, one after the other, and the scores of all candidates."""
    candidates = {"strength": STRENGTHS, "guidance": GUIDANCES}
    wanted = [name for name in candidates if getattr(config, name) == "auto"]
    now = replace(config, guidance=1.0) if "guidance" in wanted else config
    chosen: dict[str, Any] = {"scores": {}}
    for name in wanted:
        scores = {value: score(replace(now, **{name: value})) for value in candidates[name]}
        chosen[name] = max(scores, key=scores.__getitem__)
        chosen["scores"][name] = {str(value): round(found, 4) for value, found in scores.items()}
        now = replace(now, **{name: chosen[name]})
    return chosen


class Judge:
    """Pictures of held-out rows under candidate settings, and how well each is told from the others."""

    def __init__(
        self,
        ldm: LatentDiffusion,
        held: PairedDataset,
        rows: Sequence[int] | np.ndarray,
        mean: np.ndarray,
        ridge: Ridge | None,
        spaces: list[Space],
    ):
        self.ldm, self.rows, self.mean, self.spaces = ldm, [int(row) for row in rows], mean, spaces
        self.fmri = np.asarray(held.fmri)[self.rows]
        self.initial = None if ridge is None else partial(predict_rows, ridge)
        self.true = held.stimuli[held.stimulus[self.rows]]

    def score(self, config: GenerateConfig) -> float:
        """Pairwise identification, mean over stimuli and spaces, of one picture a stimulus."""
        names = ("sampler", "num_steps", "batch_size", "seed", "precision", "guidance", "strength")
        options = {name: getattr(config, name) for name in names}
        decoded = decode(
            self.ldm, self.fmri, self.rows, num_samples=1, mean_fmri=self.mean, initial=self.initial, **options
        )
        closeness = (space(decoded[:, 0]) @ space(self.true).T for space in self.spaces)
        return float(np.mean([identification_from_matrix(c, larger_is_closer=True).mean() for c in closeness]))


def once(
    file: Path, key: str, process: Process, wait_minutes: float, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `file` keeps under `key`, else what the first process computes and writes there; the others wait for it.

    Raises InputError where it is not there after `wait_minutes`.
    """
    deadline = time.monotonic() + 60 * wait_minutes
    while key not in (kept := _kept(file)):
        if process.leads:
            write_json(file, {**kept, key: compute()})
        elif time.monotonic() > deadline:
            lacks = f"{file}: nothing chosen after {wait_minutes:g} minutes (setting wait_minutes)"
            raise InputError(f"{lacks}; needed: process 0 of {process.count}, which chooses")
        else:
            time.sleep(POLL_SECONDS)
    return kept[key]


def _kept(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON; needed: remove it, and generate chooses again") from error


def _key(config: GenerateConfig, ldm: LatentDiffusion) -> str:
    """Of the settings that a choice depends on, and of the weights, which a run that goes on changes."""
    names = ("init", "strength", "guidance", "sampler", "num_steps", "seed", "precision", "checkpoint")
    settings = {name: getattr(config, name) for name in names}
    weights = [float(weight.detach().double().sum()) for weight in ldm.conditioner.parameters()]
    return parts_folder(Path("choice"), [settings, weights], Process()).name.rpartition("-")[2]

"""How `generate` samples, settled before anything is decoded: where it starts, its strength and its guidance.

Structure from a linear map, meaning from the model: `init=ridge` starts from the picture of a ridge regression. It is
fitted once to the pairs that the run was trained on, and kept beside its weights. Its latent is noised to an inner step
of the sampler (SDEdit: Meng et al. 2022, arXiv 2108.01073), and the tuned model denoises from there: little noise keeps
the layout of the linear map, much of it gives way to the model.

What is `auto` is chosen on training stimuli that the run held out, never on those that are judged: first the strength,
then the guidance. Each candidate decodes one picture of every held-out stimulus, and the one with the highest pairwise
identification is taken, the mean of that by pixels and that by the features of a network.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.checkpoints import read_weights
from mindvis.checkpoints.weights import RIDGE_FILE
from mindvis.common.errors import InputError
from mindvis.common.files import digest, write_json
from mindvis.common.ridge import Ridge
from mindvis.common.shares import POLL_SECONDS, Process
from mindvis.common.texts import read_record
from mindvis.config.decoding import GenerateConfig
from mindvis.config.loading import plain
from mindvis.config.schemas import FinetuneLDMConfig, TrainerConfig
from mindvis.data import PairedDataset
from mindvis.data.open import choose_validation, open_pairs
from mindvis.dc_ldm import LatentDiffusion
from mindvis.dc_ldm.latents import kept_latents
from mindvis.dc_ldm.samplers import nearest_start
from mindvis.decoding.decode import decode
from mindvis.decoding.generation import data_of
from mindvis.decoding.ridge import STRENGTH, fit_latent, home_of, predict_rows, read_ridge, save_ridge
from mindvis.evaluation.audit_features import choose_spaces
from mindvis.evaluation.identification import identification_from_matrix

log = logging.getLogger(__name__)

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
GUIDANCES = (1.0, 1.5, 2.0, 3.0)
MOST_STIMULI = 50
CHOICE_FILE = "chosen.json"  # beside the weights: what was chosen, so that the controls are decoded alike

Pairs = tuple[PairedDataset, PairedDataset | None]


@dataclass(frozen=True)
class SettledSampling:
    """How `generate` samples once everything is chosen; `ridge` is None where sampling starts from noise."""

    strength: float | None
    guidance: float
    ridge: Ridge | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def weights(self, ldm: LatentDiffusion) -> list[np.ndarray]:
        """What is tuned in every run, and the ridge: parts of a run that has gone on since do not fit others."""
        tuned = [weight.numpy(force=True) for weight in ldm.conditioner.parameters()]
        return tuned if self.ridge is None else [*tuned, self.ridge.weights, self.ridge.intercept]

    @property
    def options(self) -> dict[str, Any]:
        """What `decode` is given in the place of the settings."""
        strength = 1.0 if self.strength is None else self.strength
        initial = None if self.ridge is None else partial(predict_rows, self.ridge)
        return {"guidance": self.guidance, "strength": strength, "initial": initial}

    def noted(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """What generate.json says, with the values that were used in the place of `auto`, and how they were chosen."""
        used = {"strength": self.strength, "guidance": self.guidance}
        return {**provenance, "settings": {**provenance["settings"], **used}, **self.facts}


def settle_sampling(config: GenerateConfig, ldm: LatentDiffusion, process: Process) -> SettledSampling:
    """The ridge of the run where `init` asks for it, and the strength and guidance, chosen where they are `auto`.

    Raises what fitting and choosing raise.
    """
    facts: dict[str, Any] = {}
    ridge = None
    if config.init == "ridge":
        config = replace(config, strength=STRENGTH if config.strength is None else config.strength)
        ridge = ridge_of_run(config, ldm, home_of(config.run) / RIDGE_FILE, process)
    if "auto" in (config.strength, config.guidance):
        facts["chosen"] = choose_sampling(config, ldm, training_pairs(config, ldm), ridge, process)
        chosen = {name: facts["chosen"][name] for name in ("strength", "guidance") if name in facts["chosen"]}
        config = replace(config, **chosen)
    strength: Any = config.strength  # a number now, as is the guidance
    guidance: Any = config.guidance
    if ridge is not None:
        inside = 0 < strength < 1  # else it starts from noise, or nothing is sampled
        schedule = ldm.schedule.alphas_cumprod
        start = nearest_start(config.sampler, schedule, config.num_steps, strength) if inside else None
        facts["ridge"] = {"alpha": ridge.alpha, "start_step": start}
    return SettledSampling(strength, guidance, ridge, facts)


def how_decoded(generated: Mapping[str, Any]) -> str:
    """In words, how pictures were sampled: `generated` is what generate.json keeps."""
    settings = generated["settings"]
    guidance = f"guidance {settings.get('guidance', 1):g}"
    ridge = generated.get("ridge_context", False)
    decoder = "MinD-Vis, its context begun as a ridge regression" if ridge else "MinD-Vis"
    if settings.get("init", "none") == "none":
        return f"{decoder}, alone ({guidance})"
    return f"{decoder}, from a ridge regression's picture on (strength {settings['strength']:g}, {guidance})"


def ridge_of_run(config: GenerateConfig, ldm: LatentDiffusion, file: Path, process: Process) -> Ridge:
    """The ridge regression from fMRI to latents that is kept in `file`, else fitted to the run's training pairs.

    One that was fitted to other pairs, or to voxels of another number, is fitted again; the first process writes it.
    """
    origin = origin_of(config)
    if file.is_file():
        ridge, kept = read_ridge(file)
        if kept == origin and len(ridge.mean) == ldm.conditioner.encoder.num_voxels:
            return ridge
        log.warning("%s: of other training pairs than those of the run; fitted again", file)
    train = training_pairs(config, ldm)[0]
    ridge = fit_latent(ldm, train, kept=run_latents(config, ldm, train)).rounded()
    if process.leads:
        save_ridge(file, ridge, origin)
    return ridge


def run_latents(config: GenerateConfig, ldm: LatentDiffusion, train: PairedDataset) -> np.ndarray | None:
    """The latents of the training pictures [m c h w] that Stage B has kept in a run folder; None where it is none."""
    if not (Path(config.run) / "manifest.json").is_file():
        return None
    trainer = read_weights(config.run, config.checkpoint).config.get("trainer", {})
    bfloat16 = trainer.get("precision") == "bf16-mixed"
    return kept_latents(ldm.autoencoder, train.stimuli, Path(config.run), bfloat16=bfloat16)


def training_pairs(config: GenerateConfig, ldm: LatentDiffusion) -> Pairs:
    """The pairs that the run was trained on, and the training stimuli it held out, or None where it held out none.

    Raises InputError where the run does not say which data it was tuned on, or this is of another length.
    """
    encoder, trained = ldm.conditioner.encoder, trained_with(config)
    train, test, val = open_pairs(data_of(config.run), encoder.patch_size)
    train, held = choose_validation(trained, train, test, val)
    if train.num_voxels != encoder.num_voxels:
        found = f"{train.num_voxels} voxels in its training data"
        raise InputError(f"{config.run}: {found}, its encoder expects {encoder.num_voxels}")
    side = ldm.autoencoder.encoder.resolution
    held = None if held is None or trained.selection == "test" else held.with_image_size((side, side))
    return train.with_image_size((side, side)), held


def trained_with(config: GenerateConfig) -> FinetuneLDMConfig:
    """Those settings of the run that decide which pairs it was trained on."""
    run = read_weights(config.run, config.checkpoint).config
    trainer = TrainerConfig(val_fraction=run.get("trainer", {}).get("val_fraction", 0.0))
    return FinetuneLDMConfig(selection=run.get("selection", "last"), seed=run.get("seed", 0), trainer=trainer)


def origin_of(config: GenerateConfig) -> dict:
    """What a regression was fitted to, as its file says it."""
    trained = trained_with(config)
    split = {"selection": trained.selection, "seed": trained.seed, "val_fraction": trained.trainer.val_fraction}
    return json.loads(json.dumps({"data": plain(data_of(config.run)), **split}, default=str))


def choose_sampling(
    config: GenerateConfig, ldm: LatentDiffusion, pairs: Pairs, ridge: Ridge | None, process: Process
) -> dict[str, Any]:
    """The settings that are `auto` with the value chosen, the score of every candidate, and how it was judged.

    What was chosen before for the same weights and settings is kept beside them; of several processes the first
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
        fmri, true = np.asarray(held.fmri)[rows], held.stimuli[held.stimulus[rows]]
        fixed: dict[str, Any] = {"num_samples": 1, "mean_fmri": train.mean_row()}
        fixed["initial"] = None if ridge is None else partial(predict_rows, ridge)

        def score(candidate: GenerateConfig) -> float:
            """Pairwise identification, mean over stimuli and spaces, of one picture a stimulus."""
            names = ("sampler", "num_steps", "batch_size", "seed", "precision", "guidance", "strength")
            options = {name: getattr(candidate, name) for name in names} | fixed
            decoded = decode(ldm, fmri, rows.tolist(), **options)[:, 0]
            closeness = [space(decoded) @ space(true).T for space in spaces]
            return float(np.mean([identification_from_matrix(c, larger_is_closer=True).mean() for c in closeness]))

        return choose_by(score, config) | {"stimuli": len(rows), "spaces": [space.name for space in spaces]}

    file = home_of(config.run) / CHOICE_FILE
    return once(file, _choice_key(config, ldm), process, config.wait_minutes, choose)


def choose_by(score: Callable[[GenerateConfig], float], config: GenerateConfig) -> dict[str, Any]:
    """The best value of each setting that is `auto`, one after the other, and the scores of all candidates."""
    candidates: dict[str, tuple[Any, ...]] = {"strength": STRENGTHS, "guidance": GUIDANCES}
    wanted = [name for name in candidates if getattr(config, name) == "auto"]
    now = replace(config, guidance=1.0) if "guidance" in wanted else config
    chosen: dict[str, Any] = {"scores": {}}
    for name in wanted:
        scores = {value: score(replace(now, **{name: value})) for value in candidates[name]}
        chosen[name] = max(scores, key=scores.__getitem__)
        chosen["scores"][name] = {str(value): round(found, 4) for value, found in scores.items()}
        now = replace(now, **{name: chosen[name]})
    return chosen


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
        return read_record(file) if file.is_file() else {}
    except InputError as error:
        raise InputError(f"{error}; needed: remove it, and generate chooses again") from error


def _choice_key(config: GenerateConfig, ldm: LatentDiffusion) -> str:
    """Of the settings that a choice depends on, and of the weights, which a run that goes on changes."""
    names = ("init", "strength", "guidance", "sampler", "num_steps", "seed", "precision", "checkpoint")
    settings = {name: getattr(config, name) for name in names}
    weights = [float(weight.detach().double().sum()) for weight in ldm.conditioner.parameters()]
    return digest([json.dumps([[settings, weights], 1], sort_keys=True)])[:12]

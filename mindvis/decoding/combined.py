"""Structure from a linear map, meaning from the model: sampling that starts from the picture of a ridge regression.

The regression from fMRI to image latents is fitted once to the pairs that the run was trained on, and kept beside its
weights. Its latent is noised to an inner step of the sampler (SDEdit: Meng et al. 2022, arXiv 2108.01073), and the
tuned model denoises from there: little noise keeps the layout of the linear map, much of it gives way to the model.
"""

import json
import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.checkpoints import read_weights
from mindvis.checkpoints.weights import RIDGE_FILE
from mindvis.common.errors import InputError
from mindvis.common.ridge import ALPHAS, Ridge
from mindvis.common.shares import Process
from mindvis.config.decoding import GenerateConfig
from mindvis.config.schemas import FinetuneLDMConfig, TrainerConfig, plain
from mindvis.data import PairedDataset
from mindvis.data.open import choose_validation, open_pairs
from mindvis.dc_ldm import LatentDiffusion
from mindvis.dc_ldm.latents import kept_latents
from mindvis.dc_ldm.timesteps import nearest_start
from mindvis.decoding.auto import choose_sampling
from mindvis.decoding.open import data_of
from mindvis.decoding.ridge_file import INITS, STRENGTH, home_of, predict_rows, read_ridge, save_ridge
from mindvis.decoding.ridge_pictures import fit_latent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampling:
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


def settle_sampling(config: GenerateConfig, ldm: LatentDiffusion, process: Process) -> Sampling:
    """The ridge of the run where `init` asks for it, and the strength and guidance, chosen where they are `auto`.

    Raises InputError for settings that do not go together, and what fitting and choosing raise.
    """
    check_init(config)
    home, combined = home_of(config.run), config.init == "ridge"
    if combined and config.strength is None:
        config = replace(config, strength=STRENGTH)
    ridge = ridge_of_run(config, ldm, home / RIDGE_FILE, process) if combined else None
    facts: dict[str, Any] = {}
    if "auto" in (config.strength, config.guidance):
        facts["chosen"] = choose_sampling(config, ldm, training_pairs(config, ldm), ridge, home, process)
        names = {name for name in ("strength", "guidance") if name in facts["chosen"]}
        config = replace(config, **{name: facts["chosen"][name] for name in names})
    if ridge is not None:
        facts["ridge"] = {"alpha": ridge.alpha, "start_step": start_step(config, ldm)}
    return Sampling(config.strength, config.guidance, ridge, facts)


def start_step(config: GenerateConfig, ldm: LatentDiffusion) -> int | None:
    """The diffusion step at which sampling starts; None where it starts from noise, or nothing is sampled."""
    if not 0 < config.strength < 1:
        return None
    return nearest_start(config.sampler, ldm.schedule.alphas_cumprod, config.num_steps, config.strength)


def check_init(config: GenerateConfig) -> None:
    """Raise InputError for an unknown `init`, or a strength without a start that it would be a share of."""
    if config.init not in INITS:
        raise InputError(f"setting init is {config.init!r}; needed: one of {', '.join(INITS)}")
    if config.init == "none" and config.strength is not None:
        raise InputError(f"setting strength is {config.strength}, but init is none; needed: init=ridge, or no strength")


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
    ridge = fit_latent(ldm, train, ALPHAS, kept=run_latents(config, ldm, train)).rounded()
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


def training_pairs(config: GenerateConfig, ldm: LatentDiffusion) -> tuple[PairedDataset, PairedDataset | None]:
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

"""Hidden-voxel score of a Stage A run, from settings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.checkpoints import build_mbm
from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.config.loading import from_plain
from mindvis.config.schemas import FinetuneMBMConfig, PretrainMBMConfig
from mindvis.config.tools import ScoreMBMConfig
from mindvis.data import FMRIDataset
from mindvis.data.open import choose_tuning_fmri, hold_out_tail, open_pretraining
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.scoring import score_hidden_voxels
from mindvis.training.runs import open_run

SCORE_FILE = "hidden_voxels.json"
OTHER_SPLIT = {"train": "test", "test": "train"}


def open_held_out(
    path: str, checkpoint: str
) -> tuple[PretrainMBMConfig | FinetuneMBMConfig, MaskedBrainModel, FMRIDataset, FMRIDataset]:
    """Settings and model of a Stage A run, the rows it was trained on and rows it has not seen.

    Those are the rows it held out; a run of finetune_mbm that held out none has not seen the other split (train or
    test). Raises InputError for a run that has seen all rows, or that is none of Stage A.
    """
    run = open_run(path, stages=("pretrain_mbm", "finetune_mbm"))
    tuned = run.stage == "finetune_mbm"
    trained: Any = from_plain(FinetuneMBMConfig if tuned else PretrainMBMConfig, run.settings)
    network, _ = build_mbm(path, checkpoint=checkpoint)
    sizes = (network.patch_size, network.num_voxels)
    trials = run.settings.get("single_trials", False)  # runs from before this setting saw averages alone
    if tuned:
        data = choose_tuning_fmri(trained.data, trained.fmri, *sizes, single_trials=trials)
    else:
        data = open_pretraining(trained.data, trained.extra_data, network.patch_size)
    train, unseen = hold_out_tail(data, trained.trainer.val_fraction)
    if unseen is None and tuned and trained.fmri in OTHER_SPLIT:
        unseen = choose_tuning_fmri(trained.data, OTHER_SPLIT[trained.fmri], *sizes, single_trials=trials)
    if unseen is None:
        raise InputError(f"{path}: held out no rows; needed: a run with trainer.val_fraction above 0")
    return trained, network.eval(), train, unseen


def score_run(config: ScoreMBMConfig) -> dict[str, float]:
    """Correlations (`model`, `voxel_mean`, `nearest_patch`, `ridge`) on hidden voxels of the rows a run held out.

    With `ridge_penalty`, chosen on the training rows, and `rows`, how many were held out, they are written to
    hidden_voxels.json in the run folder too. Raises InputError for a run that held out no rows.
    """
    trained, network, train, held_out = open_held_out(config.run, config.checkpoint)
    network = network.to(choose_device(config.device))
    ratio = trained.mask.mask_ratio if config.mask_ratio is None else config.mask_ratio
    options: dict[str, Any] = {"mask_ratio": ratio, "num_masks": config.num_masks, "seed": config.seed}
    score = score_hidden_voxels(network, np.asarray(train.fmri), np.asarray(held_out.fmri), **options)
    found = asdict(score) | {"rows": held_out.num_rows}
    write_json(Path(config.run) / SCORE_FILE, found | options)
    return found

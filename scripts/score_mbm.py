"""How well a Stage A run predicts hidden voxels of held-out rows, beside each voxel's mean and the nearest patch.

Example:
  python scripts/score_mbm.py run=runs/pretrain_hcp
"""

from collections.abc import Sequence

import numpy as np

from mindvis.checkpoints import build_mbm
from mindvis.cli import entry_point, read_settings
from mindvis.config import PretrainMBMConfig, ScoreMBMConfig
from mindvis.errors import InputError
from mindvis.sc_mbm.scoring import score_hidden_voxels
from mindvis.settings import from_plain
from mindvis.training.runs import open_run
from mindvis.wiring.data import hold_out_tail, open_pretraining


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(ScoreMBMConfig, __doc__, argv)
    run = open_run(config.run, stages=("pretrain_mbm",))
    trained = from_plain(PretrainMBMConfig, run.settings)
    network, _ = build_mbm(config.run, checkpoint=config.checkpoint)
    data = open_pretraining(trained.data, trained.extra_data, network.patch_size)
    train, held_out = hold_out_tail(data, trained.trainer.val_fraction)
    if held_out is None:
        raise InputError(f"{config.run}: held out no rows; needed: a run with trainer.val_fraction above 0")
    options = {"mask_ratio": trained.mask.mask_ratio, "num_masks": config.num_masks, "seed": config.seed}
    score = score_hidden_voxels(network.eval(), np.asarray(train.fmri), np.asarray(held_out.fmri), **options)
    print(
        f"correlation on hidden voxels of {held_out.num_rows} held-out rows: {score.model:.3f} model, "
        f"{score.voxel_mean:.3f} voxel mean, {score.nearest_patch:.3f} nearest visible patch"
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""Stage A (SC-MBM): pretrain the masked brain model on resting-state fMRI.

Example:
  python scripts/pretrain_mbm.py --config configs/pretrain_hcp.yaml data.root=data/HCP/npz trainer.devices=8
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.loading import plain
from mindvis.config.schemas import PretrainMBMConfig
from mindvis.training.signals import stoppable


@entry_point
@stoppable
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(PretrainMBMConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import DescribeWeights, build_mbm_module, start_mbm
    from mindvis.data.open import data_facts, hold_out_tail, open_pretext
    from mindvis.decoding.previews import MaskedReconstructions
    from mindvis.sc_mbm.pretext import find_resnet, kept_features
    from mindvis.training.fit import begin_run, fit

    resnet = find_resnet(config.pretext.resnet) if config.pretext.weight else None
    data, pictures = open_pretext(config.data, config.extra_data, config.model.patch_size, config.pretext)
    train_set, val_set = hold_out_tail(data, config.trainer.val_fraction)
    network, settings = start_mbm(config.model, data.num_voxels, config.seed, config.pretext)
    module = build_mbm_module(network, config.mask, config.optim, config.trainer.max_epochs)

    run = begin_run(config, "pretrain_mbm", (train_set, val_set))
    if resnet is not None and pictures is not None:
        module.image_features = kept_features(pictures, resnet, run.path)
    run.record(seed=config.seed, data=data_facts(train=train_set, validation=val_set), fmri_seen="pretraining")
    callbacks = [
        DescribeWeights("mbm", settings, config=plain(config)),
        MaskedReconstructions(val_set or train_set, every_epochs=config.trainer.figure_every_epochs),
    ]
    train_set = train_set.with_interpolated(config.mask.num_interpolated)
    if result := fit(config, run, module, (train_set, val_set), callbacks):
        print(result)


if __name__ == "__main__":
    raise SystemExit(main())

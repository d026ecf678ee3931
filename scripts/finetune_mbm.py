"""Stage A goes on: tune the pretrained masked brain model on the fMRI of the data set to be decoded.

Example:
  python scripts/finetune_mbm.py --config configs/finetune_mbm_god.yaml pretrained=runs/pretrain_hcp
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.loading import plain
from mindvis.config.schemas import FinetuneMBMConfig
from mindvis.training.signals import stoppable


@entry_point
@stoppable
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(FinetuneMBMConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import DescribeWeights, build_mbm, build_mbm_module, read_mbm
    from mindvis.data.open import choose_tuning_fmri, data_facts, hold_out_tail
    from mindvis.decoding.previews import MaskedReconstructions
    from mindvis.training.fit import begin_run, fit

    network, _ = build_mbm(config.pretrained)
    shape = (network.patch_size, network.num_voxels)
    data = choose_tuning_fmri(config.data, config.fmri, *shape, single_trials=config.single_trials)
    train_set, val_set = hold_out_tail(data, config.trainer.val_fraction)
    module = build_mbm_module(network, config.mask, config.optim, config.trainer.max_epochs)

    run = begin_run(config, "finetune_mbm", (train_set, val_set))
    run.record(seed=config.seed, data=data_facts(train=train_set, validation=val_set), fmri_seen=config.fmri)
    callbacks = [
        DescribeWeights("mbm", read_mbm(config.pretrained)[0], config=plain(config)),
        MaskedReconstructions(val_set or train_set, every_epochs=config.trainer.figure_every_epochs),
    ]
    train_set = train_set.with_interpolated(config.mask.num_interpolated)
    if result := fit(config, run, module, (train_set, val_set), callbacks):
        print(result)


if __name__ == "__main__":
    raise SystemExit(main())

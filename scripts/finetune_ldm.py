"""Stage B (DC-LDM): tune encoder, cross-attention and time-step condition on {fMRI, image} pairs.

Example:
  python scripts/finetune_ldm.py --config configs/finetune_ldm_god.yaml trainer.precision=bf16-mixed
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.schemas import FinetuneLDMConfig
from mindvis.training.signals import stoppable


@entry_point
@stoppable
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(FinetuneLDMConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import DescribeWeights, build_ldm_module, build_stage_b, history, image_side, read_encoder
    from mindvis.data.open import data_facts, open_stage_b
    from mindvis.data.row_format import FMRIFacts
    from mindvis.dc_ldm.latents import kept_crops, kept_latents
    from mindvis.decoding.decode import latent_shape_of
    from mindvis.decoding.ridge_context import start_context
    from mindvis.decoding.watch import watch_stage_b
    from mindvis.training.engine import training_device
    from mindvis.training.fit import begin_run, fit
    from mindvis.training.optim import averaging
    from mindvis.training.wandb_runs import check_logging

    check_logging(config.logging)
    config.image_size = config.image_size or image_side(config.ldm)
    encoder, state = read_encoder(config)
    train_set, val_set, test_set = open_stage_b(config, encoder["patch_size"])
    ldm, settings = build_stage_b(config, {**encoder, "num_voxels": train_set.num_voxels}, state)
    latent_shape_of(ldm, (config.image_size, config.image_size))  # refuses a side that the autoencoder cannot take
    module = build_ldm_module(ldm, config, start_context(ldm, config, train_set))
    facts = FMRIFacts(train_set.formats, train_set.mean_row()).as_plain(config.data.roi)
    watchers, judge = watch_stage_b(config, val_set, test_set)

    run = begin_run(config, "finetune_ldm", (train_set, val_set))
    if config.cache_latents and not config.trainer.fast_dev_run:
        how: dict = {"bfloat16": config.trainer.precision == "bf16-mixed", "device": training_device(config.trainer)}
        autoencoder, images, augment = ldm.autoencoder, train_set.stimuli, config.augment
        bank: dict = {"crops_per_image": augment.crops_per_image, "crop_ratio": augment.crop_ratio, "seed": config.seed}
        crops = kept_crops(autoencoder, images, run.path, **bank, **how)
        train_set = train_set.with_latents(kept_latents(autoencoder, images, run.path, **how), crops)
    run.record(seed=config.seed, data=data_facts(train=train_set, validation=val_set, test=test_set))
    run.record(selection=config.selection, watched="test" if val_set is None else "validation")
    callbacks = [DescribeWeights("ldm", {**settings, "fmri": facts}, config=history(config), prefix="ldm."), *watchers]
    callbacks += averaging(config.ema)
    if result := fit(config, run, module, (train_set, val_set), callbacks, judge):
        print(result)


if __name__ == "__main__":
    raise SystemExit(main())

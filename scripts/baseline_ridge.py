"""Baselines and ceilings of a data set, decoded with the same LDM: by default ridge regression from fMRI.

targets: latent and class (ridge to image latents and class embeddings), retrieval (the training picture nearest to
ridge-predicted features), predicted_class (the generator given the class that ridge reads), and ceilings that use the
truth: autoencoder (of the true picture), true_class (the generator given it); mean and noise use nothing.

Examples:
  python scripts/baseline_ridge.py ldm=pretrains/ldm/label2img/model.ckpt data.name=god data.subjects=[sbj_3]
  python scripts/evaluate.py --config configs/evaluate_god.yaml decoded=runs/baseline_ridge/class
  python scripts/baseline_ridge.py targets=[retrieval,predicted_class,autoencoder,true_class,mean,noise]
"""

from collections.abc import Sequence
from pathlib import Path

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.decoding import BaselineConfig
from mindvis.config.loading import plain


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(BaselineConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import find_ldm
    from mindvis.common.devices import choose_device, use_threads
    from mindvis.data.open import data_facts, open_pairs
    from mindvis.decoding.baselines import decode_baseline, load_class_ldm, usable_targets
    from mindvis.decoding.output import check_output, control_fmri, write_decoded

    for target in config.targets:
        check_output(Path(config.output) / target, config.overwrite)
    use_threads(config.num_threads)
    ldm = load_class_ldm(find_ldm(config.ldm)).to(choose_device(config.device))
    pairs = open_pairs(config.data, config.patch_size)[:2]
    train, test = (part.with_image_size(ldm.autoencoder.encoder.resolution) for part in pairs)
    targets, notes = usable_targets(ldm, train, config.targets)
    for note in notes:
        print(note)
    about = {
        "settings": plain(config),
        "data": {"settings": plain(config.data), **data_facts(train=train, test=test)},
        "patch_size": config.patch_size,
        "test_set_use": {"stage_a_tuning": "none", "checkpoint_selection": "last"},
    }
    for target in targets:
        folder, rows = Path(config.output) / target, list(range(test.num_rows))
        for control in ("none", *config.with_controls):
            given = control_fmri(test, train, control, config.seed)
            own = test.with_fmri(given.fmri, test.formats)
            decoded, facts = decode_baseline(ldm, train, own, target, config)
            place = folder if control == "none" else folder / control
            write_decoded(place, decoded, test, rows, about | facts | given.facts, fmri_rows=given.rows)
        penalty = f", penalty {facts['alpha']:g}" if "alpha" in facts else ""
        print(f"pictures: {folder / 'grid.png'} ({target}{penalty})")


if __name__ == "__main__":
    raise SystemExit(main())

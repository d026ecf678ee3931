"""The linear baseline: ridge regression from fMRI to image latents and class embeddings, decoded by the same LDM.

Example:
  python scripts/baseline_ridge.py ldm=pretrains/ldm/label2img/model.ckpt data.name=god data.subjects=[sbj_3]
  python scripts/evaluate.py --config configs/evaluate_god.yaml decoded=runs/baseline_ridge/class
"""

from collections.abc import Sequence
from pathlib import Path

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.schemas import BaselineConfig, plain


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(BaselineConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import find_ldm
    from mindvis.common.devices import choose_device, use_threads
    from mindvis.data.open import open_pairs
    from mindvis.decoding.output import check_output, write_decoded
    from mindvis.decoding.ridge_pictures import decode_with_ridge, load_class_ldm, usable_targets

    for target in config.targets:
        check_output(Path(config.output) / target, config.overwrite)
    use_threads(config.num_threads)
    ldm = load_class_ldm(find_ldm(config.ldm)).to(choose_device(config.device))
    pairs = open_pairs(config.data, config.patch_size)[:2]
    train, test = (part.with_image_size(ldm.autoencoder.encoder.resolution) for part in pairs)
    targets, notes = usable_targets(ldm, train, config.targets)
    for note in notes:
        print(note)
    for target in targets:
        decoded, ridge = decode_with_ridge(ldm, train, test, target, config)
        use = {"stage_a_tuning": "none", "checkpoint_selection": "last"}
        facts = {"settings": plain(config), "alpha": ridge.alpha, "errors": ridge.errors, "test_set_use": use}
        folder = Path(config.output) / target
        write_decoded(folder, decoded, test, list(range(test.num_rows)), facts)
        print(f"pictures: {folder / 'grid.png'} (ridge to {target}, penalty {ridge.alpha:g})")


if __name__ == "__main__":
    raise SystemExit(main())

"""A tuned decoder, its data and the provenance of its pictures, from settings."""

from pathlib import Path

from mindvis.checkpoints import build_ldm_from, describe_data, find_ldm, read_weights
from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig, GenerateConfig, plain
from mindvis.data import PairedDataset
from mindvis.data.open import data_facts, open_pairs, saved_data
from mindvis.dc_ldm import LatentDiffusion


def load_decoder(config: GenerateConfig) -> LatentDiffusion:
    """A tuned decoder in evaluation mode, from a run folder, an exported model or a published finetuned.pth."""
    sources = {"fmri_encoder": config.fmri_encoder, "label2img": config.ldm and find_ldm(config.ldm)}
    ldm, _ = build_ldm_from(config.run, checkpoint=config.checkpoint, **sources)
    return ldm.eval()


def open_generation(config: GenerateConfig, ldm: LatentDiffusion) -> tuple[PairedDataset, PairedDataset]:
    """Pairs to decode, at the size the decoder works at, and the training pairs.

    The data set is the run's own unless the settings name another. Raises `InputError` where its fMRI is not of the
    length the encoder expects.
    """
    encoder = ldm.conditioner.encoder
    data = config.data or _data_of(config.run)
    train, test, _ = open_pairs(data, encoder.patch_size)
    parts = {"train": train, "test": test}
    if config.split not in parts:
        raise InputError(f"setting split is {config.split!r}; needed: train or test")
    if train.num_voxels != encoder.num_voxels:
        found = f"{data.root}: {train.num_voxels} voxels in ROI {data.roi!r} after padding"
        raise InputError(f"{found}, the encoder of {config.run} expects {encoder.num_voxels}")
    return parts[config.split].with_image_size(ldm.autoencoder.encoder.resolution), train


def generation_provenance(config: GenerateConfig, dataset: PairedDataset, ldm: LatentDiffusion) -> dict:
    """What generate.json says: settings, data, and how the test set was used before."""
    run = read_run_settings(config.run)
    data = config.data or _data_of(config.run)
    as_published = "dataset" in run  # a file of the published code, which tuned Stage A and selected on the test set
    normalisation = {"bold5000": "joint", "npz": "train"}.get(data.name, "separate")
    if data.name == "god" and data.scale_test == "train":
        normalisation = "train"
    use = {
        "stage_a_tuning": _tuning_fmri(run),
        "checkpoint_selection": run.get("selection", "test" if as_published else None),
        "normalisation": normalisation,
    }
    return {
        "settings": plain(config),
        "patch_size": ldm.conditioner.encoder.patch_size,
        "stage_a_run": run.get("stage_a", {}).get("run_dir"),
        "data": {"settings": plain(data), **data_facts(**{config.split: dataset})},
        "test_set_use": use,
    }


def _tuning_fmri(run: dict) -> str | None:
    """Which fMRI Stage A was tuned on; None where the settings of the run are not known."""
    if not run:
        return None
    stage_a = run.get("stage_a", {})
    seen = stage_a.get("fmri", "test" if "dataset" in run else "none")
    # runs from before this setting saw the averages, unless their data said otherwise
    single_trials = stage_a.get("single_trials", stage_a.get("data", {}).get("include_single_trials", True))
    return seen if single_trials or seen != "test" else "test averages"


def output_folder(config: GenerateConfig) -> Path:
    """Where the pictures go: as set, else `<run>/decoded`, the controls below it; of a file `<file>_decoded`."""
    run = Path(config.run)
    usual = run.with_name(f"{run.stem}_decoded") if run.is_file() else run / "decoded"
    folder = Path(config.output) if config.output else usual
    return folder if config.output or config.control == "none" else folder / config.control


def read_run_settings(path: str) -> dict:
    """Settings of the run behind a decoder; under `stage_a` those its encoder came from; {} where unknown."""
    return read_weights(path).config


def _data_of(run: str) -> DataConfig:
    settings = describe_data(read_run_settings(run))
    if not settings.get("name"):
        raise InputError(f"{run}: does not say which data it was tuned on; needed: data.name=... data.root=...")
    return saved_data(settings)

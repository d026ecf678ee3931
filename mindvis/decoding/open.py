"""A tuned decoder, its data and the provenance of its pictures, from settings."""

from pathlib import Path

import numpy as np

from mindvis.checkpoints import build_ldm_from, describe_data, find_ldm, read_weights
from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.config.schemas import DataConfig, GenerateConfig, plain
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.data.arrays import NpzReader, load_npy
from mindvis.data.fmri_facts import FMRIFacts
from mindvis.data.open import data_facts, open_pairs, saved_data
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decoder import Decoder
from mindvis.decoding.output import ControlledFMRI, control_fmri, mean_fmri


def load_decoder(config: GenerateConfig) -> LatentDiffusion:
    """A tuned decoder in evaluation mode, from a run folder, an exported model or a published finetuned.pth."""
    sources = {"fmri_encoder": config.fmri_encoder, "label2img": config.ldm and find_ldm(config.ldm)}
    ldm, _ = build_ldm_from(config.run, checkpoint=config.checkpoint, **sources)
    return ldm.eval()


def open_rows(config: GenerateConfig, decoder: Decoder) -> FMRIDataset:
    """The rows of the file that the setting `fmri` names, without pictures, as the encoder takes them.

    Raises `InputError` for settings that need pictures, for a file that cannot be read, and for rows that do not fit.
    """
    for name, found, needed in (("control", config.control, "none"), ("split", config.split, "test")):
        if found != needed:
            raise InputError(f"setting {name} is {found!r}, but fmri={config.fmri} has no pictures; needed: {needed}")
    if config.data is not None:
        raise InputError("settings fmri and data name two sources; needed: one of them")
    path = Path(config.fmri or "")
    subjects = config.subject
    if path.suffix == ".npz":
        with NpzReader(path) as npz:
            rows = npz.raw("fmri")
            if "subject" in npz and subjects is None and len(decoder.subjects) > 1:
                subjects = npz.raw("subject").astype(str).tolist()
    else:
        rows = load_npy(path)
    return FMRIDataset(decoder.prepare(rows, scaling=config.scaling, subject=subjects, label=f"{path}: fmri"))


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


def open_to_decode(
    config: GenerateConfig, ldm: LatentDiffusion
) -> tuple[FMRIDataset, ControlledFMRI, np.ndarray | None]:
    """What `generate` decodes: the data set or the rows of a file, their fMRI under the control, the mean training row.

    The mean is the one that the run keeps; of an earlier run, that of the training rows. Raises `InputError`.
    """
    facts = read_facts(config)
    if config.fmri is not None:
        dataset = open_rows(config, Decoder(ldm, facts, config.run))
        if config.guidance != 1 and facts.mean is None:
            raise InputError(f"setting guidance is {config.guidance}, but {config.run} keeps no mean fMRI; needed: 1")
        return dataset, ControlledFMRI(np.asarray(dataset.fmri), np.arange(dataset.num_rows)), facts.mean
    pairs, train = open_generation(config, ldm)
    mean = mean_fmri(train) if facts.mean is None else facts.mean
    return pairs, control_fmri(pairs, train, config.control, config.seed), mean


def read_facts(config: GenerateConfig) -> FMRIFacts:
    """What a decoder keeps of the fMRI it was tuned on. Raises `InputError` where it cannot be read."""
    return FMRIFacts.from_plain(read_weights(config.run, config.checkpoint).settings.get("fmri"), config.run)


def generation_provenance(config: GenerateConfig, dataset: FMRIDataset, ldm: LatentDiffusion) -> dict:
    """What generate.json says: settings, data, and how the test set was used before."""
    run = read_run_settings(config.run)
    about = {
        "settings": plain(config),
        "patch_size": ldm.conditioner.encoder.patch_size,
        "stage_a_run": run.get("stage_a", {}).get("run_dir"),
    }
    if config.fmri is not None:
        file = {"file": config.fmri, "file_sha256": sha256(Path(config.fmri))}
        return about | {"fmri": {**file, **data_facts(rows=dataset)}}
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
    subjects = [] if dataset.subject is None else list(dict.fromkeys(dataset.subject.tolist()))
    facts = {"settings": plain(data), "subjects": subjects, **data_facts(**{config.split: dataset})}
    return about | {"data": facts, "test_set_use": use}


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


def known_data(run: str) -> dict | None:
    """The data settings of a run, or None where it does not say which data it was tuned on."""
    settings = describe_data(read_run_settings(run))
    return plain(saved_data(settings)) if settings.get("name") else None


def _data_of(run: str) -> DataConfig:
    settings = describe_data(read_run_settings(run))
    if not settings.get("name"):
        needed = "needed: data.name=... data.root=..., or fmri=FILE for rows without pictures"
        raise InputError(f"{run}: does not say which data it was tuned on; {needed}")
    return saved_data(settings)
